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

const readTimeout = 5 * time.Second // for a source that another goroutine is reading

// firstWindow and maxWindow limit the time that a first reply covers. The history
// gets a sample every historyEvery, so that there is always one between these
// ages, even if a timer is late by a tenth of that.
var (
	firstWindow  = time.Second
	maxWindow    = 3 * time.Second
	historyEvery = 1800 * time.Millisecond
)

const maxHistory = 4 // samples of each source: three, and one that a session may add

// A sampler reads the kernel for all sessions of the process, each source at
// most once in a jiffy however many sessions ask. It keeps a few samples for
// first replies.
type sampler struct {
	read               func(source) *sample
	minFirst, maxFirst time.Duration // time that a first reply covers
	young              bool          // the process serves one session, which began with it

	feeds   [sources]chan *feed    // a feed belongs to whoever has taken it out of its channel
	replies [requests]atomic.Int64 // number of replies to each word

	records             // for peak and mean
	firstMean sync.Once // of wantMean
}

// A feed holds the samples of one source.
type feed struct {
	newest  *sample
	history []*sample // oldest first; empty for load averages
	width   int       // number of columns of cores, including CPUs that have gone offline
}

// newSampler returns a sampler for this machine and for the control group with
// this path, or that of this process if it is "".
func newSampler(group string) *sampler {
	s := &sampler{minFirst: firstWindow, maxFirst: maxWindow}
	s.read = func(src source) *sample { return readSource(src, group) }
	for src := range s.feeds {
		s.feeds[src] = make(chan *feed, 1)
		s.feeds[src] <- new(feed)
	}
	return s
}

// readSource is readKernel, except in tests.
var readSource = readKernel

// readKernel reads a source from the kernel. It reads the number that is divided by
// the elapsed time last, so the time of the sample is that of the end.
func readKernel(src source, group string) *sample {
	now := new(sample)
	switch src {
	case totals, perCPU:
		now.err = now.stat.read(src == perCPU)
	case averages:
		now.load, now.err = readLoad()
	case pressures:
		now.waited, now.err = readPressure()
	case groups:
		now.usage, now.err = readGroup(group)
	}
	now.at = time.Now()
	return now
}

// start takes the first samples, and others until ctx is done. It fails like
// sampleAll, or if the kernel does not reply in time.
func (s *sampler) start(ctx context.Context) error {
	first := make(chan error, 1)
	go func() { // ends with ctx, once the kernel has replied
		first <- s.sampleAll()
		for sleep(ctx, historyEvery) == nil {
			s.sampleAll()
		}
	}()
	select {
	case err := <-first:
		return err
	case <-time.After(readTimeout):
		return timedOut(totals).err
	case <-ctx.Done():
		return nil
	}
}

// errZeros is about counters as in some sandboxes.
var errZeros = errors.New("all CPU counters are zero; cpu, cores, modes, mean, busy and peak will be nan")

// sampleAll adds a sample of each source to the history. It fails if the CPU
// counters cannot be read, or are all zero. It reads all sources in turn,
// because waking up costs an idle process more than reading.
func (s *sampler) sampleAll() (failed error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // if another goroutine hangs in reading a source, wait for that only for grace

	for _, src := range []source{totals, perCPU, pressures, groups} { // load averages need no history
		now := s.sample(ctx, src)
		if now.err != nil {
			if src == totals || src == perCPU {
				failed = cmp.Or(failed, now.err)
			}
			continue
		}
		s.keep(ctx, src, now)
		if src == totals {
			s.means.add(now)
			if now.total == (counts{}) {
				failed = errZeros
			}
		}
	}
	return failed
}

// keep adds a sample of src to the history.
func (s *sampler) keep(ctx context.Context, src source, now *sample) {
	f := s.take(ctx, src)
	if f == nil {
		return
	}
	defer s.put(src, f)
	if n := len(f.history); n == 0 || f.history[n-1] != now {
		f.history = append(f.history, now)
		f.history = slices.Delete(f.history, 0, max(0, len(f.history)-maxHistory))
	}
}

// sample returns a sample of src that is not older than a jiffy. A session that
// finds none reads the kernel itself, because waking another goroutine up costs
// more than that, and waits as long as the kernel does. Others wait for it until
// readTimeout, or until grace after ctx is done. Their sample then contains an
// error.
func (s *sampler) sample(ctx context.Context, src source) *sample {
	f := s.take(ctx, src)
	if f == nil {
		return timedOut(src)
	}
	defer s.put(src, f)
	if f.newest == nil || time.Since(f.newest.at) >= jiffy {
		now := s.read(src)
		if now.err != nil {
			now.err = sourceError(src, now.err)
		}
		f.width = max(f.width, len(now.rows))
		now.rows = append(now.rows, make([]row, f.width-len(now.rows))...)
		f.newest = now
	}
	return f.newest
}

// take waits for the feed of src. The result is nil if that takes too long.
func (s *sampler) take(ctx context.Context, src source) *feed {
	select {
	case f := <-s.feeds[src]:
		return f
	default: // a session is reading it
	}
	timeout := time.NewTimer(readTimeout)
	defer timeout.Stop()
	defer context.AfterFunc(ctx, func() { timeout.Reset(grace) })()
	select {
	case f := <-s.feeds[src]:
		return f
	case <-timeout.C:
		return nil
	}
}

func (s *sampler) put(src source, f *feed) { s.feeds[src] <- f }

// baseline returns the sample that the first reply of a session starts from:
// the newest one that is old enough. If all are too young, it waits until the
// oldest one is minAge old. If there is none, because this process or the machine
// was suspended or the set of CPUs has changed, it takes a sample and waits for
// that. If ctx is done, it waits only for minWindow. The result is not before the
// sample notBefore, unless that is nil.
func (s *sampler) baseline(ctx context.Context, src source, notBefore *sample, minAge time.Duration) *sample {
	now := s.sample(ctx, src)
	if now.err != nil {
		return now
	}
	begin := s.recall(ctx, src, now, minAge)
	if begin == nil {
		begin = now
		s.sampleAll() // so that the next word does not have to wait, too
	}
	if notBefore != nil && notBefore.at.After(begin.at) {
		begin = notBefore
	}
	sleep(ctx, minAge-time.Since(begin.at))
	time.Sleep(min(minAge, minWindow) - time.Since(begin.at))
	return begin
}

// recall returns the newest sample in the history that a first reply at now may
// start from, or else the oldest one that soon will be old enough; nil if there
// is none.
func (s *sampler) recall(ctx context.Context, src source, now *sample, minAge time.Duration) (begin *sample) {
	f := s.take(ctx, src)
	if f == nil {
		return nil
	}
	defer s.put(src, f)
	clock := time.Now()
	for _, old := range slices.Backward(f.history) {
		age := clock.Sub(old.at)
		// On some systems, the monotonic clock stops while the system sleeps,
		// so the wall clock is compared, too.
		if max(age, clock.Round(0).Sub(old.at.Round(0))) > s.maxFirst || !now.comparable(old) {
			break
		}
		if begin = old; age >= minAge {
			break
		}
	}
	return begin
}

// wantPeak notes that a session requests peak, and returns the sample with
// which recording began, or one with an error. If it begins now, the first
// replies to other words begin with that sample, too.
func (s *sampler) wantPeak(ctx context.Context, session any) *sample {
	now := s.sample(ctx, totals)
	if now.err != nil {
		return now
	}
	first := s.peaks.want(ctx, session, now, func() *sample { return s.sample(ctx, totals) })
	if first == now {
		s.keep(ctx, totals, now)
	}
	return first
}

// wantMean says once why a young process has no means yet, and takes the samples
// for them, because start may not have been called.
func (s *sampler) wantMean(ctx context.Context) {
	if !s.young {
		return
	}
	s.firstMean.Do(func() {
		say("mean is nan for the first minute (a listener that has run for longer has it at once: cpunc -l)")
		go func() { // ends with ctx
			defer onPanic()
			for {
				s.means.add(s.sample(ctx, totals))
				if sleep(ctx, meanEvery) != nil {
					return
				}
			}
		}()
	})
}

func timedOut(src source) *sample {
	return &sample{at: time.Now(), err: sourceError(src, errors.New("timed out"))}
}

// sourceError adds to err the name of the source that could not be read. The
// path in err may come from the environment or be that of a control group.
func sourceError(src source, err error) error {
	if text := err.Error(); !isPlain(text) {
		err = fmt.Errorf("%q", text)
	}
	if src <= averages { // every system has these
		return fmt.Errorf("cannot read %s: %w", src, err)
	}
	return fmt.Errorf("%s: %w", src, err)
}
