package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/load"
)

func TestBusy(t *testing.T) {
	base := cpu.TimesStat{User: 100, Nice: 10, System: 50, Idle: 800, Iowait: 40, Irq: 5, Softirq: 5, Steal: 10, Guest: 20, GuestNice: 5}
	plus := func(d cpu.TimesStat) cpu.TimesStat {
		to := base
		to.User += d.User
		to.Nice += d.Nice
		to.System += d.System
		to.Idle += d.Idle
		to.Iowait += d.Iowait
		to.Irq += d.Irq
		to.Softirq += d.Softirq
		to.Steal += d.Steal
		to.Guest += d.Guest
		to.GuestNice += d.GuestNice
		return to
	}
	for _, test := range []struct {
		name  string
		gain  cpu.TimesStat
		cpu   string
		modes string
	}{
		{"nothing moved", cpu.TimesStat{}, "0.0", "0.0 0.0 0.0 0.0 0.0 0.0 0.0 100.0"},
		{"idle", cpu.TimesStat{Idle: 1}, "0.0", "0.0 0.0 0.0 0.0 0.0 0.0 0.0 100.0"},
		{"full", cpu.TimesStat{User: 1}, "100.0", "100.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0"},
		{"every mode", cpu.TimesStat{User: 10, Nice: 5, System: 15, Iowait: 10, Irq: 1, Softirq: 2, Steal: 7, Idle: 50}, "40.0", "10.0 5.0 15.0 10.0 1.0 2.0 7.0 50.0"},
		{"guests are inside user and nice", cpu.TimesStat{User: 20, Guest: 20, Nice: 5, GuestNice: 5, Idle: 75}, "25.0", "20.0 5.0 0.0 0.0 0.0 0.0 0.0 75.0"},
		{"steal is busy", cpu.TimesStat{Steal: 1, Idle: 3}, "25.0", "0.0 0.0 0.0 0.0 0.0 0.0 25.0 75.0"},
		{"iowait is not", cpu.TimesStat{Iowait: 1, User: 1}, "50.0", "50.0 0.0 0.0 50.0 0.0 0.0 0.0 0.0"},
		{"iowait steps back", cpu.TimesStat{User: 1, Iowait: -5, Idle: 1}, "50.0", "50.0 0.0 0.0 0.0 0.0 0.0 0.0 50.0"},
		{"idle steps back", cpu.TimesStat{User: 1, Idle: -100}, "100.0", "100.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0"},
		{"all step back", cpu.TimesStat{User: -50, Idle: -100}, "0.0", "0.0 0.0 0.0 0.0 0.0 0.0 0.0 100.0"},
		{"not a number", cpu.TimesStat{User: math.NaN(), Idle: 1}, "0.0", "0.0 0.0 0.0 0.0 0.0 0.0 0.0 100.0"},
		{"thirds add up", cpu.TimesStat{User: 1, System: 1, Idle: 1}, "66.7", "33.4 0.0 33.3 0.0 0.0 0.0 0.0 33.3"},
		{"eighths add up", cpu.TimesStat{User: 1, Nice: 1, System: 1, Iowait: 1, Irq: 1, Softirq: 1, Idle: 1}, "71.4", "14.3 14.3 14.3 14.3 14.3 14.3 0.0 14.2"},
	} {
		from := &sample{cpus: []cpu.TimesStat{base}}
		to := &sample{cpus: []cpu.TimesStat{plus(test.gain)}}
		if got := string(appendReading(nil, cpuWord, from, to)); got != test.cpu {
			t.Errorf("%s: cpu %s, want %s", test.name, got, test.cpu)
		}
		if got := string(appendReading(nil, modesWord, from, to)); got != test.modes {
			t.Errorf("%s: modes %s, want %s", test.name, got, test.modes)
		}
	}
}

// Whatever the counters do, a reading is within its bounds and modes add up.
func FuzzBusy(f *testing.F) {
	f.Add(1.0, 2.0, 3.0, 2.0, 1.0, 3.0)
	f.Add(0.0, 0.0, 0.0, 1e308, 1e308, 1e308)
	f.Add(1e18, 3.3, -1.0, 0.1, 0.2, 0.7)
	f.Add(0.0, 0.0, math.Inf(1), math.NaN(), 0.2, 0.7)
	f.Fuzz(func(t *testing.T, u0, i0, w0, u1, i1, w1 float64) {
		from := cpu.TimesStat{User: u0, Idle: i0, Iowait: w0}
		to := cpu.TimesStat{User: u1, Idle: i1, Iowait: w1}
		if b := busy(&from, &to); !(b >= 0 && b <= 100) {
			t.Errorf("busy %v", b)
		}
		sum := 0
		for _, n := range tenths(&from, &to) {
			if n < 0 {
				t.Errorf("negative share in %v", tenths(&from, &to))
			}
			sum += n
		}
		if sum != 1000 {
			t.Errorf("%v add up to %d", tenths(&from, &to), sum)
		}
	})
}

func TestCoresComeAndGo(t *testing.T) {
	sampleOf := func(spec string) *sample { // "0:busy/idle 2:busy/idle"
		s := new(sample)
		for _, f := range strings.Fields(spec) {
			var n int
			var user, idle float64
			fmt.Sscanf(f, "%d:%f/%f", &n, &user, &idle)
			s.cpus = append(s.cpus, cpu.TimesStat{CPU: fmt.Sprintf("cpu%d", n), User: user, Idle: idle})
		}
		return s
	}
	for _, test := range []struct{ from, to, want string }{
		{"0:1/1 1:1/1", "0:2/1 1:1/2", "100.0 0.0"},
		{"0:1/1 1:1/1 2:1/1", "0:1/2 2:2/1", "0.0 100.0"}, // 1 vanished
		{"0:1/1 2:1/1", "0:1/2 1:1/3 2:2/1", "0.0 100.0"}, // 1 appeared
		{"1:1/1", "0:1/0 1:2/2 2:0/1", "50.0"},            // both sides
		{"0:1/1 9:1/1 10:1/1", "0:2/1 9:1/2 10:2/2", "100.0 0.0 50.0"},
		{"3:1/1", "4:1/1", ""},
	} {
		if got := string(appendReading(nil, coresWord, sampleOf(test.from), sampleOf(test.to))); got != test.want {
			t.Errorf("%s to %s: %s, want %s", test.from, test.to, got, test.want)
		}
	}
}

// Where no CPU is the same there is an error, and then a new beginning.
func TestEveryCoreIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := "cpu3"
		c := connect(t, &sampler{every: historyEvery, times: func(bool) ([]cpu.TimesStat, error) {
			return []cpu.TimesStat{{CPU: name, Idle: 1}}, nil
		}})
		for _, test := range []struct{ name, want string }{
			{"cpu3", "0.0"},
			{"cpu4", "error: cannot read CPU counters: the set of CPUs has changed"},
			{"cpu4", "0.0"},
		} {
			name = test.name
			if got := c.ask("cores"); got != test.want {
				t.Errorf("%s: %q, want %q", test.name, got, test.want)
			}
			time.Sleep(5 * time.Second)
		}
	})
}

// A kernel is a machine whose counters the test knows. They move in steps of a
// tick, as real ones do.
type kernel struct {
	boot time.Time
	cpus int
	load func(cpu, tick int) bool // whether a CPU is busy in a tick

	mu    sync.Mutex
	fail  error // of reading the counters
	empty bool  // nothing is read, as gopsutil has it when there is no /proc
	count [sources]int
	busy  [][]float64 // of each CPU, the seconds it was busy before a tick
}

func newKernel(cpus int, load func(cpu, tick int) bool) *kernel {
	return &kernel{boot: time.Now(), cpus: cpus, load: load, busy: make([][]float64, cpus)}
}

func (k *kernel) sampler() *sampler {
	return &sampler{times: k.times, avg: k.avg, every: historyEvery}
}

// reads gives how often each source was read.
func (k *kernel) reads() [sources]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count
}

func (k *kernel) breakDown(empty bool, fail error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.empty, k.fail = empty, fail
}

func (k *kernel) busyUntil(cpu int, at time.Time) float64 {
	n := int(at.Sub(k.boot) / tick)
	sums := k.busy[cpu]
	if sums == nil {
		sums = []float64{0}
	}
	for len(sums) <= n {
		next := sums[len(sums)-1]
		if k.load(cpu, len(sums)-1) {
			next += tick.Seconds()
		}
		sums = append(sums, next)
	}
	k.busy[cpu] = sums
	return sums[n]
}

func (k *kernel) times(percpu bool) ([]cpu.TimesStat, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if percpu {
		k.count[perCPU]++
	} else {
		k.count[totals]++
	}
	if k.fail != nil || k.empty {
		return nil, k.fail
	}
	now := time.Now()
	up := now.Sub(k.boot).Seconds()
	total := cpu.TimesStat{CPU: "cpu-total"}
	var all []cpu.TimesStat
	for i := range k.cpus {
		b := k.busyUntil(i, now)
		all = append(all, cpu.TimesStat{CPU: fmt.Sprintf("cpu%d", i), User: b, Idle: up - b})
		total.User += b
		total.Idle += up - b
	}
	if percpu {
		return all, nil
	}
	return []cpu.TimesStat{total}, nil
}

func (k *kernel) avg() (*load.AvgStat, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count[averages]++
	return &load.AvgStat{Load1: 1, Load5: 0.5, Load15: 0.256}, k.fail
}

// percent is what CPU 0 was busy between two times.
func (k *kernel) percent(from, to time.Time) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Sprintf("%.1f", 100*(k.busyUntil(0, to)-k.busyUntil(0, from))/to.Sub(from).Seconds())
}

func quarter(_, tick int) bool { return tick%4 == 0 }

// inBubble runs test with a sampler over k that has kept its history for age.
func inBubble(t *testing.T, age time.Duration, load func(cpu, tick int) bool, test func(t *testing.T, k *kernel, smp *sampler)) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(2, load)
		time.Sleep(time.Minute) // the counters are older than the listener
		smp := k.sampler()
		smp.record(context.Background())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go smp.run(ctx)
		time.Sleep(age)
		test(t, k, smp)
	})
}

func TestFirstAnswer(t *testing.T) {
	// Busy for the odd seconds: what an answer covers shows in its number.
	odd := func(_, tick int) bool { return tick/100%2 == 1 }
	for _, test := range []struct {
		age, covers, wait time.Duration
	}{
		{0, 100 * time.Millisecond, 100 * time.Millisecond},
		{50 * time.Millisecond, 100 * time.Millisecond, 50 * time.Millisecond},
		{100 * time.Millisecond, 100 * time.Millisecond, 0},
		{700 * time.Millisecond, 700 * time.Millisecond, 0},
		{1000 * time.Millisecond, 1000 * time.Millisecond, 0},
		{1500 * time.Millisecond, 1500 * time.Millisecond, 0},
		{2500 * time.Millisecond, 2500 * time.Millisecond, 0},
		{60*time.Second + 990*time.Millisecond, 2990 * time.Millisecond, 0},
		{61 * time.Second, 1000 * time.Millisecond, 0},
		{61*time.Second + 990*time.Millisecond, 1990 * time.Millisecond, 0},
		{62 * time.Second, 2000 * time.Millisecond, 0},
	} {
		t.Run(test.age.String(), func(t *testing.T) {
			inBubble(t, test.age, odd, func(t *testing.T, k *kernel, smp *sampler) {
				synctest.Wait() // a history that is due now is taken first
				asked := time.Now()
				got := connect(t, smp).ask("cpu")
				answered := time.Now()
				if wait := answered.Sub(asked); wait != test.wait {
					t.Errorf("came after %v, want %v", wait, test.wait)
				}
				if want := k.percent(answered.Add(-test.covers), answered); got != want {
					t.Errorf("cpu %s, want the %s of %v", got, want, test.covers)
				}
			})
		})
	}
}

// A first answer does not reach back to what is long past, where nobody keeps a
// history or the machine slept.
func TestFirstAnswerWithoutHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(2, quarter)
		smp := k.sampler()
		smp.record(context.Background())
		time.Sleep(time.Hour)
		asked := time.Now()
		got := connect(t, smp).ask("cpu")
		answered := time.Now()
		if want := k.percent(asked, answered); got != want || answered.Sub(asked) != minWindow {
			t.Errorf("cpu %s after %v, want %s after %v", got, answered.Sub(asked), want, minWindow)
		}
	})
}

// Those who ask while the counters are being read get what that brings; one that
// never ends costs them a timeout, and other sources nothing.
func TestCountersHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(1, quarter)
		smp := k.sampler()
		hang := make(chan struct{})
		smp.times = func(percpu bool) ([]cpu.TimesStat, error) {
			if !percpu {
				<-hang
			}
			return k.times(percpu)
		}
		begin := time.Now()
		var askers sync.WaitGroup
		for range 10 {
			askers.Go(func() {
				got := smp.sample(t.Context(), totals)
				if got.err == nil || got.err.Error() != "cannot read CPU counters: timed out" || time.Since(begin) != readTimeout {
					t.Errorf("%v after %v", got.err, time.Since(begin))
				}
			})
		}
		if got := smp.sample(t.Context(), perCPU); got.err != nil || time.Since(begin) != 0 {
			t.Errorf("the other counters: %v after %v", got.err, time.Since(begin))
		}
		askers.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		if got := smp.sample(ctx, totals); got.err == nil || time.Since(begin) != time.Second {
			t.Errorf("at the end: %v after %v", got.err, time.Since(begin))
		}
		close(hang)
		synctest.Wait()
		if n := k.reads()[totals]; n != 1 {
			t.Errorf("read %d times at once", n)
		}
		if got := smp.sample(t.Context(), totals); got.err != nil {
			t.Error(got.err)
		}
	})
}

// However many ask, the counters are read once in 10 ms; cpu does not read the
// cores; and when nobody asks, each is read every other second.
func TestReadsAreBounded(t *testing.T) {
	inBubble(t, time.Minute, quarter, func(t *testing.T, k *kernel, smp *sampler) {
		var clients sync.WaitGroup
		reads := k.reads()
		for i := range 40 {
			clients.Go(func() {
				time.Sleep(time.Duration(i) * time.Millisecond)
				c := connect(t, smp)
				for range 100 {
					c.ask("cpu")
					c.ask("modes")
					time.Sleep(100 * time.Millisecond)
				}
			})
		}
		clients.Wait()
		if n := k.reads()[totals] - reads[totals]; n > 1010 {
			t.Errorf("the totals were read %d times in 10 s", n)
		}
		if n := k.reads()[perCPU] - reads[perCPU]; n > 6 {
			t.Errorf("the cores were read %d times in 10 s without being asked for", n)
		}
		reads = k.reads()
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, src := range []source{totals, perCPU} {
			if n := k.reads()[src] - reads[src]; n != 1800 {
				t.Errorf("source %d was read %d times in an idle hour", src, n)
			}
		}
		if k.reads()[averages] != reads[averages] {
			t.Error("load averages were read without being asked for")
		}
	})
}

func TestUnreadableCounters(t *testing.T) {
	t.Setenv("HOST_PROC", t.TempDir()+"/nothing")
	inBubble(t, time.Minute, quarter, func(t *testing.T, k *kernel, smp *sampler) {
		c := connect(t, smp)
		c.ask("cpu")
		begin := time.Now()
		k.breakDown(true, nil)
		time.Sleep(5 * time.Second)
		for _, word := range []string{"cpu", "cores", "modes"} {
			if got := c.ask(word); !strings.HasPrefix(got, "error: cannot read CPU counters: open ") {
				t.Errorf("%s without counters: %q", word, got)
			}
		}
		k.breakDown(true, errors.New("not implemented"))
		time.Sleep(time.Second)
		if got, want := c.ask("cpu"), "error: cannot read CPU counters: not implemented"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if got, want := c.ask("load"), "error: cannot read load averages: not implemented"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		k.breakDown(false, nil)
		time.Sleep(time.Second)
		if got, want := c.ask("cpu"), k.percent(begin, time.Now()); got != want {
			t.Errorf("with the counters back: %q, want %q", got, want)
		}
		if got, want := connect(t, smp).ask("load"), "1.00 0.50 0.26"; got != want {
			t.Errorf("load %q, want %q", got, want)
		}
	})
}

// A sampler that never saw the counters starts its history when they appear.
func TestCountersAppear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(1, quarter)
		k.breakDown(true, nil)
		smp := k.sampler()
		if err := smp.record(context.Background()); err == nil {
			t.Error("no counters, no error")
		}
		time.Sleep(time.Second)
		k.breakDown(false, nil)
		asked := time.Now()
		got := connect(t, smp).ask("cpu")
		if wait := time.Since(asked); wait != minWindow {
			t.Errorf("waited %v", wait)
		}
		if want := k.percent(asked, time.Now()); got != want {
			t.Errorf("cpu %s, want %s", got, want)
		}
	})
}
