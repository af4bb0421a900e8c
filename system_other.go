//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package main

import (
	"net"
	"os"
)

var suspendSignals []os.Signal

func suspend(job bool) {}

func flushTerminal() {}

func lockFile(*os.File) error { return nil }

func signalStatus(os.Signal) int { return 1 }

func maxDescriptors() int { return 0 } // unknown

var setKeepAlive func(fd uintptr, c net.KeepAliveConfig) error
