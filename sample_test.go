package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A kernel simulates a machine with known counters, which move in jiffies
// like real ones.
type kernel struct {
	boot time.Time
	cpus int
	load func(cpu, tick int) bool // whether a CPU is busy during a tick

	mu    sync.Mutex
	fail  error // if not nil, the error of reading the counters
	count [sources]int
	busy  [][]uint64 // for each CPU, the number of busy ticks before each tick
}

func newKernel(cpus int, load func(cpu, tick int) bool) *kernel {
	return &kernel{boot: time.Now(), cpus: cpus, load: load, busy: make([][]uint64, cpus)}
}

func (k *kernel) sampler() *sampler {
	smp := newSampler("")
	smp.read = k.read
	return smp
}

// reads returns how often each source was read.
func (k *kernel) reads() [sources]int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count
}

// plug sets the number of CPUs that are online.
func (k *kernel) plug(cpus int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cpus = cpus
}

func (k *kernel) breakDown(fail error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fail = fail
}

func (k *kernel) busyUntil(cpu int, at time.Time) uint64 {
	n := int(at.Sub(k.boot) / jiffy)
	sums := k.busy[cpu]
	if sums == nil {
		sums = []uint64{0}
	}
	for len(sums) <= n {
		next := sums[len(sums)-1]
		if k.load(cpu, len(sums)-1) {
			next++
		}
		sums = append(sums, next)
	}
	k.busy[cpu] = sums
	return sums[n]
}

// read reads the simulated counters. A task waits for a CPU whenever CPU 0 is busy. The
// control group is limited to a quarter of the CPUs and uses all the busy time of CPU 0.
func (k *kernel) read(src source) *sample {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count[src]++
	now := &sample{at: time.Now(), err: k.fail}
	if k.fail != nil {
		return now
	}
	up := 1000 + uint64(now.at.Sub(k.boot)/jiffy) // no counter is all zero after the start of a kernel
	busy := time.Duration(k.busyUntil(0, now.at)) * jiffy
	switch src {
	case averages:
		now.load = [3]float64{1, 0.5, 0.256}
	case pressures:
		now.waited = busy
	case groups:
		here, _ := os.Stat(".") // any directory
		now.usage = &usage{group: controlGroup{id: here}, seconds: busy.Seconds(), limit: float64(k.cpus) / 4}
	default:
		now.stat = stat{cpus: k.cpus, set: uint64(k.cpus)}
		for i := range k.cpus {
			b := k.busyUntil(i, now.at)
			now.total[modeUser] += b
			now.total[modeIdle] += up - b
			if src == perCPU {
				now.rows = append(now.rows, row{true, counts{modeUser: b, modeIdle: up - b}})
			}
		}
	}
	return now
}

// percent returns how busy CPU 0 was between two times.
func (k *kernel) percent(from, to time.Time) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return fmt.Sprintf("%.1f", float64(k.busyUntil(0, to)-k.busyUntil(0, from))/to.Sub(from).Seconds())
}

func quarter(_, tick int) bool { return tick%4 == 0 }

// inBubble runs test in a bubble, with a sampler over k that has kept its history for
// age.
func inBubble(t *testing.T, age time.Duration, load func(cpu, tick int) bool, test func(t *testing.T, k *kernel, smp *sampler)) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(2, load)
		time.Sleep(time.Minute) // the counters are older than the listener
		smp := k.sampler()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if err := smp.start(ctx); err != nil {
			t.Fatal(err)
		}
		time.Sleep(age)
		test(t, k, smp)
	})
}

func TestFirstAnswer(t *testing.T) {
	// The CPUs are busy in odd seconds, so the number shows which time a reply covers.
	odd := func(_, tick int) bool { return tick/100%2 == 1 }
	const ms = time.Millisecond
	for _, test := range []struct {
		age, covers, wait time.Duration
	}{
		{0, 1000 * ms, 1000 * ms},
		{50 * ms, 1000 * ms, 950 * ms},
		{990 * ms, 1000 * ms, 10 * ms},
		{1000 * ms, 1000 * ms, 0},
		{1790 * ms, 1790 * ms, 0},
		{1800 * ms, 1800 * ms, 0},
		{2790 * ms, 2790 * ms, 0},
		{2800 * ms, 1000 * ms, 0},
		{60*time.Second + 390*ms, 2790 * ms, 0},
		{60*time.Second + 400*ms, 1000 * ms, 0},
		{61*time.Second + 190*ms, 1790 * ms, 0},
		{61*time.Second + 200*ms, 1800 * ms, 0},
	} {
		t.Run(test.age.String(), func(t *testing.T) {
			inBubble(t, test.age, odd, func(t *testing.T, k *kernel, smp *sampler) {
				synctest.Wait() // a history sample that is due now is taken first
				asked := time.Now()
				got := connect(t, smp).ask("cpu")
				answered := time.Now()
				if wait := answered.Sub(asked); wait != test.wait {
					t.Errorf("came after %v, want %v", wait, test.wait)
				}
				if want := k.percent(answered.Add(-test.covers), answered); got != want {
					t.Errorf("cpu %s, want %s over %v", got, want, test.covers)
				}
			})
		})
	}
}

// A first reply does not reach far back if no history was kept or the process was
// stopped. All readings that are requested together then wait only once.
func TestFirstAnswerWithoutHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(2, quarter)
		smp := k.sampler()
		smp.sampleAll()
		time.Sleep(maxWindow + jiffy)
		asked := time.Now()
		c := connect(t, smp)
		got := c.ask("cpu")
		answered := time.Now()
		if want := k.percent(asked, answered); got != want || answered.Sub(asked) != time.Second {
			t.Errorf("cpu %s after %v, want %s after a second", got, answered.Sub(asked), want)
		}
		for _, word := range []string{"cores", "busy", "pressure", "cgroup"} {
			c.ask(word)
		}
		if took := time.Since(answered); took != 0 {
			t.Errorf("the other readings took %v more", took)
		}
	})
}

// When a stopped process continues, its timer is due and takes a new sample. All
// other samples are older than three seconds, so the first reply counts from the new
// one.
func TestFirstAnswerAfterStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(1, func(_, tick int) bool { return tick < 8500 })
		smp := k.sampler()
		for range maxHistory {
			smp.sampleAll()
			time.Sleep(historyEvery)
		}
		time.Sleep(20*time.Second - historyEvery)
		smp.sampleAll()
		woken := time.Now()
		time.Sleep(300 * time.Millisecond)
		got := connect(t, smp).ask("cpu")
		if want := k.percent(woken, time.Now()); got != want || time.Since(woken) != time.Second {
			t.Errorf("cpu %s, %v after it went on, want %s after a second", got, time.Since(woken), want)
		}
	})
}

// A first reply after a CPU came back does not start from a sample without that CPU.
func TestFirstAnswerAfterHotplug(t *testing.T) {
	const ms = time.Millisecond
	for _, test := range []struct {
		age, covers, wait time.Duration // age is the time since the CPU came back
	}{
		{300 * ms, 1000 * ms, 1000 * ms}, // no sample since then
		{1300 * ms, 1000 * ms, 1000 * ms},
		{2000 * ms, 1000 * ms, 600 * ms}, // one sample, which is too young
		{3000 * ms, 1400 * ms, 0},
		{3600 * ms, 2000 * ms, 0}, // the newest sample is too young
		{4600 * ms, 1200 * ms, 0},
	} {
		t.Run(test.age.String(), func(t *testing.T) {
			inBubble(t, 60*time.Second+200*ms, quarter, func(t *testing.T, k *kernel, smp *sampler) {
				k.plug(1)
				time.Sleep(3 * time.Second)
				k.plug(2)
				time.Sleep(test.age)
				synctest.Wait()
				asked := time.Now()
				c := connect(t, smp)
				got := c.ask("cpu")
				answered := time.Now()
				if wait := answered.Sub(asked); wait != test.wait {
					t.Errorf("came after %v, want %v", wait, test.wait)
				}
				want := k.percent(answered.Add(-test.covers), answered)
				if got != want {
					t.Errorf("cpu %s, want %s over %v", got, want, test.covers)
				}
				if got := c.ask("cores"); got != want+" "+want {
					t.Errorf("cores %s, want %s of both CPUs", got, want)
				}
				if got := c.ask("cgroup"); got == "nan nan" { // its limit has changed, too
					t.Error("cgroup is unknown")
				}
			})
		})
	}
}

// When a listener ends, a first reply does not wait longer than necessary. The end comes
// after the request, even if by a nanosecond.
func TestFirstAnswerAtTheEnd(t *testing.T) {
	for _, test := range []struct{ end, want time.Duration }{{1, minWindow}, {30 * time.Millisecond, minWindow}, {400 * time.Millisecond, 400 * time.Millisecond}} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(1, quarter)
			client, server := net.Pipe()
			ctx, cancel := context.WithCancel(t.Context())
			go (&session{sampler: k.sampler()}).serve(ctx, server)
			begin := time.Now()
			time.AfterFunc(test.end, cancel)
			client.Write([]byte("cpu"))
			got, _ := io.ReadAll(client)
			if want := k.percent(begin, begin.Add(test.want)) + "\n"; string(got) != want || time.Since(begin) != test.want {
				t.Errorf("%q after %v, want %q after %v", got, time.Since(begin), want, test.want)
			}
		})
	}
}

// The first line for this machine covers one interval, but at least 100 ms, even if -w
// is shorter. The second one covers the next interval.
func TestFirstLineOfThisMachine(t *testing.T) {
	defer func(real func(source, string) *sample) { readSource = real }(readSource) // once its goroutines have ended
	for _, text := range []string{"0", "0.25", "1", "60", "1h"} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(1, quarter)
			readSource = func(src source, _ string) *sample { return k.read(src) }
			for _, keep := range []string{"", "-k"} {
				begin := time.Now()
				opt, err := parse(strings.Fields("-w 0.01 -c 2 -i " + text + " " + keep))
				if err != nil {
					t.Fatal(err)
				}
				p := newPoller(opt, newBrake(), nil)
				if p.interval == 0 {
					p.count = 1 // the next line would be the same one
				}
				lines, err := polled(t, p)
				if err != nil {
					t.Error(err)
				}
				want := []string{fmt.Sprintf("0.10 0.10 %s", k.percent(begin, begin.Add(minWindow)))}
				if p.interval > 0 {
					want = nil
					for n := range 2 {
						end := time.Duration(n+1) * p.interval
						want = append(want, fmt.Sprintf("%.2f %.2[1]f %[2]s", end.Seconds(), k.percent(begin.Add(end-p.interval), begin.Add(end))))
					}
				}
				expect(t, lines, want...)
			}
		})
	}
}

// Requests that arrive while the counters are being read share the result. If the read
// hangs, its session waits for the kernel, and the others time out. Other sources are
// not affected.
func TestCountersHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(1, quarter)
		smp := k.sampler()
		hang := make(chan struct{})
		smp.read = func(src source) *sample {
			if src == totals {
				<-hang
			}
			return k.read(src)
		}
		begin := time.Now()
		first := make(chan *sample, 1)
		go func() { first <- smp.sample(t.Context(), totals) }()
		synctest.Wait()
		var others sync.WaitGroup
		for range 10 {
			others.Go(func() {
				got := smp.sample(t.Context(), totals)
				if got.err == nil || got.err.Error() != "cannot read CPU counters: timed out" || time.Since(begin) != readTimeout {
					t.Errorf("%v after %v", got.err, time.Since(begin))
				}
			})
		}
		if err := smp.sampleAll(); err == nil || time.Since(begin) > 2*grace {
			t.Errorf("the history: %v after %v", err, time.Since(begin))
		}
		if got := smp.sample(t.Context(), perCPU); got.err != nil || smp.recall(t.Context(), perCPU, got, firstWindow) == nil {
			t.Errorf("the other counters: %v, or not recorded", got.err)
		}
		others.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		if got := smp.sample(ctx, totals); got.err == nil || time.Since(begin) != time.Second+grace {
			t.Errorf("at the end: %v after %v", got.err, time.Since(begin))
		}
		close(hang)
		if got := <-first; got.err != nil {
			t.Error(got.err)
		}
		if got := smp.sample(t.Context(), totals); got.err != nil {
			t.Error(got.err)
		}
		if n := k.reads()[totals]; n != 1 {
			t.Errorf("read %d times at once", n)
		}
	})
}

// A run on this machine, too, ends within a second while a read hangs.
func TestRunEndsWhileCountersHang(t *testing.T) {
	defer func(real func(source, string) *sample) { readSource = real }(readSource) // once its goroutines have ended
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		reply := make(chan struct{})
		readSource = func(source, string) *sample {
			if time.Since(begin) > 0 { // not yet before the request has been read
				<-reply
			}
			return &sample{at: time.Now(), stat: stat{total: counts{modeIdle: 1}}}
		}
		opt, err := parse(nil)
		if err != nil {
			t.Fatal(err)
		}
		p := newPoller(opt, newBrake(), func(line) error { return nil })
		ctx, cancel := context.WithCancel(t.Context())
		const end = 5 * time.Second
		time.AfterFunc(end, cancel)
		if err := p.run(ctx); err != nil || time.Since(begin) > end+time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		close(reply)
	})
}

// However many clients there are, the counters are read at most once in 10 ms. A
// request for cpu does not read the cores. Without requests, each source is read every
// 1.8 seconds.
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
		if n := k.reads()[perCPU] - reads[perCPU]; n > 8 {
			t.Errorf("the cores were read %d times in 10 s without being asked for", n)
		}
		reads = k.reads()
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, src := range []source{totals, perCPU, pressures, groups} {
			if n := k.reads()[src] - reads[src]; n != 2000 {
				t.Errorf("source %d was read %d times in an idle hour", src, n)
			}
		}
		if k.reads()[averages] != reads[averages] {
			t.Error("load averages were read without being asked for")
		}
	})
}

func TestUnreadableCounters(t *testing.T) {
	inBubble(t, time.Minute, quarter, func(t *testing.T, k *kernel, smp *sampler) {
		c := connect(t, smp)
		c.ask("cpu")
		begin := time.Now()
		k.breakDown(errors.New("not implemented"))
		time.Sleep(5 * time.Second)
		for word, want := range map[string]string{
			"cpu": "cannot read CPU counters: not implemented", "cores": "cannot read CPU counters: not implemented",
			"modes": "cannot read CPU counters: not implemented", "busy": "cannot read CPU counters: not implemented",
			"load":     "cannot read load averages: not implemented",
			"pressure": "pressure: not implemented", "cgroup": "cgroup: not implemented",
		} {
			if got := c.ask(word); got != "error: "+want {
				t.Errorf("%s without counters: %q", word, got)
			}
		}
		k.breakDown(nil)
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
		k.breakDown(errors.New("not yet"))
		smp := k.sampler()
		if err := smp.sampleAll(); err == nil {
			t.Error("no counters, no error")
		}
		time.Sleep(time.Second)
		k.breakDown(nil)
		asked := time.Now()
		got := connect(t, smp).ask("cpu")
		if wait := time.Since(asked); wait != time.Second {
			t.Errorf("waited %v", wait)
		}
		if want := k.percent(asked, time.Now()); got != want {
			t.Errorf("cpu %s, want %s", got, want)
		}
	})
}

// The other readings have the same intervals as cpu.
func TestOtherReadings(t *testing.T) {
	busySeconds := func(_, tick int) bool { return tick/100%4 == 0 }
	inBubble(t, time.Minute, busySeconds, func(t *testing.T, k *kernel, smp *sampler) {
		c := connect(t, smp)
		for _, word := range []string{"busy", "pressure", "cgroup"} {
			c.ask(word)
		}
		for _, seconds := range []time.Duration{1, 5, 10} {
			begin := time.Now()
			time.Sleep(seconds * time.Second)
			percent := k.percent(begin, time.Now())
			var x float64
			fmt.Sscan(percent, &x)
			for word, want := range map[string]string{"busy": percent, "pressure": percent, "cgroup": fmt.Sprintf("%.1f 0.0", min(2*x, 100))} {
				if got := c.ask(word); got != want {
					t.Errorf("%s over %d s: %s, want %s", word, seconds, got, want)
				}
			}
		}
	})
}
