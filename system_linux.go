package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// flushOutput discards output that the terminal has not taken yet.
func flushOutput(fd int) { unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCOFLUSH) }

// makePrivate lets only the owner use a Unix socket that is bound next. undo
// ends the effect on other sockets.
func makePrivate(fd uintptr) (undo func()) {
	syscall.Fchmod(int(fd), 0o600)
	return func() {}
}
