package main

import (
	"cmp"
	"context"
	"math"
	"sort"
	"sync"
	"time"
)

// Two consecutive steps make a window. The windows overlap, so that a burst of
// three steps fills at least one of them, however it falls.
const peakStep = 100 * time.Millisecond

const (
	peakSilence = 10 * time.Minute // after so long without a request, a session does not want peak any more
	peakLinger  = time.Minute      // recording goes on for so long after the last session
)

// A peakRecord holds how busy the CPUs were in each window, for the word peak.
// It reads the totals only while a session wants them.
type peakRecord struct {
	mu     sync.Mutex
	first  *sample    // the one with which recording began; nil if it is not in progress
	steps  [2]*sample // the newest two
	maxima maxima
	asked  map[any]time.Time // the last request of each session
	until  time.Time         // recording continues at least until then
}

// want notes that a session requests peak at the time of now, a sample of the
// totals. If recording is not in progress, it begins with that sample, and ends
// with ctx. read reads another one. The result is the sample with which
// recording began.
func (r *peakRecord) want(ctx context.Context, session any, now *sample, read func() *sample) (first *sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked == nil {
		r.asked = map[any]time.Time{}
	}
	r.asked[session] = now.at
	if r.first == nil {
		r.first, r.steps = now, [2]*sample{nil, now}
		go r.run(ctx, read)
	}
	return r.first
}

// leave notes that a session ends. Recording goes on for peakLinger, and then as
// long as another session wants it.
func (r *peakRecord) leave(session any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.asked[session]) < peakSilence {
		r.until = now.Add(peakLinger)
	}
	delete(r.asked, session)
}

// run reads the totals at each step until no session wants them or ctx is done.
func (r *peakRecord) run(ctx context.Context, read func() *sample) {
	defer onPanic()
	due := time.NewTicker(peakStep)
	defer due.Stop()
	for r.wanted() {
		select {
		case <-due.C:
			r.step(read())
		case <-ctx.Done():
			return
		}
	}
}

// wanted reports whether recording continues. It looks at all sessions only
// when the time that it found before has passed, at most once in peakLinger.
func (r *peakRecord) wanted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Before(r.until) {
		return true
	}
	for _, last := range r.asked {
		if until := last.Add(peakSilence + peakLinger); until.After(r.until) {
			r.until = until
		}
	}
	if !now.Before(r.until) {
		r.first = nil
	}
	return r.first != nil
}

// step adds the window that ends with now. A window that ends late counts with
// its real length.
func (r *peakRecord) step(now *sample) {
	if now.err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if begin := r.steps[0]; begin != nil {
		r.maxima.add(now.at, busyByClock(begin, now))
	}
	r.steps = [2]*sample{r.steps[1], now}
}

// peak returns the largest value of busy in all windows that overlap the time
// between two samples, including the one that is not complete at the time of
// to. It is NaN if none is known.
func (r *peakRecord) peak(from, to *sample) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if totalGain(from, to).standsStill() {
		return math.NaN()
	}
	peak := r.maxima.since(from.at)
	begin := cmp.Or(r.steps[0], r.steps[1])
	if to.at.Sub(begin.at) >= minWindow-jiffy {
		peak = larger(peak, busyByClock(begin, to))
	}
	if math.IsNaN(peak) {
		return peak
	}
	return larger(peak, busyByClock(from, to)) // some windows may have been skipped
}

// larger returns the larger of two numbers. Each may be unknown.
func larger(a, b float64) float64 {
	if math.IsNaN(a) || b > a {
		return b
	}
	return a
}

// maxima holds those windows that were busier than every later one, oldest
// first. The maximum of any time up to now is one of them. As the values are
// tenths of a percent, there are at most 1,001.
type maxima []maximum

type maximum struct {
	end    time.Time
	tenths int
}

// add adds the latest window, unless its value is unknown.
func (m *maxima) add(end time.Time, percent float64) {
	if math.IsNaN(percent) {
		return
	}
	latest := maximum{end, int(math.Round(10 * percent))}
	n := len(*m)
	for n > 0 && (*m)[n-1].tenths <= latest.tenths {
		n--
	}
	*m = append((*m)[:n], latest)
}

// since returns the maximum of the windows that end after a time, or NaN if
// there are none.
func (m maxima) since(begin time.Time) float64 {
	i := sort.Search(len(m), func(i int) bool { return m[i].end.After(begin) })
	if i == len(m) {
		return math.NaN()
	}
	return float64(m[i].tenths) / 10
}
