package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/load"
)

// A word is what a client may send. All but bye ask for a reading. No word is
// the beginning of another, so a request is complete with its last letter.
type word int

const (
	cpuWord   word = iota // busy percent of the whole machine
	coresWord             // busy percent of each logical CPU
	modesWord             // percent of the time spent in each mode
	loadWord              // load averages
	byeWord               // closes the connection

	readings = byeWord // how many words ask for a reading
)

var words = [...]string{"cpu", "cores", "modes", "load", "bye"}

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

// A source is one thing to ask the kernel for. cpu and modes share the totals,
// so that neither pays for the parsing of every core.
type source int

const (
	totals source = iota
	perCPU
	averages

	sources
)

func (s source) String() string {
	if s == averages {
		return "load averages"
	}
	return "CPU counters"
}

func (w word) source() source {
	return [readings]source{cpuWord: totals, coresWord: perCPU, modesWord: totals, loadWord: averages}[w]
}

// width is how many numbers the answer to w has; 0 for cores, which machines
// have as they like.
func (w word) width() int {
	return [readings]int{cpuWord: 1, modesWord: int(modes), loadWord: 3}[w]
}

const (
	tick        = 10 * time.Millisecond  // what kernels count in; nothing is read more often
	minWindow   = 100 * time.Millisecond // the shortest interval of a reply
	firstWindow = time.Second            // the shortest of a first reply, history permitting
	readTimeout = 5 * time.Second        // for counters whose file never answers
)

// A sample is what one source said at one moment. It is never changed, so
// sessions share it.
type sample struct {
	at   time.Time
	cpus []cpu.TimesStat // seconds since boot: one for totals, one a CPU in number order for perCPU
	load load.AvgStat
	err  error
}

// A sampler reads the counters for every session of the process: at most once
// a tick however many ask. It keeps a few samples for first replies.
type sampler struct {
	times func(percpu bool) ([]cpu.TimesStat, error)
	avg   func() (*load.AvgStat, error)
	every time.Duration // from one sample of the history to the next

	replies [readings]atomic.Int64 // that sessions gave to each word

	mu      sync.Mutex
	newest  [sources]atomic.Pointer[sample]
	reading [sources]chan struct{} // closed when the read under way is done; nil when there is none
	history [averages][]*sample    // counters alone, oldest first
}

// historyEvery is how often the history gets a sample.
var historyEvery = 2 * time.Second

// readTimes reads the counters.
var readTimes = cpu.Times

func newSampler() *sampler {
	return &sampler{times: readTimes, avg: loadAverages, every: historyEvery}
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

// record adds a sample of both counters to the history, or says why it can't.
// Both at once, and seldom: to wake up costs an idle process more than to read.
func (s *sampler) record(ctx context.Context) (failed error) {
	for src := range averages {
		now := s.sample(ctx, src)
		if now.err != nil {
			failed = cmp.Or(failed, now.err)
			continue
		}
		s.mu.Lock()
		past := append(s.history[src], now)
		// Three two seconds apart: one of them is always between one and three
		// seconds old, late timer or not.
		s.history[src] = past[max(0, len(past)-3):]
		s.mu.Unlock()
	}
	return failed
}

// sample gives a sample of src that is no older than a tick. Where that takes
// too long, or ctx is done before, the sample is an error.
func (s *sampler) sample(ctx context.Context, src source) *sample {
	if last := s.newest[src].Load(); last != nil && time.Since(last.at) < tick {
		return last
	}
	s.mu.Lock()
	done := s.reading[src]
	if done == nil {
		done = make(chan struct{})
		s.reading[src] = done
		go func() { // ends when the kernel answers
			defer onPanic()
			s.refresh(src)
		}()
	}
	s.mu.Unlock()
	timeout := time.NewTimer(readTimeout)
	defer timeout.Stop()
	select {
	case <-done:
		return s.newest[src].Load()
	case <-timeout.C:
	case <-ctx.Done():
	}
	return &sample{at: time.Now(), err: fmt.Errorf("cannot read %s: timed out", src)}
}

// refresh reads src, and wakes those who wait for it.
func (s *sampler) refresh(src source) {
	now := s.read(src)
	s.newest[src].Store(now)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.reading[src])
	s.reading[src] = nil
}

// baseline gives the sample of totals or perCPU that the first reply of a
// session counts from: the newest that is a second old, or else the oldest.
func (s *sampler) baseline(ctx context.Context, src source) *sample {
	s.mu.Lock()
	past := s.history[src]
	s.mu.Unlock()
	// None that is of use: nobody keeps the history, or the counters could not
	// be read until now, or the machine slept.
	if len(past) == 0 || time.Since(past[len(past)-1].at) > 2*s.every {
		first := s.sample(ctx, src)
		if first.err == nil {
			s.mu.Lock()
			s.history[src] = []*sample{first}
			s.mu.Unlock()
		}
		return first
	}
	for _, old := range slices.Backward(past) {
		if time.Since(old.at) >= firstWindow {
			return old
		}
	}
	return past[0]
}

// read asks the kernel for src.
func (s *sampler) read(src source) *sample {
	now := &sample{at: time.Now()}
	var err error
	if src == averages {
		var avg *load.AvgStat
		if avg, err = s.avg(); err == nil {
			now.load = *avg
		}
	} else if now.cpus, err = s.times(src == perCPU); err == nil && len(now.cpus) == 0 {
		err = noCounters()
	}
	if err != nil {
		now.err = fmt.Errorf("cannot read %s: %w", src, err)
	}
	slices.SortStableFunc(now.cpus, func(a, b cpu.TimesStat) int {
		return cmp.Compare(cpuNumber(a), cpuNumber(b))
	})
	return now
}

// loadAverages is load.Avg, which panics where /proc/loadavg is short of numbers,
// and on Windows makes some up, beginning with zeros. Where there are none it
// gives ErrUnsupported.
func loadAverages() (avg *load.AvgStat, err error) {
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" {
		return nil, errors.ErrUnsupported
	}
	defer func() {
		if recover() != nil {
			err = errors.New("expected 3 values")
		}
	}()
	return load.Avg()
}

// noCounters finds out why gopsutil, which does not say, found no counters.
func noCounters() error {
	proc := os.Getenv("HOST_PROC")
	if proc == "" {
		proc = "/proc"
	}
	stat := filepath.Join(proc, "stat")
	f, err := os.Open(stat)
	if err != nil {
		return err
	}
	f.Close()
	return errors.New("no CPU lines in " + stat)
}

// cpuNumber is the 7 of cpu7; -1 for the totals, which have none.
func cpuNumber(t cpu.TimesStat) int {
	n, err := strconv.Atoi(strings.TrimPrefix(t.CPU, "cpu"))
	if err != nil {
		return -1
	}
	return n
}

// Modes as the word modes lists them. As in proc(5), user and nice hold guest
// and guest_nice already, so those two are not counted again.
const (
	user = iota
	nice
	system
	iowait
	irq
	softirq
	steal
	idle

	modes
)

var modeNames = [modes]string{"user", "nice", "system", "iowait", "irq", "softirq", "steal", "idle"}

// gain puts the seconds that each mode of one CPU gained between two samples
// into mode, and gives their sum. As in psutil, a counter that stepped back
// gained nothing: Linux corrects iowait and idle downwards when a CPU's tick
// restarts, and hot-plug and live migration reset whole rows.
func gain(mode *[modes]float64, from, to *cpu.TimesStat) (sum float64) {
	mode[user] = to.User - from.User
	mode[nice] = to.Nice - from.Nice
	mode[system] = to.System - from.System
	mode[iowait] = to.Iowait - from.Iowait
	mode[irq] = to.Irq - from.Irq
	mode[softirq] = to.Softirq - from.Softirq
	mode[steal] = to.Steal - from.Steal
	mode[idle] = to.Idle - from.Idle
	for i, d := range mode {
		if d > 0 && d < 1e15 { // neither NaN nor overflow
			sum += d
		} else {
			mode[i] = 0
		}
	}
	return sum
}

// busy gives the percentage of the time from one sample to another that a CPU
// was busy, as psutil.cpu_percent defines it:
//
//	100 × Δ(total − idle − iowait) / Δtotal
//
// It is 0 when no counter moved.
func busy(from, to *cpu.TimesStat) float64 {
	var mode [modes]float64
	sum := gain(&mode, from, to)
	if sum == 0 {
		return 0
	}
	return min(max(0, 100*(sum-mode[idle]-mode[iowait])/sum), 100)
}

// tenths gives the share of each mode in tenths of a percent, rounded so that
// they add up to 1000: what rounding down leaves over goes to the largest
// remainders. When no counter moved, the time counts as idle.
func tenths(from, to *cpu.TimesStat) (share [modes]int) {
	var mode [modes]float64
	sum := gain(&mode, from, to)
	if sum == 0 {
		share[idle] = 1000
		return share
	}
	var rest [modes]float64
	left := 1000
	for i, seconds := range mode {
		exact := 1000 * seconds / sum
		share[i] = int(exact)
		rest[i] = exact - float64(share[i])
		left -= share[i]
	}
	for ; left > 0; left-- {
		most := 0
		for i := range rest {
			if rest[i] > rest[most] {
				most = i
			}
		}
		share[most]++
		rest[most]--
	}
	return share
}

// appendReading appends to line what w reads between two samples of its
// source: numbers with one space between, no newline.
func appendReading(line []byte, w word, from, to *sample) []byte {
	var numbers []float64
	decimals := 1
	switch w {
	case cpuWord:
		numbers = []float64{busy(&from.cpus[0], &to.cpus[0])}
	case coresWord:
		numbers = cores(from.cpus, to.cpus)
	case modesWord:
		for _, share := range tenths(&from.cpus[0], &to.cpus[0]) {
			numbers = append(numbers, float64(share)/10)
		}
	case loadWord:
		numbers, decimals = []float64{to.load.Load1, to.load.Load5, to.load.Load15}, 2
	}
	for i, x := range numbers {
		if i > 0 {
			line = append(line, ' ')
		}
		line = strconv.AppendFloat(line, x, 'f', decimals, 64)
	}
	return line
}

// cores gives how busy each CPU was. They come in number order. One that
// vanished or appeared between the samples is left out: what its counters had
// before is not of this interval.
func cores(from, to []cpu.TimesStat) (percent []float64) {
	for i := range to {
		n := cpuNumber(to[i])
		for len(from) > 0 && cpuNumber(from[0]) < n {
			from = from[1:]
		}
		if len(from) > 0 && cpuNumber(from[0]) == n {
			percent = append(percent, busy(&from[0], &to[i]))
		}
	}
	return percent
}
