package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

// A memoir is a record of means that gets samples as a listener takes them.
type memoir struct {
	*kernel
	meanRecord
	asleep time.Duration // how long the machine has been suspended
}

// pass lets time pass.
func (m *memoir) pass(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		m.add(m.now())
		time.Sleep(min(historyEvery, time.Until(end)))
	}
}

func (m *memoir) now() *sample { return m.read(totals) }

func (m *memoir) text() string { return fmt.Sprintf("%.1f", m.means(m.now())) }

func remembered(t *testing.T, load func(cpu, tick int) bool, test func(m *memoir)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := &memoir{kernel: newKernel(2, load)}
		suspended = func() time.Duration { return m.asleep }
		defer func() { suspended = suspendedTime }()
		test(m)
	})
}

// Each mean is exact over a span that is at most six seconds longer, and unknown before.
func TestMeansAreExact(t *testing.T) {
	load := func(cpu, tick int) bool { return tick*tick/70000%(3+cpu) == 1 }
	remembered(t, load, func(m *memoir) {
		for range 2000 {
			m.pass(700 * time.Millisecond)
			now := m.now()
			got := m.means(now)
			for i, span := range meanSpans {
				if up := now.at.Sub(m.boot); up < span {
					if !math.IsNaN(got[i]) {
						t.Fatalf("%v over %v after %v", got[i], span, up)
					}
					continue
				}
				found := false
				for begin := now.at.Add(-span); !found && now.at.Sub(begin) <= span+6*time.Second && !begin.Before(m.boot); begin = begin.Add(-jiffy) {
					busy := 0.0
					for cpu := range m.cpus {
						busy += float64(m.busyUntil(cpu, now.at) - m.busyUntil(cpu, begin))
					}
					found = math.Abs(got[i]-0.5*busy/now.at.Sub(begin).Seconds()) < 1e-9
				}
				if !found {
					t.Fatalf("%v over %v is the mean of no span of that length", got[i], span)
				}
			}
		}
	})
}

// After a break in the counters, a mean is unknown until its span is clean. The load is
// 25 before, and must not change after.
func TestMeansAfterBreak(t *testing.T) {
	const known = "[25.0 25.0 25.0]"
	for _, test := range []struct {
		name string
		pass func(m *memoir)
		ends bool
	}{
		{"nothing", func(m *memoir) { m.pass(3 * time.Second) }, false},
		{"CPU offline", func(m *memoir) { m.plug(1); m.pass(3 * time.Second); m.plug(2); m.pass(2 * time.Second) }, true},
		{"suspended", func(m *memoir) { m.asleep += time.Hour }, true},
		{"clocks read apart", func(m *memoir) { m.asleep += 100 * time.Millisecond; m.pass(2 * time.Second) }, false},
		{"reset", func(m *memoir) { m.boot, m.busy = m.boot.Add(20*time.Minute), make([][]uint64, 2) }, true},
		{"reset and a reading", func(m *memoir) {
			m.boot, m.busy = time.Now(), make([][]uint64, 2)
			time.Sleep(400 * time.Millisecond)
			m.text()
			m.pass(3 * time.Second)
		}, true},
		{"unreadable", func(m *memoir) { time.Sleep(2 * time.Second); m.pass(3 * time.Second) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			remembered(t, quarter, func(m *memoir) {
				m.pass(30 * time.Minute)
				if got := m.text(); got != known {
					t.Fatalf("before: %s", got)
				}
				broken := time.Now()
				test.pass(m)
				for _, check := range []struct {
					age  time.Duration
					want string
				}{
					{5 * time.Second, "[NaN NaN NaN]"},
					{55 * time.Second, "[NaN NaN NaN]"},
					{75 * time.Second, "[25.0 NaN NaN]"},
					{295 * time.Second, "[25.0 NaN NaN]"},
					{315 * time.Second, "[25.0 25.0 NaN]"},
					{895 * time.Second, "[25.0 25.0 NaN]"},
					{915 * time.Second, known},
				} {
					m.pass(time.Until(broken.Add(check.age)))
					want := check.want
					if !test.ends {
						want = known
					}
					if got := m.text(); got != want {
						t.Errorf("after %v: %s, want %s", check.age, got, want)
					}
				}
			})
		})
	}
}

// Counters that were reset soon after boot soon exceed what they were.
func TestMeansAfterEarlyReset(t *testing.T) {
	remembered(t, quarter, func(m *memoir) {
		m.pass(2 * time.Minute)
		m.boot, m.busy = time.Now(), make([][]uint64, 2)
		m.pass(4 * time.Minute)
		if got, want := m.text(), "[25.0 NaN NaN]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// A process that was stopped has no samples of that time.
func TestMeansAfterStop(t *testing.T) {
	remembered(t, quarter, func(m *memoir) {
		m.pass(30 * time.Minute)
		time.Sleep(8 * time.Minute)
		if got, want := m.text(), "[NaN NaN 25.0]"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		m.pass(time.Minute)
		if got, want := m.text(), "[25.0 NaN 25.0]"; got != want {
			t.Errorf("a minute later: %s, want %s", got, want)
		}
	})
}

// Even if a sample is added at every tick, the record holds at most 64 KiB.
func TestMeansAreBounded(t *testing.T) {
	remembered(t, quarter, func(m *memoir) {
		for range 40 * 60 * 10 {
			m.add(m.now())
			time.Sleep(100 * time.Millisecond)
		}
		if size := cap(m.past)*int(unsafe.Sizeof(m.past[0])) + len(m.past)*int(unsafe.Sizeof(*m.past[0])); size > 60<<10 {
			t.Errorf("%d bytes in %d samples", size, len(m.past))
		}
	})
}

// A listener has the means as soon as it is old enough, on a new connection, too.
func TestMeansOfListener(t *testing.T) {
	for age, want := range map[time.Duration]string{
		50 * time.Second: "nan nan nan",
		70 * time.Second: "25.0 nan nan",
		20 * time.Minute: "25.0 25.0 25.0",
	} {
		inBubble(t, age, quarter, func(t *testing.T, k *kernel, smp *sampler) {
			asked := time.Now()
			if got := connect(t, smp).ask("mean"); got != want || time.Since(asked) != 0 {
				t.Errorf("mean of a listener of %v: %s after %v, want %s at once", age, got, time.Since(asked), want)
			}
		})
	}
}

// Without a host, there are means after a minute, whatever the interval. A message says
// so.
func TestMeansOfThisMachine(t *testing.T) {
	messages := listenIn(t)
	defer func(real func(source, string) *sample) { readSource = real }(readSource) // once its goroutines have ended
	for _, interval := range []time.Duration{time.Second, 25 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			k := newKernel(1, quarter)
			readSource = func(src source, _ string) *sample { return k.read(src) }
			p := &poller{
				words: []word{meanWord}, interval: interval, count: int(75*time.Second/interval) + 1,
				hosts: []*host{{address: address{network: memory}}},
				dial:  dialer{minFirst: interval}.dial,
			}
			got, err := polled(t, p)
			if err != nil || len(got) != p.count || !strings.HasSuffix(got[p.count-2], "nan nan") || !strings.HasSuffix(got[p.count-1], " 25.0 nan nan") {
				t.Errorf("every %v: %q, %v", interval, got, err)
			}
		})
	}
	const want = "cpunc: mean is nan for the first minute (a listener that has run for longer has it at once: cpunc -l)\n"
	if got := messages(); got != strings.Repeat(want, 2) {
		t.Errorf("said %q, want %q for each run", got, want)
	}
}
