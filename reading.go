package main

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"time"
)

// A source is something that can be read from the kernel. The words for the whole
// machine share totals, so that they do not pay for parsing every core.
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

// jiffy is the unit of kernel counters. A sample is not older, and need not be
// newer.
const jiffy = 10 * time.Millisecond

const minWindow = 100 * time.Millisecond // the shortest interval of a reply

// A sample is the state of one source at one moment. It is immutable, so
// sessions share it.
type sample struct {
	at     time.Time // when the kernel was read
	err    error
	stat   // of totals and perCPU
	load   [3]float64
	waited time.Duration
	usage  *usage
}

// comparable reports whether the counters of both samples belong to the same
// CPUs or to the same control group with the same limits. The kernel's totals
// gain or lose everything that a CPU had counted when it goes online or
// offline.
func (s *sample) comparable(old *sample) bool {
	return s.set == old.set && (s.usage == nil || s.usage.comparable(old.usage))
}

// isOfGroup reports whether both samples are of the same control group.
func (s *sample) isOfGroup(old *sample) bool {
	return s.err == nil && s.usage.sameGroup(old.usage)
}

// slack and slackPart are how much more than the elapsed time counters may
// gain, absolutely and as a fraction: kernels count in jiffies, in part by
// separate clocks, and a little late.
const (
	slack     = 5 * jiffy
	slackPart = 0.1
)

// A gain is what the counters of one or several CPUs gained between two
// samples, in units of countRate.
type gain struct {
	mode      [modes]float64
	sum       float64
	decrease  float64     // of all counters that decreased
	tolerance float64     // by which counters may be wrong
	leaped    [modes]bool // gained more than the elapsed time allows
	time      float64     // elapsed, summed over the CPUs; of one CPU if their number is unknown
}

// gained compares the counters of that many CPUs. A counter that decreased
// gained nothing, as in psutil: Linux corrects iowait and idle downwards. The
// same goes for one that leaped, as steal does when it wraps at 2⁶⁴ ns.
func gained(from, to *sample, old, now *counts, cpus int) (g gain) {
	each := to.at.Sub(from.at).Seconds() * countRate
	g.time = each * float64(cmp.Or(cpus, 1))
	g.tolerance = (2*jiffy).Seconds()*countRate*float64(cmp.Or(cpus, 1)) + g.time/100
	limit := (each*(1+slackPart) + slack.Seconds()*countRate) * float64(cmp.Or(cpus, runtime.NumCPU()))
	var delta [modes]float64
	for i := range delta {
		delta[i] = float64(int64(now[i] - old[i])) // exact even above 2⁵³
	}
	// Linux counts an idle period as iowait while a task waits for a disk, and
	// as idle once none does. The whole period then moves from one counter to
	// the other.
	if both := delta[modeIdle] + delta[modeIowait]; both >= 0 && both <= limit && max(delta[modeIdle], delta[modeIowait]) > limit {
		if delta[modeIdle] > 0 {
			delta[modeIdle], delta[modeIowait] = both, 0
		} else {
			delta[modeIdle], delta[modeIowait] = 0, both
		}
	}
	for i, n := range delta {
		switch {
		case n < 0:
			g.decrease -= n
		case n > limit:
			g.leaped[i] = true
		default:
			g.mode[i] = n
			g.sum += n
		}
	}
	return g
}

// The fraction of the elapsed time that counters must have gained to be known,
// and to be trusted if others decreased or leaped. Kernels that count by jiffies
// miss work between, but hardly nine tenths of the time. After a migration,
// which resets all counters, some may have gained a little.
const (
	minCounted = 0.1
	minTrusted = 0.75
)

// known reports whether the counters account for enough of the elapsed time.
// Those of an idle counter that stands still, or of a machine that slept, do not.
// A small decrease, as iowait often has, does not matter.
func (g gain) known() bool {
	fraction := minCounted
	if g.decrease > g.tolerance || g.leaped != [modes]bool{} {
		fraction = minTrusted
	}
	return g.sum > 0 && g.sum >= fraction*g.time
}

// standsStill reports whether the counters gained too little although none was
// reset, as with an idle counter that stands still. A short time in which the
// others gained more says nothing then.
func (g gain) standsStill() bool {
	return g.decrease == 0 && g.leaped == [modes]bool{} && g.sum < minCounted*g.time
}

// totalGain returns the gain of the machine. It is unknown if a CPU went online
// or offline.
func totalGain(from, to *sample) gain {
	if !to.comparable(from) {
		return gain{}
	}
	return gained(from, to, &from.total, &to.total, to.cpus)
}

// busy returns the percentage of time that was not idle, as psutil.cpu_percent
// defines it:
//
//	100 × Δ(total − idle − iowait) / Δtotal
func (g gain) busy() float64 {
	if !g.known() {
		return math.NaN()
	}
	return min(max(0, 100*(g.sum-g.mode[modeIdle]-g.mode[modeIowait])/g.sum), 100)
}

// shares returns the percentage of each mode, in tenths that add up to 100,
// because the sums of the first modes are rounded, not each by itself.
func (g gain) shares() []float64 {
	if !g.known() {
		return slices.Repeat([]float64{math.NaN()}, modes)
	}
	var percent []float64
	sum, tenths := 0.0, 0.0
	for _, n := range g.mode {
		sum += n
		before := tenths
		tenths = math.Round(1000 * sum / g.sum)
		percent = append(percent, (tenths-before)/10)
	}
	return percent
}

// cores returns how busy each CPU was. Column n is CPU n. A CPU that is not in
// both samples was offline for part of the time, so it is NaN.
func cores(from, to *sample) []float64 {
	percent := slices.Repeat([]float64{math.NaN()}, len(to.rows))
	for cpu := range min(len(from.rows), len(to.rows)) {
		if old, now := &from.rows[cpu], &to.rows[cpu]; old.online && now.online {
			percent[cpu] = gained(from, to, &old.counts, &now.counts, 1).busy()
		}
	}
	return percent
}

// busyByClock returns the percentage of wall-clock time in which the CPUs were
// not idle:
//
//	100 × (1 − Δ(idle + iowait) / (CPUs × Δt))
//
// Kernels that count by jiffies charge a whole one to the task that is running
// when it ends, so they miss work between. But they measure idle time exactly.
//
// The result is NaN if the CPUs were idle for longer than the elapsed time, as
// with counters of another machine, or if their number is unknown.
func busyByClock(from, to *sample) float64 {
	g := totalGain(from, to)
	free := g.mode[modeIdle] + g.mode[modeIowait]
	if !g.known() || to.cpus == 0 || g.time <= 0 || g.leaped[modeIdle] || g.leaped[modeIowait] || free > g.time+g.tolerance {
		return math.NaN()
	}
	return min(max(0, 100*(1-free/g.time)), 100)
}

// pressure returns the percentage of time in which runnable tasks waited for a
// CPU:
//
//	100 × Δsome / Δt
//
// The kernel averages some over the CPUs, weighted by their busy time.
func pressure(from, to *sample) float64 {
	elapsed := to.at.Sub(from.at)
	waited := to.waited - from.waited
	if elapsed <= 0 || waited < 0 || waited > elapsed+elapsed/10+slack {
		return math.NaN()
	}
	return min(100*waited.Seconds()/elapsed.Seconds(), 100)
}

// groupUse returns the CPU use of the control group in percent of its limit,
// and the percentage of periods in which it was throttled, which is the largest
// one of its quotas:
//
//	100 × Δused / (limit × Δt)
//	100 × Δthrottled / Δperiods
//
// A group may exceed its limit for a short time, if it has saved some up; that
// counts as 100.
func groupUse(from, to *sample) []float64 {
	elapsed := to.at.Sub(from.at).Seconds()
	a, b := from.usage, to.usage
	used := b.seconds - a.seconds
	if !to.comparable(from) || elapsed <= 0 || used < 0 || used > maxCPUs*elapsed {
		return []float64{math.NaN(), math.NaN()}
	}
	throttled := 0.0
	for i := range b.quotas {
		throttled = max(throttled, throttledShare(&a.quotas[i], &b.quotas[i])) // NaN if one is
	}
	return []float64{min(100*used/(b.limit*elapsed), 100), throttled}
}

// throttledShare returns the percentage of periods in which a quota was used up.
func throttledShare(from, to *quota) float64 {
	periods, full := to.periods-from.periods, to.throttled-from.throttled
	switch {
	case periods == 0 && full == 0: // nothing ran
		return 0
	case periods <= 0 || full < 0:
		return math.NaN()
	}
	return min(100*full/periods, 100)
}
