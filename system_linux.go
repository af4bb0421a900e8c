package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// suspendSignals ask the process to stop until it is continued.
var suspendSignals = []os.Signal{syscall.SIGTSTP}

// stopSelf stops the process, as a signal of suspendSignals does by default.
func stopSelf() { syscall.Kill(syscall.Getpid(), syscall.SIGTSTP) }

// flushTerminal throws away what was written to the terminal that it has not
// shown yet.
func flushTerminal() {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer tty.Close()
	if conn, err := tty.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) { unix.IoctlSetInt(int(fd), unix.TCFLSH, unix.TCOFLUSH) })
	}
}
