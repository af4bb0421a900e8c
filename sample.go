package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A word is what a client may send. All but bye ask for a reading. No word is
// the beginning of another, so a request is complete with its last letter.
type word int

const (
	cpuWord      word = iota // busy percent of the whole machine
	coresWord                // busy percent of each logical CPU
	modesWord                // percent of the time spent in each mode
	loadWord                 // load averages
	busyWord                 // percent of the time by the clock in which the CPUs were not idle
	pressureWord             // percent of the time in which some task waited for a CPU
	cgroupWord               // CPU use of the own control group in percent of its limit
	byeWord                  // closes the connection

	readings = byeWord // how many words ask for a reading
)

var words = [...]string{"cpu", "cores", "modes", "load", "busy", "pressure", "cgroup", "bye"}

func (w word) String() string { return words[w] }

const maxWords = 64 // that one request may have: with its answers, they fit every buffer

// parseReadings gives the readings of those names; bye is none.
func parseReadings(names []string) ([]word, error) {
	if len(names) > maxWords {
		return nil, fmt.Errorf("more than %d words", maxWords)
	}
	ws := make([]word, len(names))
	for i, name := range names {
		w := slices.Index(words[:readings], name)
		if w < 0 {
			return nil, fmt.Errorf("unknown reading %q (choose from %s)", name, strings.Join(words[:readings], ", "))
		}
		ws[i] = word(w)
	}
	return ws, nil
}

// A source is one thing to ask the kernel for. cpu, modes and busy share the
// totals, so that none of them pays for the parsing of every core.
type source int

const (
	totals source = iota
	perCPU
	averages
	pressures
	groups

	sources
)

func (s source) String() string {
	return [sources]string{"CPU counters", "CPU counters", "load averages", "pressure", "cgroup"}[s]
}

func (w word) source() source {
	return [readings]source{totals, perCPU, totals, averages, totals, pressures, groups}[w]
}

// width is how many numbers the answer to w has; 0 for cores, which machines
// have as they like.
func (w word) width() int {
	return [readings]int{1, 0, int(modes), 3, 1, 1, 2}[w]
}

const (
	tick        = 10 * time.Millisecond  // what kernels count in; nothing is read more often
	minWindow   = 100 * time.Millisecond // the shortest interval of a reply
	readTimeout = 5 * time.Second        // for counters whose file never answers
	lastRead    = 100 * time.Millisecond // for a read under way when its context is done
)

// What a first reply covers, at least and at most, and how often the history that
// it counts from gets a sample. With one every second and a half, one is always
// between those ages, though a timer may be late.
var (
	firstWindow  = time.Second
	maxWindow    = 3 * time.Second
	historyEvery = 1500 * time.Millisecond
)

const maxHistory = 4 // samples of each source: three, and one that a session adds

// A sample is what one source said at one moment. It is never changed, so
// sessions share it.
type sample struct {
	moment
	err    error
	stat       // of totals and perCPU
	width  int // of perCPU: columns of cores, which are kept when a CPU goes away
	load   [3]float64
	waited time.Duration
	usage  *usage
}

// A sampler reads the counters for every session of the process: at most once
// a tick however many ask. It keeps a few samples for first replies.
type sampler struct {
	ask         func(source) sample // the kernel
	every       time.Duration       // from one sample of the history to the next
	least, most time.Duration       // that a first reply covers

	replies [readings]atomic.Int64 // that sessions gave to each word
	width   atomic.Int32           // the columns of cores so far

	mu      sync.Mutex
	newest  [sources]atomic.Pointer[sample]
	reading [sources]chan struct{} // closed when the read under way is done; nil when there is none
	history [sources][]*sample     // oldest first; none of load averages
}

// readSource asks the kernel.
var readSource = askKernel

func newSampler() *sampler {
	return &sampler{ask: readSource, every: historyEvery, least: firstWindow, most: maxWindow}
}

// askKernel reads one source.
func askKernel(src source) (now sample) {
	switch src {
	case totals, perCPU:
		now.stat, now.moment, now.err = readStat(src == perCPU)
	case averages:
		now.load, now.moment, now.err = readLoad()
	case pressures:
		now.waited, now.moment, now.err = readPressure()
	case groups:
		var u usage
		u, now.moment, now.err = readGroup()
		now.usage = &u
	}
	return now
}

// run keeps the history until ctx is done.
func (s *sampler) run(ctx context.Context) {
	due := time.NewTicker(s.every)
	defer due.Stop()
	for {
		select {
		case <-due.C:
			s.record(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// record adds a sample of each source to the history. It fails when the CPU
// counters cannot be read, or never moved. All at once, and seldom: to wake up
// costs an idle process more than to read.
func (s *sampler) record(ctx context.Context) (failed error) {
	past := []source{totals, perCPU, pressures, groups} // load averages need no history
	s.read(past...)
	for _, src := range slices.Backward(past) { // to wait for the last is to wait for all
		now := s.sample(ctx, src)
		switch {
		case now.err == nil:
			s.keep(src, now)
			if src == totals && now.total == (counts{}) {
				failed = errors.New("all CPU counters are zero; cpu, cores, modes and busy read nan")
			}
		case src <= perCPU:
			failed = cmp.Or(failed, now.err)
		}
	}
	return failed
}

// keep adds a sample to the history.
func (s *sampler) keep(src source, now *sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	past := s.history[src]
	if n := len(past); n > 0 && past[n-1] == now {
		return
	}
	past = append(slices.Clip(past), now)
	s.history[src] = past[max(0, len(past)-maxHistory):]
}

// sample gives a sample of src that is no older than a tick. Where that takes
// too long, or ctx is done long before, the sample is an error.
func (s *sampler) sample(ctx context.Context, src source) *sample {
	if last := s.fresh(src); last != nil {
		return last
	}
	done := s.read(src)
	timeout := time.NewTimer(readTimeout)
	defer timeout.Stop()
	select {
	case <-done:
		return s.newest[src].Load()
	case <-timeout.C:
		return timedOut(src)
	case <-ctx.Done():
		timeout.Reset(lastRead)
	}
	select {
	case <-done:
		return s.newest[src].Load()
	case <-timeout.C:
		return timedOut(src)
	}
}

// read starts one goroutine that reads those of the sources that are older than a
// tick and not being read already. It gives what is closed when the last of them is
// done.
func (s *sampler) read(srcs ...source) (done <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stale []source
	for _, src := range srcs {
		if s.reading[src] == nil && s.fresh(src) == nil {
			s.reading[src] = make(chan struct{})
			stale = append(stale, src)
		}
	}
	if len(stale) > 0 {
		go func() { // ends when the kernel has answered
			defer onPanic()
			for _, src := range stale {
				s.refresh(src)
			}
		}()
	}
	if done = s.reading[srcs[len(srcs)-1]]; done == nil {
		return closed
	}
	return done
}

// closed is the channel of what is done.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// fresh gives the newest sample of src, if it is no older than a tick.
func (s *sampler) fresh(src source) *sample {
	if last := s.newest[src].Load(); last != nil && time.Since(last.at) < tick {
		return last
	}
	return nil
}

func timedOut(src source) *sample {
	return &sample{moment: within(time.Now(), time.Now()), err: sourceError(src, errors.New("timed out"))}
}

// sourceError says what could not be read.
func sourceError(src source, err error) error {
	if src <= averages {
		return fmt.Errorf("cannot read %s: %w", src, err)
	}
	return fmt.Errorf("%s: %w", src, err)
}

// refresh reads src, and wakes those who wait for it.
func (s *sampler) refresh(src source) {
	now := s.ask(src)
	if now.err != nil {
		now.err = sourceError(src, now.err)
	}
	if n := len(now.rows); n > 0 {
		s.width.Store(max(s.width.Load(), int32(now.rows[n-1].cpu+1))) // nobody else reads this source now
		now.width = int(s.width.Load())
	}
	s.newest[src].Store(&now)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.reading[src])
	s.reading[src] = nil
}

// baseline gives the sample that the first reply of a session counts from: the
// newest that is old enough. Where all are too old, since this process or the
// machine was stopped, or too young, it takes one and waits until that is old
// enough; but not much longer than until ctx is done.
func (s *sampler) baseline(ctx context.Context, src source) *sample {
	begin, enough := s.recall(src)
	if begin == nil {
		if begin = s.sample(ctx, src); begin.err != nil {
			return begin
		}
		s.record(ctx) // what is asked next must not wait once more
	}
	if enough {
		return begin
	}
	old := time.NewTimer(s.least - time.Since(begin.at))
	defer old.Stop()
	select {
	case <-old.C:
	case <-ctx.Done():
		time.Sleep(min(s.least, minWindow) - time.Since(begin.at))
	}
	return begin
}

// recall finds the newest sample in the history that a first reply may count
// from, or else the oldest that will be enough soon; nil where there is none.
func (s *sampler) recall(src source) (begin *sample, enough bool) {
	s.mu.Lock()
	past := s.history[src]
	s.mu.Unlock()
	now := time.Now()
	for _, old := range slices.Backward(past) {
		age := now.Sub(old.at)
		// The clock that measures age stands still while some systems sleep.
		if max(age, now.Round(0).Sub(old.at.Round(0))) > s.most {
			break
		}
		if begin = old; age >= s.least {
			return begin, true
		}
	}
	return begin, false
}
