package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestCorpus reads broken counters of many kinds, from testdata/counters. It checks
// the reply to each word and the metrics. Those to mean and peak depend on more than
// two samples.
func TestCorpus(t *testing.T) {
	eachFixture(t, "testdata/counters/*.txtar", 53, func(t *testing.T, dir string, before, after func()) (got string) {
		os.WriteFile(filepath.Join(dir, "loadavg"), []byte("0.50 0.25 0.10 1/100 1000\n"), 0o666)
		before()
		smp := newSampler("")
		smp.sampleAll()
		c := connect(t, smp)
		w := newWeb(t.Context(), smp, nil, 0, new(server).serving.Load)
		ofTwoSamples := []word{cpuWord, coresWord, modesWord, loadWord, busyWord, pressureWord, cgroupWord}
		for _, word := range ofTwoSamples {
			c.ask(word.String())
		}
		metricsOf(w)
		after()
		for _, word := range ofTwoSamples {
			got += fmt.Sprintf("%s: %s\n", word, c.ask(word.String()))
		}
		for line := range strings.Lines(metricsOf(w)) {
			if strings.HasPrefix(line, "node_") || strings.HasPrefix(line, "error: ") {
				got += line
			}
		}
		return got
	})
}

// readAs returns the reading of a word between two texts of /proc/stat, or "" if they
// cannot be parsed.
func readAs(w word, from, to []byte, elapsed time.Duration) string {
	each := w == coresWord
	var samples [2]sample
	for i, text := range [][]byte{from, to} {
		if !samples[i].stat.parse(text, each) {
			return ""
		}
	}
	samples[0].at = time.Unix(1e9, 0)
	samples[1].at = samples[0].at.Add(elapsed)
	if gone := len(samples[0].rows) - len(samples[1].rows); gone > 0 { // as a sampler does
		samples[1].rows = append(samples[1].rows, make([]row, gone)...)
	}
	return string(new(records).appendReading(nil, w, &samples[0], &samples[1]))
}

var numbers = regexp.MustCompile(`^(nan|\d+\.\d)( (nan|\d+\.\d))*$`)

// weight is an integer that HAProxy accepts, and never drains a server.
func TestWeight(t *testing.T) {
	for _, test := range []struct {
		busy, idle int
		want       string
	}{
		{0, 1000, "100%"},
		{124, 876, "88%"},
		{992, 8, "1%"},
		{1000, 0, "1%"},
		{0, 0, "nan"},
	} {
		to := fmt.Appendf(nil, "cpu %d 0 0 %d\ncpu0 %[1]d 0 0 %d\n", 1000+test.busy, 1000+test.idle)
		if got := readAs(weightWord, []byte("cpu 1000 0 0 1000\ncpu0 1000 0 0 1000\n"), to, 10*time.Second); got != test.want {
			t.Errorf("%d busy, %d idle: %s, want %s", test.busy, test.idle, got, test.want)
		}
	}
}

// checkReading fails if a reading is invalid, and returns its values.
func checkReading(t *testing.T, w word, line string) (values []float64) {
	t.Helper()
	if !numbers.MatchString(line) {
		t.Errorf("%s: %q", w, line)
	}
	sum, unknown := 0.0, 0
	for field := range strings.FieldsSeq(line) {
		x, err := strconv.ParseFloat(field, 64)
		if err != nil || x < 0 || x > 100 {
			t.Errorf("%s: %q", w, line)
		}
		if values = append(values, x); math.IsNaN(x) {
			unknown++
		} else {
			sum += x
		}
	}
	if w == modesWord && unknown != int(modes) && (unknown != 0 || math.Abs(sum-100) > 1e-9) {
		t.Errorf("modes %q add up to %v", line, sum)
	}
	return values
}

// Whatever the counters are, readings are within their bounds, and modes add up to 100.
// They are known together with cpu, without which busy is not known either.
func FuzzStat(f *testing.F) {
	files, _ := filepath.Glob("testdata/counters/*.txtar")
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data, archive.Files[1].Data, int64(time.Second))
	}
	f.Fuzz(func(t *testing.T, from, to []byte, elapsed int64) {
		known := map[word]bool{}
		for _, w := range []word{cpuWord, coresWord, modesWord, busyWord} {
			if line := readAs(w, from, to, time.Duration(elapsed)); line != "" {
				values := checkReading(t, w, line)
				if n := len(values); w != coresWord && n != w.width() || n > maxCPUs {
					t.Errorf("%s has %d numbers", w, n)
				}
				known[w] = !math.IsNaN(values[0])
			}
		}
		if known[modesWord] != known[cpuWord] || known[busyWord] && !known[cpuWord] {
			t.Errorf("known: %v", known)
		}
		checkRatchet(t, from, to)
	})
}

// checkRatchet fails if counters in the metrics step back.
func checkRatchet(t *testing.T, from, to []byte) {
	var r ratchet
	var old, new stat
	old.parse(from, true)
	r.hold(old.rows)
	held := slices.Clone(r.held)
	new.parse(to, true)
	r.hold(new.rows)
	for cpu, before := range held {
		now := r.row(cpu)
		for mode, n := range before.counts {
			if now.online && now.counts[mode] < n && before.seconds(modeIdle) < hotplugged {
				t.Errorf("CPU %d: %s steps back from %d to %d", cpu, modeNames[mode], n, now.counts[mode])
			}
		}
	}
}

// If the counters are valid, the readings agree with each other.
func TestReadingsAgree(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		cpus := 1 + random.IntN(9)
		ticks := 10 + random.IntN(3000)
		var from, to, totalFrom, totalTo []counts
		totalFrom, totalTo = make([]counts, 1), make([]counts, 1)
		for range cpus {
			var a counts
			for mode := range a {
				a[mode] = random.Uint64N(1 << 40)
			}
			b := a
			for left := ticks; left > 0; {
				n := 1 + random.IntN(left)
				b[random.IntN(int(modes))] += uint64(n)
				left -= n
			}
			if random.IntN(3) == 0 {
				b[modeIdle] += b[modeUser] - a[modeUser]
				b[modeUser] = a[modeUser]
			}
			from, to = append(from, a), append(to, b)
			for mode := range a {
				totalFrom[0][mode] += a[mode]
				totalTo[0][mode] += b[mode]
			}
		}
		a, b := statText(totalFrom, from), statText(totalTo, to)
		elapsed := time.Duration(ticks) * jiffy
		cpu := checkReading(t, cpuWord, readAs(cpuWord, a, b, elapsed))[0]
		shares := checkReading(t, modesWord, readAs(modesWord, a, b, elapsed))
		each := checkReading(t, coresWord, readAs(coresWord, a, b, elapsed))
		clock := checkReading(t, busyWord, readAs(busyWord, a, b, elapsed))[0]
		mean := 0.0
		for _, x := range each {
			mean += x / float64(cpus)
		}
		if math.IsNaN(cpu) || math.Abs(100-shares[modeIdle]-shares[modeIowait]-cpu) > 0.25 || math.Abs(mean-cpu) > 0.11 || math.Abs(clock-cpu) > 0.11 {
			t.Fatalf("cpu %v, busy %v, modes %v, cores %v\n%s%s", cpu, clock, shares, each, a, b)
		}
	}
}

// statText formats counters like /proc/stat.
func statText(total, cpus []counts) []byte {
	var text []byte
	add := func(name string, c counts) {
		text = append(text, name...)
		for _, mode := range fileOrder {
			text = fmt.Appendf(text, " %d", c[mode])
		}
		text = append(text, " 0 0\n"...)
	}
	for _, c := range total {
		add("cpu ", c)
	}
	for i, c := range cpus {
		add("cpu"+strconv.Itoa(i), c)
	}
	return append(text, "intr 1\n"...)
}

// Every third of 1,024 CPUs is offline, and the load of the others follows from their
// numbers.
func TestManyCPUs(t *testing.T) {
	var from, to []string
	var want []string
	total := counts{modeUser: 5, modeIdle: 7}
	for cpu := range 1024 {
		if cpu%3 == 1 {
			want = append(want, "nan")
			continue
		}
		busy := uint64(cpu % 101)
		from = append(from, fmt.Sprintf("cpu%d 5 0 0 7 0 0 0 0 0 0\n", cpu))
		to = append(to, fmt.Sprintf("cpu%d %d 0 0 %d 0 0 0 0 0 0\n", cpu, 5+busy, 7+100-busy))
		want = append(want, fmt.Sprintf("%d.0", busy))
		total[modeUser] += busy
		total[modeIdle] += 100 - busy
	}
	want = want[:1024] // CPU 1023 is online
	a := []byte("cpu 5 0 0 7 0 0 0 0 0 0\n" + strings.Join(from, ""))
	b := fmt.Appendf(nil, "cpu %d 0 0 %d 0 0 0 0 0 0\n%s", total[modeUser], total[modeIdle], strings.Join(to, ""))
	if got := readAs(coresWord, a, b, time.Second); got != strings.Join(want, " ") {
		t.Errorf("cores %s", got)
	}
	cpu := fmt.Sprintf("%.1f", 100*float64(total[modeUser]-5)/float64(total[modeUser]-5+total[modeIdle]-7))
	for _, w := range []word{cpuWord, busyWord} {
		if got := readAs(w, a, b, time.Second); got != cpu {
			t.Errorf("%s %s, want %s", w, got, cpu)
		}
	}
}

// BenchmarkStat measures reading this machine's counters and parsing those of a large
// machine.
func BenchmarkStat(b *testing.B) {
	if !procfs {
		b.Skip("no /proc/stat")
	}
	for _, each := range []bool{false, true} {
		b.Run(fmt.Sprintf("here/each=%v", each), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := new(stat).read(each); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("1024/each=%v", each), func(b *testing.B) {
			text := statText(make([]counts, 1), slices.Repeat([]counts{{modeUser: 123456, modeSystem: 23456, modeSoftirq: 345, modeIdle: 12345678}}, 1024))
			b.ReportAllocs()
			for b.Loop() {
				new(stat).parse(text, each)
			}
		})
	}
	b.Run("cgroup", func(b *testing.B) {
		for b.Loop() {
			if _, err := readGroup(""); err != nil {
				b.Skip(err)
			}
		}
	})
}
