package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The maximum since any time is the same as that of all windows.
func TestMaxima(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	start := time.Now()
	var m maxima
	var all []float64
	for n := range 5000 {
		percent := math.Round(1000*(1-math.Pow(random.Float64(), 0.1))) / 10
		if n%500 > 400 {
			percent = math.Round(1000-2*float64(n%500)) / 10
		}
		all = append(all, percent)
		m.add(start.Add(time.Duration(n)*time.Second), percent)
		m.add(start.Add(time.Duration(n)*time.Second), math.NaN())
		since := n - random.IntN(min(n+1, 1+random.IntN(1000)))
		want := math.Inf(-1)
		for _, percent := range all[since:] {
			want = max(want, percent)
		}
		if got := m.since(start.Add(time.Duration(since)*time.Second - 1)); got != want {
			t.Fatalf("window %d: %v in the last %d, want %v", n, got, n-since, want)
		}
		if got := m.since(start.Add(time.Duration(n) * time.Second)); !math.IsNaN(got) {
			t.Fatalf("%v after the last window", got)
		}
	}
}

func TestMaximaAreBounded(t *testing.T) {
	var m maxima
	for n := range 100000 {
		m.add(time.Now(), 100-float64(n)/1000)
	}
	if len(m) > 1001 {
		t.Errorf("%d entries", len(m))
	}
}

// A peakAsker stands for a session that requests peak.
type peakAsker struct {
	record *peakTest
	from   *sample
}

// A peakTest is a record of a simulated machine, which gets its samples from step.
type peakTest struct {
	*kernel
	peakRecord
	step        func() *sample
	slow, blank atomic.Bool // whether step takes a second, once; whether it returns no counters
}

func (a *peakAsker) ask(ctx context.Context) string {
	synctest.Wait() // a step that is due now is taken first
	to := a.record.read(totals)
	first := a.record.want(ctx, a, to, func() *sample { return a.record.step() })
	if a.from == nil {
		a.from = first
	}
	got := fmt.Sprintf("%.1f", a.record.peak(a.from, to))
	a.from = to
	return got
}

// recorded runs test in a bubble with a record of the kernel, without sessions.
func recorded(t *testing.T, load func(cpu, tick int) bool, test func(ctx context.Context, r *peakTest)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &peakTest{kernel: newKernel(2, load)}
		r.step = func() *sample {
			switch {
			case r.slow.Swap(false):
				time.Sleep(time.Second)
			case r.blank.Load():
				return &sample{at: time.Now(), stat: stat{cpus: 2}}
			}
			return r.read(totals)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		test(ctx, r)
	})
}

// A burst of 300 ms is in the reply whatever the interval, and whenever it begins.
func TestPeakOfBurst(t *testing.T) {
	for _, interval := range []time.Duration{500 * time.Millisecond, time.Second, 5 * time.Second, time.Minute, 9 * time.Minute} {
		for phase := range 10 {
			begin := 3006 + phase
			burst := func(_, tick int) bool { return begin <= tick && tick < begin+30 }
			recorded(t, burst, func(ctx context.Context, r *peakTest) {
				a := &peakAsker{record: r}
				a.ask(ctx)
				time.Sleep(30*time.Second + jiffy)
				if got := a.ask(ctx); got != "0.0" {
					t.Errorf("before the burst: %s", got)
				}
				time.Sleep(interval)
				if got := a.ask(ctx); got != "100.0" {
					t.Errorf("every %v, burst at tick %d: %s", interval, begin, got)
				}
				time.Sleep(interval)
				a.ask(ctx) // may have a window that began in the last interval
				time.Sleep(interval)
				if got := a.ask(ctx); got != "0.0" {
					t.Errorf("after the burst: %s", got)
				}
			})
		}
	}
}

// Sessions with different intervals get the maximum of the windows that overlap theirs,
// and never less than busy.
func TestPeakOfEverySession(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	noise := make([]bool, 60000)
	for i := range noise {
		noise[i] = random.Float64() < float64(i/100*7919%101)/150
	}
	recorded(t, func(cpu, tick int) bool { return noise[(tick+cpu*331)%len(noise)] }, func(ctx context.Context, r *peakTest) {
		var steps []*sample
		step := r.step
		r.step = func() *sample {
			s := step()
			steps = append(steps, s)
			return s
		}
		steps = append(steps, r.read(totals))
		keep := &peakAsker{record: r}
		keep.ask(ctx)
		for _, ms := range []int{100, 130, 250, 500, 1000, 3700, 60000} {
			a := &peakAsker{record: r}
			a.ask(ctx)
			for range 20 {
				time.Sleep(time.Duration(ms) * time.Millisecond)
				synctest.Wait()
				from, to := a.from, r.read(totals)
				want := busyByClock(from, to)
				for i := range steps {
					end := to
					if i+2 < len(steps) {
						end = steps[i+2]
					}
					if end.at.After(from.at) && i < len(steps)-1 {
						want = max(want, busyByClock(steps[i], end))
					}
				}
				if got := a.ask(ctx); got != fmt.Sprintf("%.1f", want) {
					t.Errorf("every %d ms: %s, want %.1f", ms, got, want)
				}
			}
			r.leave(a)
		}
	})
}

// Nothing is read before the first request, and for longer than a minute after the last
// session has left or has been silent for ten minutes.
func TestPeakIsReadWhileWanted(t *testing.T) {
	for _, test := range []struct {
		name string
		use  func(ctx context.Context, a, b *peakAsker)
		want time.Duration // from the first request
	}{
		{"nobody", func(context.Context, *peakAsker, *peakAsker) {}, 0},
		{"one leaves", func(ctx context.Context, a, b *peakAsker) {
			a.ask(ctx)
			time.Sleep(5 * time.Second)
			a.record.leave(a)
		}, 65 * time.Second},
		{"one is silent", func(ctx context.Context, a, b *peakAsker) {
			a.ask(ctx)
			time.Sleep(5 * time.Second)
			a.ask(ctx)
		}, 665 * time.Second},
		{"one is silent and leaves", func(ctx context.Context, a, b *peakAsker) {
			a.ask(ctx)
			time.Sleep(655 * time.Second)
			a.record.leave(a)
		}, 660 * time.Second},
		{"one leaves, one stays", func(ctx context.Context, a, b *peakAsker) {
			a.ask(ctx)
			b.ask(ctx)
			time.Sleep(30 * time.Second)
			a.record.leave(a)
		}, 660 * time.Second},
		{"one is silent, one comes and goes", func(ctx context.Context, a, b *peakAsker) {
			a.ask(ctx)
			time.Sleep(580 * time.Second)
			b.ask(ctx)
			time.Sleep(time.Second)
			b.record.leave(b)
		}, 660 * time.Second},
		{"one comes when the other was silent", func(ctx context.Context, a, b *peakAsker) {
			a.ask(ctx)
			time.Sleep(630 * time.Second)
			b.ask(ctx)
			time.Sleep(10 * time.Second)
			b.record.leave(b)
		}, 700 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			recorded(t, quarter, func(ctx context.Context, r *peakTest) {
				reads := 0
				step := r.step
				r.step = func() *sample { reads++; return step() }
				test.use(ctx, &peakAsker{record: r}, &peakAsker{record: r})
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				if took := time.Duration(reads) * peakStep; took != test.want {
					t.Errorf("read for %v, want %v", took, test.want)
				}
				reads = 0
				again := &peakAsker{record: r}
				again.ask(ctx)
				time.Sleep(time.Second)
				if got := again.ask(ctx); reads != 10 || got != "25.0" {
					t.Errorf("later: %s after %d reads, want 25.0 after 10", got, reads)
				}
			})
		})
	}
}

// A step that comes late makes windows that are longer, and unknown ones are skipped.
func TestPeakOfOddSteps(t *testing.T) {
	never := func(int, int) bool { return false }
	for _, test := range []struct {
		name string
		load func(cpu, tick int) bool
		odd  func(r *peakTest)
		want string
	}{
		{"late by a second", func(_, tick int) bool { return 110 <= tick && tick < 170 }, func(r *peakTest) {
			r.slow.Store(true)
		}, "54.5"}, // 600 ms of the 1.1 s
		{"unreadable", func(_, tick int) bool { return 100 <= tick && tick < 300 }, func(r *peakTest) {
			r.breakDown(errors.New("not now"))
			time.Sleep(2 * time.Second)
			r.breakDown(nil)
		}, "90.9"}, // 2 s of 2.2 s
		{"other CPUs", never, func(r *peakTest) {
			r.plug(1)
			time.Sleep(time.Second)
			r.plug(2)
		}, "0.0"},
		{"unknown throughout", never, func(r *peakTest) {
			r.blank.Store(true)
			time.Sleep(time.Second)
			r.peakRecord.mu.Lock()
			defer r.peakRecord.mu.Unlock()
			r.maxima = nil
		}, "NaN"},
	} {
		t.Run(test.name, func(t *testing.T) {
			recorded(t, test.load, func(ctx context.Context, r *peakTest) {
				a := &peakAsker{record: r}
				a.ask(ctx)
				time.Sleep(time.Second + peakStep/2)
				a.ask(ctx)
				test.odd(r)
				time.Sleep(1500 * time.Millisecond)
				if got := a.ask(ctx); got != test.want {
					t.Errorf("%s, want %s", got, test.want)
				}
			})
		})
	}
}

// The first reply to peak covers one to three seconds of what has been recorded. If
// that is less than a second, it waits for the rest.
func TestFirstPeak(t *testing.T) {
	const ms = time.Millisecond
	// The request comes at 120.7 s, after a burst from 119.0 s to 119.6 s.
	burst := func(_, tick int) bool { return 11900 <= tick && tick < 11960 }
	for _, test := range []struct {
		recorded, wait time.Duration
		want           string
	}{
		{0, 1000 * ms, "0.0"},
		{400 * ms, 600 * ms, "0.0"},
		{1000 * ms, 0, "0.0"},
		{1500 * ms, 0, "100.0"},
		{10 * time.Second, 0, "100.0"},
	} {
		t.Run(test.recorded.String(), func(t *testing.T) {
			inBubble(t, 60*time.Second+700*ms-test.recorded, burst, func(t *testing.T, k *kernel, smp *sampler) {
				if test.recorded > 0 {
					go connect(t, smp).Write([]byte("peak"))
				}
				time.Sleep(test.recorded)
				synctest.Wait()
				asked := time.Now()
				got := connect(t, smp).ask("peak")
				if wait := time.Since(asked); got != test.want || wait != test.wait {
					t.Errorf("%s after %v, want %s after %v", got, wait, test.want, test.wait)
				}
			})
		})
	}
}

// However many sessions request peak, the totals are read once at each step.
func TestPeakReadsAreBounded(t *testing.T) {
	inBubble(t, time.Minute, quarter, func(t *testing.T, k *kernel, smp *sampler) {
		var sessions sync.WaitGroup
		for range 100 {
			sessions.Go(func() {
				c := connect(t, smp)
				for range 20 {
					c.ask("peak")
					time.Sleep(time.Second)
				}
			})
		}
		time.Sleep(10 * time.Second)
		synctest.Wait() // what is due now has been read
		reads := k.reads()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := k.reads()[totals] - reads[totals]; n < 100 || n > 120 {
			t.Errorf("the totals were read %d times in 10 s", n)
		}
		sessions.Wait()
	})
}

// A session that ends does not want peak any more, nor does a request over HTTP that has
// been answered, even if its connection stays open.
func TestPeakEndsWithSession(t *testing.T) {
	inBubble(t, time.Minute, quarter, func(t *testing.T, k *kernel, smp *sampler) {
		reads := func(d time.Duration) int {
			before := k.reads()[totals]
			time.Sleep(d)
			return k.reads()[totals] - before
		}
		idle := reads(time.Minute)
		ended := func(what string) {
			t.Helper()
			if n := reads(peakLinger); n < 590 {
				t.Errorf("%s: %d reads in the next minute, want one every 100 ms", what, n)
			}
			if n := reads(time.Minute); n > idle+10 {
				t.Errorf("%s: %d reads in the minute after that, want %d", what, n, idle)
			}
		}
		c := connect(t, smp)
		c.ask("peak")
		c.Close()
		ended("session")

		open, end := webInMemory(t, smp)
		defer end()
		client := open()
		io.WriteString(client, "GET /peak HTTP/1.1\r\nHost: localhost\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(client), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		ended("request")
	})
}

// On this machine, the first line covers one interval, whatever other words are read.
func TestPeakOfThisMachine(t *testing.T) {
	defer func(real func(source, string) *sample) { readSource = real }(readSource) // once its goroutines have ended
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		k := newKernel(1, func(_, tick int) bool { return 200 <= tick && tick < 230 || 700 <= tick && tick < 720 })
		readSource = func(src source, _ string) *sample { return k.read(src) }
		p := &poller{
			words: []word{cpuWord, peakWord, busyWord}, interval: 5 * time.Second, count: 3,
			hosts: []*host{{address: address{network: memory}}},
			dial:  dialer{minFirst: 5 * time.Second}.dial,
		}
		got, err := polled(t, p)
		want := []string{"5.00 5.00 6.0 100.0 6.0", "10.00 10.00 4.0 100.0 4.0", "15.00 15.00 0.0 0.0 0.0"}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v after %v, want %q", got, err, time.Since(begin), want)
		}
	})
}

// A window that is hardly longer than a jiffy says nothing.
func TestPeakOfShortWindow(t *testing.T) {
	recorded(t, func(_, tick int) bool { return tick == 90000 }, func(ctx context.Context, r *peakTest) {
		silent := &peakAsker{record: r}
		silent.ask(ctx)
		time.Sleep(15 * time.Minute)
		(&peakAsker{record: r}).ask(ctx)
		time.Sleep(2 * jiffy)
		if got := silent.ask(ctx); got != "0.0" {
			t.Errorf("%s, want 0.0", got)
		}
	})
}

// Where idle stands still, a short burst of another counter does not make a peak.
func TestPeakWithoutIdle(t *testing.T) {
	var r peakRecord
	var all []*sample
	for n := range 31 {
		s := &sample{at: time.Unix(1e9, 0).Add(time.Duration(n) * peakStep), stat: stat{cpus: 2, total: counts{modeIdle: 1000}}}
		if n >= 10 {
			s.total[modeUser] = uint64(min(5*(n-10), 30))
		}
		r.step(s)
		all = append(all, s)
	}
	if got := r.peak(all[0], all[30]); !math.IsNaN(got) {
		t.Errorf("%v, want NaN", got)
	}
	if got := r.peak(all[9], all[17]); got != 100 { // counters that account for enough are trusted
		t.Errorf("%v, want 100", got)
	}
}

// If the counters cannot be read when a session requests peak, but a moment later, that
// is an error, because nothing has been recorded.
func TestPeakOfUnsteadyCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKernel(1, quarter)
		smp := k.sampler()
		failed := false
		smp.read = func(src source) *sample {
			now := k.read(src)
			if !failed {
				failed = true
				now.at, now.err = now.at.Add(-jiffy), errors.New("not now")
			}
			return now
		}
		if got, want := connect(t, smp).ask("peak"), "error: cannot read CPU counters: not now"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// The words of one request cover the same time, although nobody has requested peak
// before, so that peak is never below busy.
func TestPeakWithOtherWords(t *testing.T) {
	// The request comes at 120.7 s, between two bursts of 400 ms.
	bursts := func(_, tick int) bool { return 12020 <= tick && tick < 12060 || 12075 <= tick && tick < 12115 }
	want := []string{"40.0 40.0 100.0", "0.0 0.0 0.0"}
	t.Run("session", func(t *testing.T) {
		inBubble(t, 60*time.Second+700*time.Millisecond, bursts, func(t *testing.T, k *kernel, smp *sampler) {
			c := connect(t, smp)
			for _, line := range want {
				got := c.ask("cpu busy peak")
				for c.lines.Scan() {
					if got += " " + c.lines.Text(); strings.Count(got, " ") == 2 {
						break
					}
				}
				if got != line {
					t.Errorf("%s, want %s", got, line)
				}
				time.Sleep(time.Second)
			}
		})
	})
	t.Run("HTTP", func(t *testing.T) {
		inBubble(t, 60*time.Second+700*time.Millisecond, bursts, func(t *testing.T, k *kernel, smp *sampler) {
			open, end := webInMemory(t, smp)
			defer end()
			client := open()
			io.WriteString(client, "GET /cpu,busy,peak?interval=0.9 HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(client), nil)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatal(resp, err)
			}
			body := bufio.NewReader(resp.Body)
			for _, line := range want {
				if got, err := body.ReadString('\n'); err != nil || got != line+"\n" {
					t.Errorf("%q, %v, want %s", got, err, line)
				}
			}
		})
	})
}
