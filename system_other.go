//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package main

import "os"

var suspendSignals []os.Signal

func suspend(job bool) {}

func flushTerminal() {}
