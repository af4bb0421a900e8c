package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// signals are the SIGINT, SIGTERM and SIGHUP of a run, and Ctrl-C as a key of
// the chart.
type signals struct {
	caught chan os.Signal
	asking chan os.Signal // with --ask, every SIGINT
}

// catchSignals ends ctx at the first signal, with a signalError as the cause. A
// second one ends the process at once, even if it is blocked. With ask, SIGINT
// does not end ctx.
func catchSignals(ctx context.Context, ask bool, end context.CancelCauseFunc) *signals {
	sig := &signals{make(chan os.Signal, 2), make(chan os.Signal, 1)}
	// A signal that was ignored at startup stays ignored, as nohup and
	// background jobs of a shell require.
	endings := slices.DeleteFunc([]os.Signal{os.Interrupt, syscall.SIGHUP}, signal.Ignored)
	signal.Notify(sig.caught, append(endings, syscall.SIGTERM)...)
	go func() { // ends with the process
		for s := range sig.caught {
			switch asks := ask && s == os.Interrupt; {
			case asks && len(sig.asking) == 0:
				sig.asking <- s
			case !asks && ctx.Err() == nil:
				end(signalError{s})
			default: // the one before has not been taken
				restoreTerminal()
				endBy(s)
			}
		}
	}()
	return sig
}

// interrupt acts like SIGINT. It never blocks.
func (sig *signals) interrupt() {
	select {
	case sig.caught <- os.Interrupt:
	default: // there are enough
	}
}

// A signalError means that a signal has ended a run of dialing.
type signalError struct{ os.Signal }

func (by signalError) Error() string { return by.String() }

// endBy ends the process by a signal. Where that is not possible, it ends it
// with the status that shells report.
func endBy(s os.Signal) {
	stderr.flush()
	self, err := os.FindProcess(os.Getpid())
	if err == nil && self.Pid != 1 { // the kernel protects process 1 of a container, and Go then exits with status 2
		signal.Reset(s)
		self.Signal(s)
		time.Sleep(time.Second) // another thread may take it
	}
	os.Exit(128 + map[os.Signal]int{syscall.SIGHUP: 1, os.Interrupt: 2, syscall.SIGTERM: 15}[s])
}

// askAtInterrupts pauses polling at every interrupt and asks whether to
// continue. If the answer is no, it calls end. It returns when ctx is done.
func askAtInterrupts(ctx context.Context, interrupts <-chan os.Signal, b brake, end func()) {
	for {
		select {
		case <-interrupts:
		case <-ctx.Done():
			return
		}
		b.pause()
		if !askToContinue(ctx, interrupts) {
			end()
		}
		b.resume()
	}
}

// askToContinue asks on the terminal whether to continue. Another interrupt,
// the end of ctx or a missing terminal means no.
func askToContinue(ctx context.Context, interrupts <-chan os.Signal) bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	replies := bufio.NewScanner(tty)
	for {
		go fmt.Fprint(tty, "\ncontinue (y/n)? ") // in the background, because the terminal may be stopped
		replied := make(chan bool, 1)
		go func() { replied <- replies.Scan() }() // ends with the reply, or with the process
		select {
		case ok := <-replied:
			switch strings.ToLower(strings.TrimSpace(replies.Text())) {
			case "y", "yes":
				return true
			case "n", "no":
				return false
			}
			if !ok {
				return false
			}
		case <-interrupts:
			return false
		case <-ctx.Done():
			return false
		}
	}
}
