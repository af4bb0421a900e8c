package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// noon is the time of the first reading in the tests.
var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// chartOf returns a chart of the values of f, one reading a second.
func chartOf(subject string, seconds int, names []string, f func(second, column int) float64) *chart {
	c := &chart{subject: subject, look: newLook(256, false), intervalText: "1s", window: time.Minute, asked: []word{cpuWord}}
	for s := range seconds {
		l := line{at: noon.Add(time.Duration(s) * time.Second), names: names}
		for i := range names {
			if x := f(s, i); math.IsNaN(x) {
				l.columns = append(l.columns, "nan")
			} else {
				l.columns = append(l.columns, textOf(names[i], x))
			}
		}
		c.add(l)
	}
	return c
}

// textOf returns a number as a reply has it.
func textOf(name string, x float64) string {
	_, w, _ := columnOf(name)
	return trace{reading: w}.text(x)
}

func square(s, _ int) float64 { return 100 * float64(s/5%2) }

func sine(s, i int) float64 {
	return 50 + 45*math.Sin(float64(s)/8+float64(i))
}

// gapped is sine with a gap in the second column.
func gapped(s, i int) float64 {
	if i == 1 && s > 20 && s < 35 {
		return math.NaN()
	}
	return sine(s, 2*i)
}

// namesOf returns the names of the columns of readings.
func namesOf(cpus int, ws ...word) (names []string) {
	for _, w := range ws {
		for c := range cmp.Or(w.width(), cpus) {
			names = append(names, w.column(c))
		}
	}
	return names
}

// inModes returns how much of the time was spent in each mode.
func inModes(s, i int) float64 {
	shares := []float64{20 + 15*math.Sin(float64(s)/6), 3, 10 + 8*math.Sin(float64(s)/4), 4, 1, 2, 5 * float64(s/20%2)}
	if i < len(shares) {
		return shares[i]
	}
	left := 100.0
	for _, share := range shares {
		left -= share
	}
	return left
}

func TestFrames(t *testing.T) {
	cpu := []string{"cpu"}
	hosts := []string{"web1:5000/cpu", "web2:5000/cpu"}
	stopped := chartOf("localhost:5000", 30, cpu, sine)
	stopped.gap()
	stopped.add(line{at: noon.Add(50 * time.Second), names: cpu, columns: []string{"10.0"}})
	stopped.add(line{at: noon.Add(55 * time.Second), names: cpu, columns: []string{"90.0"}})
	stopped.stopped = true
	stopped.message, stopped.messageAt = "localhost:5000: connection closed; reconnecting", noon.Add(55*time.Second)
	zoomed := chartOf("localhost:5000", 300, cpu, square)
	zoomed.zoom(0.5)
	zoomed.message, zoomed.messageAt = "localhost:5000: connection closed; reconnecting", noon.Add(50*time.Second) // ten seconds ago
	back := chartOf("localhost:5000", 300, cpu, sine)
	for range 6 {
		back.move(-0.25)
	}
	mono, ascii := newLook(0, false), newLook(8, true)
	with := func(l look, c *chart) *chart {
		c.look = l
		return c
	}
	clipped := chartOf("web1:5000, web2:5000, web3:5000", 70, hosts, gapped)
	clipped.message, clipped.messageAt = "web3:5000: connection closed; reconnecting", noon.Add(55*time.Second)
	keys := chartOf("localhost:5000", 61, cpu, square)
	keys.help = true
	later := chartOf("this machine", 0, nil, square)
	later.first = noon.Add(time.Minute)
	three := chartOf("this machine", 70, namesOf(2, cpuWord, loadWord, pressureWord), func(s, i int) float64 { return sine(s, i) / float64(1+19*(i%4)) })
	three.cpus = 2
	negative := chartOf("thermometer", 70, []string{"inside", "outside"}, func(s, i int) float64 { return math.Round(10*sine(s, i)*float64(3*i-1))/10 - 20 })
	var machines []string
	for _, name := range namesOf(33, coresWord) {
		machines = append(machines, "web1:5000/"+name)
	}
	machines = append(machines, "web2:5000/cpu0", "web2:5000/cpu1")
	hot := func(s, i int) float64 {
		switch {
		case s > 40 && s < 45, s > 50 && i == 3:
			return math.NaN()
		case i%16 == 3:
			return 100
		}
		return max(0, sine(s, i/4)-30*float64(i%2))
	}
	for _, test := range []struct {
		name string
		*chart
		w, h int
	}{
		{"square", chartOf("localhost:5000", 61, cpu, square), 80, 24},
		{"young", chartOf("localhost:5000", 1, cpu, square), 60, 12},
		{"empty", chartOf("localhost:5000", 0, nil, square), 60, 12},
		{"later", later, 60, 12},
		{"hosts", chartOf("web1:5000, web2:5000", 70, hosts, gapped), 100, 30},
		{"clipped", clipped, 48, 12},
		{"load", chartOf("localhost:5000", 100, namesOf(0, loadWord), func(s, i int) float64 { return sine(s, i) / 30 }), 80, 20},
		{"cores", chartOf("localhost:5000", 61, namesOf(8, coresWord), sine), 80, 24},
		{"heat", chartOf("localhost:5000", 61, namesOf(64, coresWord), hot), 80, 38},
		{"hottest", chartOf("localhost:5000", 61, namesOf(64, coresWord), hot), 80, 24},
		{"shades", with(mono, chartOf("localhost:5000", 61, namesOf(64, coresWord), hot)), 80, 24},
		{"console", with(ascii, chartOf("localhost:5000", 61, namesOf(12, coresWord, modesWord), func(s, i int) float64 {
			if i < 12 {
				return hot(s, i)
			}
			return inModes(s, i-12)
		})), 80, 24},
		{"machines", chartOf("web1, web2", 61, machines, hot), 80, 24},
		{"modes", chartOf("localhost:5000", 61, namesOf(0, modesWord), inModes), 80, 24},
		{"marked", with(newLook(8, false), chartOf("localhost:5000", 61, namesOf(0, modesWord), inModes)), 80, 16},
		{"three", three, 80, 24},
		{"panels", chartOf("web1:5000", 61, namesOf(16, picturedWords...), picturedReading), 80, 24},
		{"negative", negative, 80, 24},
		{"stopped", stopped, 110, 20},
		{"zoomed", zoomed, 80, 16},
		{"back", back, 80, 16},
		{"mono", with(mono, chartOf("web1:5000, web2:5000", 70, hosts, gapped)), 80, 24},
		{"ascii", with(ascii, chartOf("web1:5000, web2:5000", 70, hosts, gapped)), 80, 24},
		{"keys", keys, 80, 16},
		{"hash", with(ascii, chartOf("wéb1", 61, cpu, sine)), 60, 12},
		{"small", chartOf("localhost:5000", 61, cpu, square), 30, 8},
		{"tiny", chartOf("localhost:5000", 61, cpu, square), 29, 8},
	} {
		golden := filepath.Join("testdata", test.name+".frame")
		got := test.draw(noon.Add(time.Minute), test.w, test.h).String()
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s at %d×%d:\n%swant:\n%s", test.name, test.w, test.h, got, want)
		}
	}
}

// Without colors, each curve has a different mark. With colors, curves have marks if
// some share a color.
func TestMarksDiffer(t *testing.T) {
	for _, test := range []struct {
		look
		curves, marks int
	}{
		{newLook(0, false), 64, 64},
		{newLook(0, true), 64, 64},
		{newLook(256, false), 8, 1},
		{newLook(256, false), 9, 9},
		{newLook(8, false), 8, 8},
	} {
		all := make([]trace, test.curves)
		test.givePens(all)
		seen := map[rune]bool{}
		for _, one := range all {
			seen[one.mark] = true
		}
		if len(seen) != test.marks {
			t.Errorf("%+v: %d marks for %d curves, want %d", test.look, len(seen), test.curves, test.marks)
		}
	}
}

// There is a dot at the time and value of every reading.
func TestCurve(t *testing.T) {
	const w, h = 80, 24
	c := chartOf("localhost:5000", 61, []string{"cpu"}, sine)
	f := c.draw(noon, w, h)
	p := c.panels()[0].plot.(*curves)
	p.lay(w, h-4)
	left := 5
	s := c.stretch(60*time.Second, time.Minute, 2*(w-left))
	for second := range 61 {
		x, y := left+s.at(time.Duration(second)*time.Second)/2, 1+p.axis.dot(sine(second, 0))/4
		if x < left {
			continue
		}
		if r := f.runes[y*w+x]; r < 0x2800 || r > 0x28ff {
			t.Errorf("second %d, %.1f: no dot at %d, %d, but %q", second, sine(second, 0), x, y, r)
		}
	}
}

// Strips of a heat map show CPUs of one host, so that a host that does not reply is a
// gap, unless there are more hosts than strips.
func TestStripsOfHosts(t *testing.T) {
	for _, test := range []struct {
		cpus, want []int // of each host; of each strip
		rows       int
	}{
		{[]int{3, 2, 4}, []int{1, 1, 1, 1, 1, 1, 1, 1, 1}, 5},
		{[]int{3, 2, 4}, []int{3, 2, 3, 1}, 2},
		{[]int{8, 2, 64}, []int{8, 2, 16, 16, 16, 16}, 3},
		{[]int{2, 2, 2, 2, 2}, []int{3, 3, 3, 1}, 2},
	} {
		h := heatMap{look: newLook(256, false)}
		for host, cpus := range test.cpus {
			for cpu := range cpus {
				h.traces = append(h.traces, trace{name: fmt.Sprintf("web%d/cpu%d", host, cpu)})
			}
		}
		h.lay(80, test.rows+1)
		var got []int
		for _, strip := range h.strips {
			got = append(got, len(strip))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%d in %d rows: strips of %d, want %d", test.cpus, test.rows, got, test.want)
		}
	}
}

// 0 and 100 lie on the lines of the grid, which are the same number of rows apart.
func TestScale(t *testing.T) {
	for rows := 2; rows < 120; rows++ {
		for _, low := range []float64{0, -20, -100} {
			sc := newScale(low, 100, rows)
			if sc.height() > rows || rows-sc.height() > 1+rows/4 {
				t.Errorf("%d of %d rows", sc.height(), rows)
			}
			for _, l := range sc.labels() {
				v, err := strconv.ParseFloat(l.text, 64)
				if err != nil || sc.dot(v)/4 != l.at || sc.dot(v)%4 != 1 {
					t.Errorf("%d rows: %q at dot %d, its line in row %d", rows, l.text, sc.dot(v), l.at)
				}
			}
		}
	}
}

// A chart can be drawn at any size and with any readings, and the number of readings
// that it keeps is bounded.
func TestChartIsBounded(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	c := chartOf("localhost:5000", 100000, names, func(s, i int) float64 { return float64(s%1000) * math.Pow(10, float64(3*i-6)) })
	if n := len(c.times) * len(names); n > maxNumbers {
		t.Errorf("%d numbers are kept", n)
	}
	for range 50 {
		c.zoom(2)
	}
	for w := 0; w < 120; w += 29 {
		for h := 0; h < 40; h += 7 {
			f := c.draw(noon, w, h)
			if len(f.runes) != w*h {
				t.Fatalf("%d×%d: %d cells", w, h, len(f.runes))
			}
		}
	}
	for range 100 {
		c.zoom(0.5)
	}
	c.draw(noon, 80, 24)
	var many []string
	for i := range 300 {
		many = append(many, fmt.Sprintf("web%d/cpu%d", i/3, i%3))
	}
	for _, names := range [][]string{{"cpu"}, {"load1"}, {"anything"}, many, namesOf(64, coresWord), namesOf(0, modesWord)} {
		for _, x := range []float64{1e308, -1e308, math.Inf(1), math.Inf(-1), math.NaN(), 0, -1e-300, 1e-300} {
			c := chartOf("localhost:5000", 5, names, func(s, i int) float64 { return x })
			c.add(line{at: noon.Add(time.Minute), names: names, columns: slices.Repeat([]string{"50.0"}, len(names))})
			c.draw(noon, 80, 24)
		}
	}
}

// A server that sends more and more columns uses a bounded amount of memory.
func TestColumnsAreBounded(t *testing.T) {
	c := chartOf("localhost:5000", 100000, []string{"cpu0"}, sine)
	l := line{at: noon.Add(100000 * time.Second)}
	for i := range 32000 {
		l.names = append(l.names, coresWord.column(i))
		l.columns = append(l.columns, "1.0")
	}
	c.add(l)
	if n := len(c.times) * len(c.names); n > maxNumbers || len(c.names) != maxCurves {
		t.Errorf("%d numbers of %d curves are kept", n, len(c.names))
	}
	if got := c.draw(noon, 80, 24).String(); !strings.Contains(got, "each line the hottest of 27") {
		t.Errorf("the number of CPUs a line is not mentioned in\n%s", got)
	}
}

// The extent of a part of a column is that of its numbers, wherever it begins and ends,
// also after the oldest numbers were dropped.
func TestExtents(t *testing.T) {
	h := history{}
	for i := range 1000 {
		x := sine(i, i%7)
		if i%50 < 3 {
			x = math.NaN()
		}
		h.add(noon.Add(time.Duration(i)*time.Second), []string{"cpu"}, []float64{x})
	}
	for range 2 {
		c := &h.columns[0]
		for from := 0; from < len(c.numbers); from += 13 {
			for to := from; to <= len(c.numbers); to += 17 {
				got, want := c.extent(from, to), extentOf(c.numbers[from:to])
				if got.n != want.n || got.min != want.min || got.max != want.max || math.Abs(got.sum-want.sum) > 1e-6 {
					t.Fatalf("%d to %d: %v, want %v", from, to, got, want)
				}
			}
		}
		h.drop(333)
	}
}

// Columns that appear later are not confused with earlier ones.
func TestColumnsChange(t *testing.T) {
	c := chartOf("localhost:5000", 3, []string{"cpu0"}, sine)
	c.add(line{at: noon.Add(3 * time.Second), names: []string{"cpu0", "cpu1"}, columns: []string{"1.0", "2.0"}})
	c.add(line{at: noon.Add(4 * time.Second), names: []string{"cpu1"}, columns: []string{"3.0"}})
	if len(c.columns) != 1 {
		t.Fatalf("%d columns", len(c.columns))
	}
	if got := c.columns[0].numbers; !math.IsNaN(got[0]) || got[3] != 2 || got[4] != 3 {
		t.Errorf("%v", got)
	}
	c.draw(noon, 80, 24)
}

// The window moves through what was received, and no further. At the newest line, it
// follows it again.
func TestMove(t *testing.T) {
	c := chartOf("localhost:5000", 0, nil, sine)
	c.asked = []word{noWord} // as a log
	c.move(-1)
	c.draw(noon, 80, 24)
	c = chartOf("localhost:5000", 121, []string{"cpu"}, func(s, _ int) float64 { return float64(s % 100) })
	for _, test := range []struct {
		part   float64
		newest string // in the legend
		until  string // in the caption
	}{
		{-0.25, "5.0", "12:01:45"},
		{-0.25, "90.0", "12:01:30"},
		{0.25, "5.0", "12:01:45"},
		{0.25, "20.0", ""},
		{-1000, "0.0", "12:00:00"},
		{0.25, "15.0", "12:00:15"},
		{1000, "20.0", ""},
	} {
		c.move(test.part)
		got := c.draw(noon, 80, 24).String()
		if !strings.Contains(got, "cpu "+test.newest+" ") || strings.Contains(got, "until") != (test.until != "") || !strings.Contains(got, test.until) {
			t.Errorf("moved by %v: want cpu %s until %q in\n%s", test.part, test.newest, test.until, got)
		}
	}
	c.move(-0.25)
	c.add(line{at: noon.Add(200 * time.Second), names: []string{"cpu"}, columns: []string{"42.0"}})
	if got := c.draw(noon, 80, 24).String(); !strings.Contains(got, "until 12:01:45") {
		t.Errorf("a new line moves the window:\n%s", got)
	}
}

// The numbers of a reading have its decimals. Those of a log have the digits that matter.
func TestTextOfNumbers(t *testing.T) {
	for _, test := range []struct {
		reading word
		x       float64
		want    string
	}{
		{cpuWord, 12.54, "12.5"}, {cpuWord, 7, "7.0"}, {loadWord, 0.5, "0.50"}, {cpuWord, math.NaN(), "nan"},
		{noWord, 7, "7"}, {noWord, -85.8344, "-85.83"}, {noWord, 0.00123, "0.00123"}, {noWord, 1234567.8, "1234568"}, {noWord, math.NaN(), "nan"},
	} {
		if got := (trace{reading: test.reading}).text(test.x); got != test.want {
			t.Errorf("%v of %d: %s, want %s", test.x, test.reading, got, test.want)
		}
	}
}

// The window stays within its limits, and has no odd fractions.
func TestZoom(t *testing.T) {
	c := chartOf("localhost:5000", 7600, []string{"cpu"}, sine)
	c.window = 0
	for _, test := range []struct {
		factor float64
		want   string
	}{{1, "2h6m39s"}, {0.125, "15m50s"}, {0.02, "19s"}, {0.5, "9.5s"}, {0.001, "1s"}, {1e9, "168h"}} {
		c.zoom(test.factor)
		if got := formatDuration(c.shown()); got != test.want {
			t.Errorf("zoomed by %v: %s, want %s", test.factor, got, test.want)
		}
	}
}

// While the chart is paused, the newest numbers stay.
func TestPausedChart(t *testing.T) {
	c := chartOf("localhost:5000", 61, []string{"cpu"}, square)
	want := c.draw(noon, 80, 24).String()
	c.gap()
	if got := c.draw(noon, 80, 24).String(); got != want {
		t.Errorf("paused:\n%swant:\n%s", got, want)
	}
}

func TestFormatDuration(t *testing.T) {
	for want, d := range map[string]time.Duration{"100ms": 1e8, "1s": 1e9, "60s": 60e9, "120s": 120e9, "3m": 180e9, "2m34s": 154e9, "1h": 3600e9, "24h": 86400e9, "1h0m1s": 3601e9, "10h10m": 36600e9, "10m": 600e9} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// The axis ends at round numbers, close to the least and the greatest one.
func TestEndsOfScale(t *testing.T) {
	for _, test := range []struct{ low, high, wantLow, wantHigh float64 }{
		{0, 0.001, 0, 0.001}, {0, 0.003, 0, 0.003}, {0, 0.7, 0, 0.75}, {0, 1, 0, 1}, {0, 2.05, 0, 2.25}, {0, 64, 0, 75}, {0, 130, 0, 150}, {-115, 170, -200, 200}, {-3, 0, -3, 0},
	} {
		if s := newScale(test.low, test.high, 20); s.low != test.wantLow || s.high != test.wantHigh {
			t.Errorf("from %v to %v: axis from %v to %v, want %v to %v", test.low, test.high, s.low, s.high, test.wantLow, test.wantHigh)
		}
	}
}

// A day at 1 Hz or seven hours at 10 Hz costs no more than a fresh chart.
func BenchmarkFrame(b *testing.B) {
	for _, test := range []struct {
		name             string
		readings, curves int
		w, h             int
	}{
		{"fresh", 60, 1, 80, 24},
		{"day at 1 Hz", 86400, 1, 80, 24},
		{"7 h at 10 Hz", 252000, 1, 80, 24},
		{"18000x1", 18000, 1, 200, 50},
		{"18000x8", 18000, 8, 200, 50},
		{"3600x64", 3600, 64, 200, 50},
		{"3600x512", 3600, 512, 200, 50},
	} {
		names := []string{"cpu"}
		if test.curves > 1 {
			names = namesOf(test.curves, coresWord)
		}
		c := chartOf("localhost:5000", test.readings, names, sine)
		c.window = time.Duration(test.readings) * time.Second
		b.Run(test.name, func(b *testing.B) {
			for b.Loop() {
				c.draw(noon, test.w, test.h)
			}
		})
	}
}

func TestTitles(t *testing.T) {
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"-g"}, []string{"CPU utilization (%)  this machine"}},
		{[]string{"-g", "-r", "load", "web1"}, []string{"Load average  web1:5000"}},
		{[]string{"-g", "-r", "cpu,load,pressure", "web1", "web2:80"}, []string{"CPU utilization (%)  web1:5000, web2:80", "Load average", "CPU pressure (%)"}},
		{[]string{"-g", "-e", "ssh web1", "-e", "ssh web2 x"}, []string{"CPU utilization (%)  ssh web1, ssh web2 x"}},
	} {
		opt, err := parse(test.args)
		if err != nil {
			t.Fatal(err)
		}
		c := newChart(opt)
		var titles []string
		for _, p := range c.panels() {
			titles = append(titles, p.title)
		}
		if !slices.Equal(titles, test.want) {
			t.Errorf("%q: titles %q, want %q", test.args, titles, test.want)
		}
	}
	loads := chartOf("web1", 3, namesOf(4, loadWord, coresWord), sine)
	if got := loads.panels()[0].title; got != "Load average (4 CPUs)  web1" {
		t.Errorf("title %q with four CPUs", got)
	}
	loads = chartOf("web1", 3, namesOf(1, loadWord, coresWord), sine)
	if got := loads.panels()[0].title; got != "Load average (1 CPU)  web1" {
		t.Errorf("title %q with one CPU", got)
	}
	modes := slices.Concat(namesOf(0, modesWord), namesOf(0, cpuWord))
	for i, name := range modes {
		modes[i] = "web1/" + name
	}
	modes = append(modes, "web2/user", "web2/cpu")
	c := chartOf("web1, web2", 3, modes, sine)
	var titles []string
	for _, p := range c.panels() {
		titles = append(titles, p.title)
	}
	if want := []string{"CPU time by mode (%)  web1", "CPU time by mode (%)  web2", "CPU utilization (%)"}; !slices.Equal(titles, want) {
		t.Errorf("titles %q, want %q", titles, want)
	}
}

// Without a host, the chart says when the first reading comes.
func TestFirstReadingOfChart(t *testing.T) {
	for args, want := range map[string]bool{"-g -i 60": true, "-g -i 60 -r load": false, "-g -i 60 -r load,cpu": true, "-g -r -": false, "-g -i 60 web1": false} {
		synctest.Test(t, func(t *testing.T) { // in which no time passes
			opt, err := parse(strings.Fields(args))
			if err != nil {
				t.Fatal(err)
			}
			c := newChart(opt)
			says := "first reading at " + time.Now().Add(time.Minute).Format("15:04:05")
			text := c.draw(time.Now(), 80, 24).String()
			if got := strings.Contains(text, says); got != want {
				t.Errorf("%s: want %v:\n%s", args, want, text)
			}
			c.add(line{at: time.Now(), names: []string{"cpu"}, columns: []string{"12.5"}})
			if text := c.draw(time.Now(), 80, 24).String(); strings.Contains(text, "first reading") {
				t.Errorf("%s, after the first reading:\n%s", args, text)
			}
		})
	}
}

func (f *frame) String() string {
	var text strings.Builder
	for y := range f.h {
		text.WriteString(strings.TrimRight(string(f.runes[y*f.w:(y+1)*f.w]), " "))
		text.WriteByte('\n')
	}
	return text.String()
}
