//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"net"

	"golang.org/x/sys/unix"
)

// flushOutput discards output that the terminal has not taken yet.
func flushOutput(fd int) { unix.IoctlSetPointerInt(fd, unix.TIOCFLUSH, unix.TCOFLUSH) }

var setKeepAlive func(fd uintptr, c net.KeepAliveConfig) error
