//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package main

import (
	"errors"
	"math"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gdamore/tcell/v3"
	"golang.org/x/term"
)

// saveTerminal returns a function that gives the controlling terminal the modes
// that it has now, and a last text. If the terminal does not take that, because
// a write to it is blocked, it discards what the terminal has not shown yet.
func saveTerminal(tcell.Tty) (restore func(text string)) {
	var modes *term.State
	onTerminal(func(_ *os.File, fd int) { modes, _ = term.GetState(fd) })
	return func(text string) {
		onTerminal(func(tty *os.File, fd int) {
			for range 2 {
				if modes != nil {
					term.Restore(fd, modes) // also wakes the blocked write after a flush
				}
				tty.SetWriteDeadline(time.Now().Add(brief))
				if _, err := tty.WriteString(text); err == nil {
					return
				}
				flushOutput(fd)
			}
		})
	}
}

// onTerminal calls f with the controlling terminal, if there is one.
func onTerminal(f func(tty *os.File, fd int)) {
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return
	}
	defer tty.Close()
	if conn, err := tty.SyscallConn(); err == nil { // tty.Fd would make it blocking
		conn.Control(func(fd uintptr) { f(tty, int(fd)) })
	}
}

// suspend stops the job of this process until it is continued. It does nothing
// if no shell could continue it.
func suspend() {
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	syscall.Kill(0, syscall.SIGTSTP)
	select {
	case <-continued:
	case <-time.After(brief):
	}
}

// isListening reports whether f is a socket that waits for connections.
func isListening(f *os.File) (yes bool) {
	conn, err := f.SyscallConn()
	if err != nil {
		return false
	}
	conn.Control(func(fd uintptr) {
		n, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ACCEPTCONN)
		yes = err == nil && n != 0
	})
	return yes
}

// isLocked reports whether another process has locked f. If not, it locks f
// until f is closed.
func isLocked(f *os.File) bool {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == syscall.EWOULDBLOCK
}

// maxDescriptors returns how many files this process may have open.
func maxDescriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}

const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1 // bytes

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// openKernelFile opens a file in /proc or /sys. One of os.Open would be waited
// for by epoll, which takes longer than to read it.
func openKernelFile(path string) (*os.File, error) {
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case err != syscall.EINTR:
			return nil, &os.PathError{Op: "open", Path: path, Err: err}
		}
	}
}
