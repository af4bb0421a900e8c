//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// flushOutput discards output that the terminal has not taken yet.
func flushOutput(fd int) { unix.IoctlSetPointerInt(fd, unix.TIOCFLUSH, unix.TCOFLUSH) }

// makePrivate lets only the owner use a Unix socket that is bound next. undo
// ends the effect on other sockets.
func makePrivate(uintptr) (undo func()) {
	old := syscall.Umask(0o177)
	return func() { syscall.Umask(old) }
}

func suspendedTime() time.Duration { return 0 } // unknown

func machine() string { return "" } // has no metric
