//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"math"
	"os"
	"sync"
	"syscall"

	"golang.org/x/term"
)

// flushTerminal discards output that the controlling terminal has not shown
// yet.
func flushTerminal() {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer tty.Close()
	if conn, err := tty.SyscallConn(); err == nil {
		conn.Control(func(fd uintptr) {
			flushOutput(fd)
			if modes, err := term.GetState(int(fd)); err == nil {
				term.Restore(int(fd), modes) // wakes the writer that waits for room
			}
		})
	}
}

// lockFile locks f for this process. It fails at once if another process has
// the lock.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// signalStatus returns the exit status of a process that s ended, as shells
// report it.
func signalStatus(s os.Signal) int { return 128 + int(s.(syscall.Signal)) }

// maxDescriptors returns how many files this process may have open.
var maxDescriptors = sync.OnceValue(func() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
})
