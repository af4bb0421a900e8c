//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var suspendSignals []os.Signal // none: a signal that was caught once no longer stops the process

func suspend(job bool) { syscall.Kill(0, syscall.SIGTSTP) }

func flushOutput(fd uintptr) { unix.IoctlSetPointerInt(int(fd), unix.TIOCFLUSH, unix.TCOFLUSH) }

var setKeepAlive func(fd uintptr, c net.KeepAliveConfig) error
