package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// noon is the time of the first reading in the tests.
var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// chartOf returns a chart of the values of f, one reading a second.
func chartOf(title string, least float64, seconds int, names []string, f func(second, column int) float64) *chart {
	c := &chart{title: title, pace: "1s", least: least, window: time.Minute, location: time.UTC}
	for s := range seconds {
		l := line{at: noon.Add(time.Duration(s) * time.Second), names: names}
		for i := range names {
			if x := f(s, i); math.IsNaN(x) {
				l.columns = append(l.columns, "nan")
			} else {
				l.columns = append(l.columns, fmt.Sprintf("%.*f", decimals(names[i]), x))
			}
		}
		c.add(l)
	}
	return c
}

func square(s, _ int) float64 { return 100 * float64(s/5%2) }

func sine(s, i int) float64 {
	return 50 + 45*math.Sin(float64(s)/8+float64(i))
}

func TestFrames(t *testing.T) {
	cores := make([]string, 64)
	for i := range cores {
		cores[i] = columnName(coresWord, i)
	}
	hosts := []string{"web1:5000/cpu", "web2:5000/cpu"}
	gapped := func(s, i int) float64 {
		if i == 1 && s > 20 && s < 35 {
			return math.NaN()
		}
		return sine(s, 2*i)
	}
	stopped := chartOf("CPU utilization (%)  localhost:5000", 100, 30, []string{"cpu"}, sine)
	stopped.gap()
	stopped.add(line{at: noon.Add(50 * time.Second), names: []string{"cpu"}, columns: []string{"10.0"}})
	stopped.add(line{at: noon.Add(55 * time.Second), names: []string{"cpu"}, columns: []string{"90.0"}})
	stopped.stopped = true
	stopped.message = "localhost:5000: connection closed; reconnecting"
	zoomed := chartOf("CPU utilization (%)  localhost:5000", 100, 300, []string{"cpu"}, square)
	zoomed.zoom(0.5)
	zoomed.message = "localhost:5000: connection closed; reconnecting"
	mono := chartOf("CPU utilization (%)  web1:5000, web2:5000", 100, 70, hosts, gapped)
	mono.mono = true
	ascii := chartOf("CPU utilization (%)  web1:5000, web2:5000", 100, 70, hosts, gapped)
	ascii.ascii = true
	keys := chartOf("CPU utilization (%)  localhost:5000", 100, 61, []string{"cpu"}, square)
	keys.help = true
	for _, test := range []struct {
		name string
		*chart
		w, h int
	}{
		{"square", chartOf("CPU utilization (%)  localhost:5000", 100, 61, []string{"cpu"}, square), 80, 24},
		{"young", chartOf("CPU utilization (%)  localhost:5000", 100, 1, []string{"cpu"}, square), 60, 12},
		{"empty", chartOf("CPU utilization (%)  localhost:5000", 100, 0, nil, square), 60, 12},
		{"hosts", chartOf("CPU utilization (%)  web1:5000, web2:5000", 100, 70, hosts, gapped), 100, 30},
		{"load", chartOf("Load average  localhost:5000", 0, 100, []string{"load1", "load5", "load15"}, func(s, i int) float64 { return sine(s, i) / 30 }), 80, 20},
		{"cores", chartOf("CPU utilization (%)  localhost:5000", 100, 61, cores, sine), 80, 24},
		{"stopped", stopped, 110, 20},
		{"zoomed", zoomed, 80, 16},
		{"mono", mono, 80, 24},
		{"ascii", ascii, 80, 24},
		{"keys", keys, 80, 16},
		{"small", chartOf("CPU utilization (%)  localhost:5000", 100, 61, []string{"cpu"}, square), 30, 8},
		{"tiny", chartOf("CPU utilization (%)  localhost:5000", 100, 61, []string{"cpu"}, square), 29, 8},
	} {
		golden := filepath.Join("testdata", test.name+".frame")
		got := test.draw(test.w, test.h).String()
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

// Without colors, each curve has a different mark.
func TestMarksDiffer(t *testing.T) {
	for _, c := range []*chart{{mono: true}, {ascii: true}} {
		seen := map[string]bool{}
		for i := range 64 {
			seen[c.mark(i)] = true
		}
		if len(seen) < 64 {
			t.Errorf("%d marks for 64 curves", len(seen))
		}
	}
}

// There is a dot at the time and value of every reading.
func TestCurve(t *testing.T) {
	const w, h = 80, 24
	c := chartOf("CPU", 100, 61, []string{"cpu"}, sine)
	f := c.draw(w, h)
	rows, left := h-4-1, 5
	for s := range 61 {
		x := left + int(math.Round(float64(s)/60*float64(2*(w-left)-1)))/2
		y := 1 + int(math.Round((1-sine(s, 0)/100)*float64(4*rows-1)))/4
		if r := f.runes[y*w+x]; r < 0x2800 || r > 0x28ff {
			t.Errorf("second %d, %.1f: no dot at %d, %d, but %q", s, sine(s, 0), x, y, r)
		}
	}
}

// A chart can be drawn at any size and with any readings, and the number of readings
// that it keeps is bounded.
func TestChartIsBounded(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	c := chartOf("CPU", 0, 100000, names, func(s, i int) float64 { return float64(s%1000) * math.Pow(10, float64(3*i-6)) })
	if n := len(c.points) * len(names); n > maxNumbers+len(names) {
		t.Errorf("%d numbers are kept", n)
	}
	for range 50 {
		c.zoom(2)
	}
	for w := 0; w < 120; w += 29 {
		for h := 0; h < 40; h += 7 {
			f := c.draw(w, h)
			if len(f.runes) != w*h {
				t.Fatalf("%d×%d: %d cells", w, h, len(f.runes))
			}
		}
	}
	for range 100 {
		c.zoom(0.5)
	}
	c.draw(80, 24)
}

// A server that sends more and more columns uses a bounded amount of memory.
func TestColumnsAreBounded(t *testing.T) {
	c := chartOf("CPU", 100, 100000, []string{"cpu0"}, sine)
	l := line{at: noon.Add(100000 * time.Second)}
	for i := range 32000 {
		l.names = append(l.names, columnName(coresWord, i))
		l.columns = append(l.columns, "1.0")
	}
	c.add(l)
	if n := len(c.points) * len(c.names); n > maxNumbers || len(c.names) != maxCurves {
		t.Errorf("%d numbers of %d curves are kept", n, len(c.names))
	}
	if got := c.draw(80, 24).String(); !strings.Contains(got, "and 10") {
		t.Errorf("the other curves are not mentioned in\n%s", got)
	}
}

// Columns that appear later are not confused with earlier ones.
func TestColumnsChange(t *testing.T) {
	c := chartOf("CPU", 100, 3, []string{"cpu0"}, sine)
	c.add(line{at: noon.Add(3 * time.Second), names: []string{"cpu0", "cpu1"}, columns: []string{"1.0", "2.0"}})
	c.add(line{at: noon.Add(4 * time.Second), names: []string{"cpu1"}, columns: []string{"3.0"}})
	if got := c.points[3].values; len(got) != 1 || got[0] != 2 {
		t.Errorf("%v", got)
	}
	if !math.IsNaN(c.points[0].values[0]) {
		t.Errorf("%v", c.points[0].values)
	}
	c.draw(80, 24)
}

func TestRoundOver(t *testing.T) {
	for x, want := range map[float64]float64{0: 0.5, 0.3: 0.5, 0.7: 1, 1: 1, 1.1: 2, 3: 5, 7: 10, 10: 10, 64: 100, 130: 200} {
		if got := roundOver([]point{{noon, []float64{math.NaN(), x}}}); got != want {
			t.Errorf("over %v: %v, want %v", x, got, want)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	c := chartOf("CPU utilization (%)  localhost:5000", 100, 600, []string{"cpu"}, sine)
	c.window = 10 * time.Minute
	for b.Loop() {
		c.draw(200, 50)
	}
}

// The chart in the README is exactly what is drawn for these readings.
func TestReadmeChart(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	c := chartOf("CPU utilization (%)  localhost:5000", 100, 95, []string{"cpu"}, func(s, _ int) float64 {
		return min(100, max(1, 52+38*math.Sin(float64(s)/7)+14*math.Sin(float64(s)*1.9)))
	})
	var want strings.Builder
	for row := range strings.Lines(c.draw(76, 18).String()) {
		want.WriteString("    " + row)
	}
	if !strings.Contains(string(readme), want.String()) {
		t.Errorf("the README lacks\n%s", &want)
	}
}

func TestTitle(t *testing.T) {
	for _, test := range []struct {
		want string
		args []string
	}{
		{"CPU utilization (%)  this machine", []string{"-g"}},
		{"Load average  this machine", []string{"-g", "-r", "load"}},
		{"CPU utilization (%) and load average  web1:5000, web2:80", []string{"-g", "-r", "cpu,load", "web1", "web2:80"}},
		{"CPU utilization (%)  ssh web1, ssh web2 x", []string{"-g", "-e", "ssh web1", "-e", "ssh web2 x"}},
	} {
		opt, err := parse(test.args)
		if err != nil {
			t.Fatal(err)
		}
		if c := newChart(opt, newPoller(opt, nil).hosts); c.title != test.want {
			t.Errorf("%q: title %q, want %q", test.args, c.title, test.want)
		}
	}
}

// Without a host, the chart says when the first reading comes.
func TestFirstReadingOfChart(t *testing.T) {
	for args, want := range map[string]bool{"-g -i 60": true, "-g -i 60 -r load": false, "-g -i 60 -r load,cpu": true, "-g -r -": false, "-g -i 60 web1": false} {
		opt, err := parse(strings.Fields(args))
		if err != nil {
			t.Fatal(err)
		}
		c := newChart(opt, newPoller(opt, nil).hosts)
		says := "first reading at " + time.Now().Add(time.Minute).Format("15:04:")
		late := "first reading at " + time.Now().Add(time.Minute-time.Second).Format("15:04:") // just before the full minute
		text := c.draw(80, 24).String()
		if got := strings.Contains(text, says) || strings.Contains(text, late); got != want {
			t.Errorf("%s: want %v:\n%s", args, want, text)
		}
		c.add(line{at: time.Now(), names: []string{"cpu"}, columns: []string{"12.5"}})
		if text := c.draw(80, 24).String(); strings.Contains(text, "first reading") {
			t.Errorf("%s, after the first reading:\n%s", args, text)
		}
	}
}
