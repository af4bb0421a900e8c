package main

import (
	"io"
	"os"
	"syscall"
	"time"

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

// openKernelFile opens a file in /proc or /sys. A file of package os would be
// waited for by epoll, which takes longer than to read it.
func openKernelFile(path string) (io.ReadCloser, error) {
	fd, err := restarting(func() (int, error) { return syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return kernelFile(fd), nil
}

type kernelFile int

func (f kernelFile) Read(b []byte) (int, error) {
	n, err := restarting(func() (int, error) { return syscall.Read(int(f), b) })
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

func (f kernelFile) Close() error { return syscall.Close(int(f)) }

// restarting calls a system call again if a signal has interrupted it.
func restarting(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != syscall.EINTR {
			return n, err
		}
	}
}

// suspendedTime returns how long the machine has been suspended since boot, or
// 0 if that is unknown.
func suspendedTime() time.Duration {
	var awake, all unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &awake) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &all) != nil {
		return 0
	}
	return time.Duration(all.Nano() - awake.Nano())
}

// machine returns the hardware name of this machine.
func machine() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Machine[:])
}
