//go:build !linux && !darwin && !dragonfly && !freebsd && !netbsd && !openbsd

package main

import (
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/gdamore/tcell/v3"
)

func suspend() {}

func saveTerminal(tty tcell.Tty) (restore func(text string)) {
	return func(text string) {
		io.WriteString(tty, text)
		tty.Stop()
	}
}

func isListening(*os.File) bool { return false }

func isLocked(*os.File) bool { return false }

func maxDescriptors() int { return math.MaxInt32 } // unknown

const maxSocketPath = 107 // bytes

func makePrivate(uintptr) (undo func()) { return func() {} }

func isReset(err error) bool {
	return err != nil && strings.Contains(err.Error(), "forcibly closed") // by Windows
}

func openKernelFile(path string) (*os.File, error) { return os.Open(path) }

func suspendedTime() time.Duration { return 0 } // unknown

func machine() string { return "" } // unknown
