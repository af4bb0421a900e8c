package main

import (
	"errors"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// suspendSignals are the signals that ask the process to stop until it is
// continued.
var suspendSignals = []os.Signal{syscall.SIGTSTP}

// suspend stops the process, or its whole job, until it is continued. SIGTSTP
// does that by default, but Go does not restore the default once the signal was
// caught. suspend does nothing if the process group is orphaned, because no
// shell could continue it.
func suspend(job bool) {
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	var byDefault, caught [64]byte // larger than any platform's struct sigaction
	action := func(set, old *[64]byte) {
		syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(syscall.SIGTSTP), uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	}
	action(&byDefault, &caught)
	defer action(&caught, nil)
	pid := syscall.Getpid()
	if job {
		pid = 0
	}
	syscall.Kill(pid, syscall.SIGTSTP)
	select {
	case <-continued:
	case <-time.After(100 * time.Millisecond):
	}
}

// flushOutput discards output that the terminal has not taken yet.
func flushOutput(fd uintptr) { unix.IoctlSetInt(int(fd), unix.TCFLSH, unix.TCOFLUSH) }

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
