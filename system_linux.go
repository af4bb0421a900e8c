package main

import (
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
