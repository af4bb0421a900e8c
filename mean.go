package main

import (
	"context"
	"math"
	"slices"
	"sort"
	"sync"
	"time"
)

var meanSpans = [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

const (
	meanEvery = 4 * time.Second // between two samples at least
	meanLate  = 6 * time.Second // by which a span may be longer

	minChecked = time.Second // counters are too coarse to tell in less time whether they were reset
	minSleep   = time.Second // less is the time between reading two clocks
)

// suspended is suspendedTime, except in tests.
var suspended = suspendedTime

// A meanRecord holds samples of the totals of the last 15 minutes, for the word
// mean.
type meanRecord struct {
	mu     sync.Mutex
	past   []*sample     // oldest first
	newest *sample       // the newest one that was compared with the one before
	slept  time.Duration // how long the machine had been suspended then
}

// run adds samples until ctx is done.
func (r *meanRecord) run(ctx context.Context, read func() *sample) {
	defer onPanic()
	r.add(read())
	for sleep(ctx, meanEvery) == nil {
		r.add(read())
	}
}

// add adds a sample of the totals. It may be called at any time, but only the
// samples that are needed are kept.
func (r *meanRecord) add(now *sample) {
	if now.err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.check(now)
	if n := len(r.past); n == 0 || now.at.Sub(r.past[n-1].at) >= meanEvery {
		r.past = append(r.past, now)
	}
	longest := meanSpans[len(meanSpans)-1]
	for len(r.past) > 1 && now.at.Sub(r.past[1].at) >= longest {
		r.past = slices.Delete(r.past, 0, 1)
	}
}

// check drops the past if the counters of now do not continue it: other CPUs
// are online, the counters were reset, or the machine was suspended.
func (r *meanRecord) check(now *sample) {
	slept := suspended()
	switch old := r.newest; {
	case old == nil:
	case slept-r.slept >= minSleep:
		r.past = nil
	case now.at.Sub(old.at) < minChecked:
		return
	case !totalGain(old, now).known():
		r.past = nil
	}
	r.newest, r.slept = now, slept
}

// means returns the utilization over each of the spans up to now. It is NaN
// if the past does not reach back so far.
func (r *meanRecord) means(now *sample) []float64 {
	r.add(now)
	r.mu.Lock()
	defer r.mu.Unlock()
	percent := make([]float64, len(meanSpans))
	for i, span := range meanSpans {
		percent[i] = math.NaN()
		young := sort.Search(len(r.past), func(n int) bool { return now.at.Sub(r.past[n].at) < span })
		if young == 0 {
			continue
		}
		if from := r.past[young-1]; now.at.Sub(from.at) <= span+meanLate {
			percent[i] = totalGain(from, now).busy()
		}
	}
	return percent
}
