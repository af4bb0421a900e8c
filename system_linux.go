package main

import (
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// flushOutput discards output that the terminal has not taken yet.
func flushOutput(fd int) { unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH) }

// setKeepAlive sets the keepalive of a listener's socket, which its connections
// inherit. It is nil on systems where they do not, or may not.
var setKeepAlive = func(fd uintptr, c net.KeepAliveConfig) error {
	return errors.Join(
		syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1),
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, int(c.Idle/time.Second)),
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, int(c.Interval/time.Second)),
		syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, c.Count),
	)
}

// makePrivate lets only the owner use a Unix socket that is bound next. undo
// ends the effect on other sockets.
func makePrivate(fd uintptr) (undo func()) {
	syscall.Fchmod(int(fd), 0o600)
	return func() {}
}
