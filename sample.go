package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
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
			return nil, fmt.Errorf("no reading is called %q (there are %s)", name, strings.Join(words[:readings], ", "))
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
	grace       = time.Millisecond       // that a sample may be too old
	minWindow   = 100 * time.Millisecond // the shortest interval of an answer
	firstWindow = time.Second            // the shortest of a first answer, history permitting
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
// a tick however many ask. It remembers a few samples for first answers.
type sampler struct {
	times func(percpu bool) ([]cpu.TimesStat, error)
	avg   func() (*load.AvgStat, error)
	every time.Duration // from one sample of the history to the next

	answers [readings]atomic.Int64 // that sessions gave of each word

	mu      sync.Mutex
	newest  [sources]atomic.Pointer[sample]
	history [averages][]*sample // counters alone, oldest first
}

// historyEvery is how often the history gets a sample.
var historyEvery = 2 * time.Second

// readTimes reads the counters.
var readTimes = cpu.Times

func newSampler() *sampler {
	return &sampler{times: readTimes, avg: loadAverages, every: historyEvery}
}

// loadAverages is load.Avg, which panics where /proc/loadavg is short of numbers,
// and on Windows makes some up, beginning with zeros. Where there are none it
// gives ErrUnsupported.
func loadAverages() (avg *load.AvgStat, err error) {
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" {
		return nil, errors.ErrUnsupported
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not three of them: %v", r)
		}
	}()
	return load.Avg()
}

// run keeps the history until ctx is done.
func (s *sampler) run(ctx context.Context) {
	due := time.NewTicker(s.every)
	defer due.Stop()
	for {
		select {
		case <-due.C:
			s.remember()
		case <-ctx.Done():
			return
		}
	}
}

// remember adds a sample of both counters to the history, or says why it can't.
// Both at once, and seldom: to wake up costs an idle process more than to read.
func (s *sampler) remember() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	for src := range averages {
		now := s.look(src)
		if now.err != nil {
			failed = cmp.Or(failed, now.err)
			continue
		}
		past := s.history[src]
		// Three two seconds apart: one of them is always between one and three
		// seconds old, late timer or not.
		if len(past) == 3 {
			past = past[:copy(past, past[1:])]
		}
		s.history[src] = append(past, now)
	}
	return failed
}

// now gives a sample of src that is no older than a tick. It may be older by
// the grace period, while the next one is read: so nobody waits for the kernel
// where a thousand ask in a second.
func (s *sampler) now(src source) *sample {
	last := s.fresh(src, tick+grace)
	if last == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.aside(src)
	}
	if time.Since(last.at) >= tick && s.mu.TryLock() {
		go func() { defer onPanic(); defer s.mu.Unlock(); s.look(src) }()
	}
	return last
}

// fresh gives the newest sample of src, if it is younger than age, or else nil.
func (s *sampler) fresh(src source, age time.Duration) *sample {
	last := s.newest[src].Load()
	if last == nil || time.Since(last.at) >= age {
		return nil
	}
	return last
}

// since gives the sample of totals or perCPU that the first answer of a
// session counts from: the newest that is a second old, or else the oldest.
func (s *sampler) since(src source) *sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	past := s.history[src]
	// None that is of use: nobody keeps the history, or the counters could not
	// be read until now, or the machine slept.
	if len(past) == 0 || time.Since(past[len(past)-1].at) > 2*s.every {
		first := s.aside(src)
		if first.err == nil {
			s.history[src] = append(past[:0], first)
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

// look reads src, unless that was done within the last tick; s.mu is held.
func (s *sampler) look(src source) *sample {
	last := s.fresh(src, tick)
	if last == nil {
		last = s.read(src)
		s.newest[src].Store(last)
	}
	return last
}

// aside is look for a session; s.mu is held. A reading goes deep, and a session
// whose stack grew would keep it so: a few kilobytes, ten thousand times. So it
// has the stack of a coroutine, which, unlike a goroutine, wakes no other thread.
func (s *sampler) aside(src source) *sample {
	if last := s.fresh(src, tick); last != nil {
		return last
	}
	next, stop := iter.Pull(func(yield func(*sample) bool) { yield(s.look(src)) })
	defer stop()
	now, _ := next()
	return now
}

// read asks the kernel for src.
func (s *sampler) read(src source) *sample {
	now := &sample{at: time.Now()}
	if src == averages {
		if avg, err := s.avg(); err != nil {
			now.err = fmt.Errorf("read load averages: %w", err)
		} else {
			now.load = *avg
		}
	} else {
		now.cpus, now.err = s.times(src == perCPU)
		if now.err != nil {
			now.err = fmt.Errorf("read CPU counters: %w", now.err)
		} else if len(now.cpus) == 0 {
			now.err = fmt.Errorf("read CPU counters: %w", noCounters())
		}
		slices.SortStableFunc(now.cpus, func(a, b cpu.TimesStat) int {
			return cmp.Compare(cpuNumber(a), cpuNumber(b))
		})
	}
	return now
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
	return errors.New("none in " + stat)
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
//
// From here down it goes by pointers and without floats in print: what would be
// copied, and what %.1f needs, takes a kilobyte of stack, which every one of
// ten thousand sessions would keep.
func appendReading(line []byte, w word, from, to *sample) []byte {
	switch w {
	case cpuWord:
		return appendBusy(line, &from.cpus[0], &to.cpus[0])
	case coresWord:
		return appendCores(line, from.cpus, to.cpus)
	case modesWord:
		return appendModes(line, &from.cpus[0], &to.cpus[0])
	default:
		return appendLoad(line, &to.load)
	}
}

func appendBusy(line []byte, from, to *cpu.TimesStat) []byte {
	return appendTenths(line, roundTenths(busy(from, to)))
}

// appendCores takes CPUs in number order. One that vanished or appeared between
// the samples is left out: what its counters had before is not of this interval.
func appendCores(line []byte, from, to []cpu.TimesStat) []byte {
	for i := range to {
		n := cpuNumber(to[i])
		for len(from) > 0 && cpuNumber(from[0]) < n {
			from = from[1:]
		}
		if len(from) == 0 || cpuNumber(from[0]) != n {
			continue
		}
		if len(line) > 0 {
			line = append(line, ' ')
		}
		line = appendBusy(line, &from[0], &to[i])
	}
	return line
}

func appendModes(line []byte, from, to *cpu.TimesStat) []byte {
	for i, share := range tenths(from, to) {
		if i > 0 {
			line = append(line, ' ')
		}
		line = appendTenths(line, share)
	}
	return line
}

func appendLoad(line []byte, avg *load.AvgStat) []byte {
	line = strconv.AppendFloat(line, avg.Load1, 'f', 2, 64)
	line = strconv.AppendFloat(append(line, ' '), avg.Load5, 'f', 2, 64)
	return strconv.AppendFloat(append(line, ' '), avg.Load15, 'f', 2, 64)
}

// roundTenths gives x in tenths, to the nearest, and to even where two are
// equally near: as %.1f does.
func roundTenths(x float64) int {
	n := math.Floor(10 * x)
	over := math.FMA(10, x, -(n + 0.5)) // its sign is exact, as that of 10*x-n-0.5 is not
	if over > 0 || over == 0 && math.Mod(n, 2) != 0 {
		n++
	}
	return int(n)
}

func appendTenths(line []byte, n int) []byte {
	return append(strconv.AppendInt(line, int64(n/10), 10), '.', byte('0'+n%10))
}
