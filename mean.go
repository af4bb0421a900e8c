package main

import (
	"math"
	"slices"
	"sort"
	"sync"
	"time"
)

var meanSpans = [...]time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute}

const (
	meanEvery = 3500 * time.Millisecond // least time between two samples
	meanLate  = 6 * time.Second         // how much longer the time of a mean may be than its span

	minChecked = time.Second // counters are too coarse to tell in less time whether they were reset
	minSleep   = time.Second // less is the time between reading two clocks
)

// suspended is suspendedTime, except in tests.
var suspended = suspendedTime

// A meanRecord holds samples of the totals of the last 15 minutes, for the word
// mean.
type meanRecord struct {
	mu    sync.Mutex
	past  []*sample     // oldest first
	slept time.Duration // how long the machine had been suspended at the last sample
}

// add adds a sample of the totals. It may be called at any time, but only the
// samples that are needed are kept. If the counters do not continue the past, it
// is dropped: other CPUs are online, the counters were reset, or the machine was
// suspended.
func (r *meanRecord) add(now *sample) {
	if now.err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	slept := suspended()
	if n := len(r.past); n > 0 {
		last := r.past[n-1]
		if slept-r.slept >= minSleep || now.at.Sub(last.at) >= minChecked && !totalGain(last, now).known() {
			r.past = nil
		}
	}
	r.slept = slept
	if n := len(r.past); n == 0 || now.at.Sub(r.past[n-1].at) >= meanEvery {
		r.past = append(r.past, now)
	}
	longest := meanSpans[len(meanSpans)-1]
	for len(r.past) > 1 && now.at.Sub(r.past[1].at) >= longest {
		r.past = slices.Delete(r.past, 0, 1)
	}
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
