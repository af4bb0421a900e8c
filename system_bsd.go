//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"math"
	"net"
	"os"
	"sync"
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

// lockFile locks f for this process, or fails at once when another has it.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// signalStatus is the exit status of a process that s ended, as shells have it.
func signalStatus(s os.Signal) int { return 128 + int(s.(syscall.Signal)) }

// maxDescriptors is how many files this process may have open.
var maxDescriptors = sync.OnceValue(func() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || uint64(limit.Cur) > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
})

var setKeepAlive func(fd uintptr, c net.KeepAliveConfig) error
