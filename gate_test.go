package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

// TestGate shows lines to a gate, one per interval unless a time in seconds stands in
// front of the columns. A # begins a new run. The condition must be met with the last
// line, and not before, or never if that is "-".
func TestGate(t *testing.T) {
	none := math.NaN()
	for _, test := range []struct {
		name         string
		below, above float64
		hold         float64
		names, lines string
	}{
		{"one line is enough", 10, none, 0, "cpu", "50|9.9"},
		{"the limit is not below itself", 10, none, 0, "cpu", "10|10.0|-"},
		{"nor above", none, 90, 0, "cpu", "90|90.1"},
		{"a line counts for an interval", 10, none, 3, "cpu", "5|5|5"},
		{"a break starts again", 10, none, 3, "cpu", "5|5|20|5|5|5"},
		{"an unknown number is a break", 10, none, 3, "cpu", "5|5|nan|5|5|5"},
		{"a late line counts for its time", 10, none, 3, "cpu", "@0 5|@2 5"},
		{"at most two intervals, and a longer hole is a break", 10, none, 3, "cpu", "@0 5|@1 5|@5 5|@6 5"},
		{"a clock that steps back is a break", 10, none, 3, "cpu", "@10 5|@11 5|@2 5|@3 5|@4 5|@5 5"},
		{"a new run is a break", 10, none, 3, "cpu", "5|5|#|5|5|5"},
		{"below: every host", 10, none, 0, "a/cpu b/cpu", "5 20|20 5|nan 5|5 nan|5 5"},
		{"above: one host is enough", none, 90, 0, "a/cpu b/cpu", "50 90|nan nan|95 nan"},
		{"above: another host may go on with it", none, 90, 2, "a/cpu b/cpu", "95 50|50 95"},
		{"between: every host", 80, 20, 0, "a/cpu b/cpu", "50 90|10 50|50 20|50 60"},
		{"the first column of each reading", 2, none, 0, "load1 load5 load15 cgroup throttled", "3 1 1 1 1|1 1 1 3 1|1 9 9 1 9"},
		{"a reading of one host alone", 10, none, 0, "a/cpu a/load1 a/load5 a/load15", "5 20 1 1|5 1 20 20"},
		{"every CPU that is online", 10, none, 0, "cpu0 cpu1 cpu2", "5 5 20|nan nan nan|5 nan 6"},
		{"every CPU of every host", 10, none, 0, "a/cpu0 a/cpu1 b/cpu0 b/cpu1", "5 5 nan nan|5 nan nan 5"},
		{"above: any CPU", none, 90, 0, "cpu0 cpu1", "50 nan|nan 91"},
		{"never", 10, none, 2, "cpu", "5|20|5|20|-"},
	} {
		g := &gate{below: test.below, above: test.above, hold: time.Duration(test.hold * float64(time.Second)), interval: time.Second}
		checkGate(t, test.name, g, test.names, test.lines)
	}
}

// TestGateOfStandardInput shows that every number counts, and that lines have the
// interval of those before them.
func TestGateOfStandardInput(t *testing.T) {
	for _, test := range []struct {
		name, names, lines string
		hold               time.Duration
	}{
		{"the first line counts for nothing", "cpu", "@0 5|@1 5|@2 5", 2 * time.Second},
		{"but for itself", "cpu", "@0 5", 0},
		{"every number", "load1 load5", "1 20|20 1|1 1", 0},
		{"an unknown one is a break, also of a CPU", "cpu0 cpu1", "5 nan|5 5", 0},
		{"as some awks print it", "1", "-nan|5", 0},
		{"a hole", "cpu", "@0 5|@1 5|@2 5|@9 5|@10 5|@11 5", 4 * time.Second},
		{"a line that is missing is not one", "cpu", "@0 5|@1 5|@2 5|@4 5", 4 * time.Second},
		{"lines that arrived together", "cpu", "@0 5|@0 5|@0 5|@1 5|@2 5|@3 5", 3 * time.Second},
		{"a new run has its own interval", "cpu", "@0 5|@1 5|#|@10 5|@20 5|@30 5", 20 * time.Second},
	} {
		checkGate(t, test.name, &gate{below: 10, above: math.NaN(), hold: test.hold, all: true}, test.names, test.lines)
	}
}

func checkGate(t *testing.T, name string, g *gate, names, lines string) {
	g.report = func(string) {}
	shown := strings.Split(lines, "|")
	at, begins := noon, false
	for i, text := range shown {
		if text == "#" {
			begins = true
			continue
		}
		if text == "-" {
			return
		}
		columns := strings.Fields(text)
		at = at.Add(time.Second)
		if after, ok := strings.CutPrefix(columns[0], "@"); ok {
			seconds, err := time.ParseDuration(after + "s")
			if err != nil {
				t.Fatal(err)
			}
			at, columns = noon.Add(seconds), columns[1:]
		}
		err := g.show(line{at: at, names: strings.Fields(names), columns: columns, begins: begins})
		begins = false
		if met := err == errEnd; met != (i == len(shown)-1) || met != g.met {
			t.Errorf("%s: met %v at line %d of %q (held %v)", name, met, i+1, lines, g.held)
			return
		}
	}
}

func TestGateText(t *testing.T) {
	none := math.NaN()
	for _, test := range []struct {
		gate         gate
		held, missed string
	}{
		{gate{below: 10, above: none}, "below 10", "below 10"},
		{gate{below: none, above: 90, hold: time.Minute}, "above 90 for 0 of 60 s", "above 90 for 0 of 60 s at most"},
		{gate{below: 80, above: 20.5, hold: 5 * time.Second, held: 3 * time.Second, most: 4 * time.Second}, "above 20.5 and below 80 for 3 of 5 s", "above 20.5 and below 80 for 4 of 5 s at most"},
		{gate{below: -3, above: none, hold: 500 * time.Millisecond, held: 249 * time.Millisecond}, "below -3 for 0.2 of 0.5 s", "below -3 for 0 of 0.5 s at most"},
	} {
		if got := test.gate.text(test.gate.held); got != test.held {
			t.Errorf("got %q, want %q", got, test.held)
		}
		if got := test.gate.missed(); got != test.missed {
			t.Errorf("got %q, want %q", got, test.missed)
		}
	}
}
