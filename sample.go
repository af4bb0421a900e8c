package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	minWindow   = 100 * time.Millisecond // the shortest interval of a reply
	readTimeout = 5 * time.Second        // for a read that blocks
	lastRead    = 100 * time.Millisecond // for a pending read when its context is done
)

// firstWindow and maxWindow limit the time that a first reply covers. The
// history gets a sample every historyEvery, so that there is always one between
// these ages, even if a timer is late.
var (
	firstWindow  = time.Second
	maxWindow    = 3 * time.Second
	historyEvery = 1500 * time.Millisecond
)

const maxHistory = 4 // samples of each source: three, and one that a session may add

// A sampler reads the counters for all sessions of the process, at most once
// per tick however many sessions ask. It keeps a few samples for first replies.
type sampler struct {
	ask         func(source) sample // reads a source from the kernel
	every       time.Duration       // between two samples of the history
	least, most time.Duration       // time that a first reply covers

	replies [readings]atomic.Int64 // number of replies to each word
	width   atomic.Int32           // largest number of columns of cores so far

	mu      sync.Mutex
	newest  [sources]atomic.Pointer[sample]
	reading [sources]chan struct{} // closed when the pending read is done; nil if there is none
	history [sources][]*sample     // oldest first; empty for load averages
}

// readSource is askKernel, except in tests.
var readSource = askKernel

func newSampler() *sampler {
	return &sampler{ask: readSource, every: historyEvery, least: firstWindow, most: maxWindow}
}

// askKernel reads a source from the kernel.
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

// run adds samples to the history until ctx is done.
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

// record adds a sample of each source to the history. It fails if the CPU
// counters cannot be read, or are all zero. It reads all sources at once,
// because waking up costs an idle process more than reading.
func (s *sampler) record(ctx context.Context) (failed error) {
	past := []source{totals, perCPU, pressures, groups} // load averages need no history
	s.read(past...)
	for _, src := range slices.Backward(past) { // waiting for the last one is waiting for all
		now := s.sample(ctx, src)
		switch {
		case now.err == nil:
			s.keep(src, now)
			if src == totals && now.total == (counts{}) {
				failed = errors.New("all CPU counters are zero; cpu, cores, modes and busy will be nan")
			}
		case src <= perCPU:
			failed = cmp.Or(failed, now.err)
		}
	}
	return failed
}

// keep adds a sample of src to the history.
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

// sample returns a sample of src that is not older than a tick. If reading
// takes longer than readTimeout, or than lastRead after ctx is done, the sample
// contains an error.
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

// read starts one goroutine that reads those sources that have no fresh sample
// and are not being read already. The channel is closed when the last source
// has been read.
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
		go func() { // ends when the reads return
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

// closed is a closed channel, for sources that have been read already.
var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// fresh returns the newest sample of src, or nil if that is older than a tick.
func (s *sampler) fresh(src source) *sample {
	if last := s.newest[src].Load(); last != nil && time.Since(last.at) < tick {
		return last
	}
	return nil
}

func timedOut(src source) *sample {
	return &sample{moment: within(time.Now(), time.Now()), err: sourceError(src, errors.New("timed out"))}
}

// sourceError adds to err the name of the source that could not be read. The
// path in err may come from the environment or be that of a control group.
func sourceError(src source, err error) error {
	if text := err.Error(); !isPlain(text) {
		err = fmt.Errorf("%q", text)
	}
	if src <= averages {
		return fmt.Errorf("cannot read %s: %w", src, err)
	}
	return fmt.Errorf("%s: %w", src, err)
}

// refresh reads src and wakes the sessions that wait for it.
func (s *sampler) refresh(src source) {
	now := s.ask(src)
	if now.err != nil {
		now.err = sourceError(src, now.err)
	}
	if n := len(now.rows); n > 0 {
		s.width.Store(max(s.width.Load(), int32(now.rows[n-1].cpu+1))) // no race: only one goroutine at a time reads this source
		now.width = int(s.width.Load())
	}
	s.newest[src].Store(&now)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.reading[src])
	s.reading[src] = nil
}

// baseline returns the sample that the first reply of a session starts from:
// the newest one that is old enough. If all are too young, it waits for the
// oldest one. If there is none, because this process or the machine was
// suspended or the set of CPUs has changed, it takes a sample and waits for
// that. If ctx is done, it waits only for minWindow.
func (s *sampler) baseline(ctx context.Context, src source) *sample {
	now := s.sample(ctx, src)
	if now.err != nil {
		return now
	}
	begin := s.recall(src, now)
	if begin == nil {
		begin = now
		s.record(ctx) // so that the next word does not have to wait, too
	}
	if wait := s.least - time.Since(begin.at); wait > 0 {
		old := time.NewTimer(wait)
		defer old.Stop()
		select {
		case <-old.C:
		case <-ctx.Done():
			time.Sleep(min(s.least, minWindow) - time.Since(begin.at))
		}
	}
	return begin
}

// recall returns the newest sample in the history that a first reply at now may
// start from, or else the oldest one that soon will be old enough; nil if there
// is none.
func (s *sampler) recall(src source, now *sample) (begin *sample) {
	s.mu.Lock()
	past := s.history[src]
	s.mu.Unlock()
	clock := time.Now()
	for _, old := range slices.Backward(past) {
		age := clock.Sub(old.at)
		// On some systems, the monotonic clock stops while the system sleeps,
		// so the wall clock is compared, too.
		if max(age, clock.Round(0).Sub(old.at.Round(0))) > s.most || !now.comparable(old) {
			break
		}
		if begin = old; age >= s.least {
			break
		}
	}
	return begin
}
