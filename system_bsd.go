//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

var suspendSignals []os.Signal // what is caught once does not stop the process any more

func suspend(job bool) { syscall.Kill(0, syscall.SIGTSTP) }

func flushTerminal() {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer tty.Close()
	if conn, err := tty.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) {
			unix.IoctlSetPointerInt(int(fd), unix.TIOCFLUSH, unix.TCOFLUSH)
			if modes, err := term.GetState(int(fd)); err == nil {
				term.Restore(int(fd), modes) // which wakes the writer that waits for room
			}
		})
	}
}
