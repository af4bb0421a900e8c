//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var suspendSignals = []os.Signal{syscall.SIGTSTP}

func stopSelf() { syscall.Kill(syscall.Getpid(), syscall.SIGTSTP) }

func flushTerminal() {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer tty.Close()
	if conn, err := tty.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) { unix.IoctlSetPointerInt(int(fd), unix.TIOCFLUSH, unix.TCOFLUSH) })
	}
}
