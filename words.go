package main

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A word is what a client may send. Every word but bye requests a reply. No word
// is a prefix of another, so a request is complete with its last letter.
type word int

const (
	cpuWord word = iota
	coresWord
	modesWord
	loadWord
	meanWord
	busyWord
	peakWord
	pressureWord
	cgroupWord
	weightWord // is for HAProxy; its reply is not a plain number
	byeWord    // closes the connection

	readings = weightWord // number of words that request a reading
	requests = byeWord    // number of words that request a reply

	noWord word = -1
)

// records are what some readings need besides two samples.
type records struct {
	peaks peakRecord
	means meanRecord
}

// A reading describes the replies to a word.
type reading struct {
	name     string
	title    string // of its chart
	source   source
	instant  bool     // it covers no interval, or always the same ones
	columns  []string // names; nil: one for each CPU
	decimals int
	unit     string  // after each known number
	limit    float64 // the largest valid number; 0: none
	compute  func(r *records, from, to *sample) []float64
}

var table = [...]reading{
	cpuWord: {
		name: "cpu", title: "CPU utilization (%)",
		source: totals, columns: []string{"cpu"}, decimals: 1, limit: 100,
		compute: func(_ *records, from, to *sample) []float64 { return []float64{totalGain(from, to).busy()} },
	},
	coresWord: {
		name: "cores", title: "Utilization of each CPU (%)",
		source: perCPU, decimals: 1, limit: 100,
		compute: func(_ *records, from, to *sample) []float64 { return cores(from, to) },
	},
	modesWord: {
		name: "modes", title: "CPU time by mode (%)",
		source: totals, columns: modeNames[:], decimals: 1, limit: 100,
		compute: func(_ *records, from, to *sample) []float64 { return totalGain(from, to).shares() },
	},
	loadWord: {
		name: "load", title: "Load average",
		source: averages, instant: true, columns: []string{"load1", "load5", "load15"}, decimals: 2,
		compute: func(_ *records, _, to *sample) []float64 { return to.load[:] },
	},
	meanWord: {
		name: "mean", title: "Mean CPU utilization (%)",
		source: totals, instant: true, columns: []string{"mean1", "mean5", "mean15"}, decimals: 1, limit: 100,
		compute: func(r *records, _, to *sample) []float64 { return r.means.means(to) },
	},
	busyWord: {
		name: "busy", title: "CPU time not idle (%)",
		source: totals, columns: []string{"busy"}, decimals: 1, limit: 100,
		compute: func(_ *records, from, to *sample) []float64 { return []float64{busyByClock(from, to)} },
	},
	peakWord: {
		name: "peak", title: "CPU time not idle, busiest 200 ms (%)",
		source: totals, columns: []string{"peak"}, decimals: 1, limit: 100,
		compute: func(r *records, from, to *sample) []float64 { return []float64{r.peaks.peak(from, to)} },
	},
	pressureWord: {
		name: "pressure", title: "CPU pressure (%)",
		source: pressures, columns: []string{"pressure"}, decimals: 1, limit: 100,
		compute: func(_ *records, from, to *sample) []float64 { return []float64{pressure(from, to)} },
	},
	cgroupWord: {
		name: "cgroup", title: "CPU use of the control group (%)",
		source: groups, columns: []string{"cgroup", "throttled"}, decimals: 1, limit: 100,
		compute: func(_ *records, from, to *sample) []float64 { return groupUse(from, to) },
	},
	weightWord: { // HAProxy takes only integers, and would send no more to a server with 0%
		name: "weight", source: totals, unit: "%",
		compute: func(_ *records, from, to *sample) []float64 { return []float64{max(1, 100-totalGain(from, to).busy())} },
	},
	byeWord: {name: "bye"},
}

func (w word) String() string { return table[w].name }

// width returns the number of columns in a reply to w, or 0 if there is one for
// each CPU.
func (w word) width() int { return len(table[w].columns) }

// column returns the name of column c in a reply to w.
func (w word) column(c int) string {
	if w.width() == 0 {
		return "cpu" + strconv.Itoa(c)
	}
	return table[w].columns[c]
}

// splitName splits the name of a column from that of its host, if it has one.
func splitName(name string) (host, column string) {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 0)], name[i+1:]
}

// columnOf returns what the name of a column stands for: column c in the replies
// of a host to w. The host is "" if the name has none, and w is noWord if no
// reading has such a column.
func columnOf(name string) (host string, w word, c int) {
	host, name = splitName(name)
	for w, r := range table {
		if c := slices.Index(r.columns, name); c >= 0 {
			return host, word(w), c
		}
	}
	if cpu := cpuNumber([]byte(name)); cpu >= 0 {
		return host, coresWord, cpu
	}
	return host, noWord, 0
}

// words are the names of all words. The readings come first.
var words = func() (names []string) {
	for _, r := range table {
		names = append(names, r.name)
	}
	return names
}()

var errWeight = errors.New("weight is not a reading (it is only for HAProxy's agent-check; use cpu)")

// parseReadings returns the readings with these names, which must differ. weight
// and bye are not readings.
func parseReadings(names []string) ([]word, error) {
	var ws []word
	for _, name := range names {
		w := word(slices.Index(words[:readings], name))
		host, owner, _ := columnOf(name)
		switch {
		case name == words[weightWord]:
			return nil, errWeight
		case w == noWord && owner != noWord && host == "":
			return nil, fmt.Errorf("unknown reading %q (a column of %s)", name, owner)
		case w == noWord:
			return nil, fmt.Errorf("unknown reading %q (choose from %s)", name, strings.Join(words[:readings], ", "))
		case slices.Contains(ws, w):
			return nil, fmt.Errorf("reading %s given twice", name)
		}
		ws = append(ws, w)
	}
	return ws, nil
}

// appendReading appends the reading w for the time between two samples of its
// source: numbers separated by one space, without a newline. An unknown number
// is nan.
func (r *records) appendReading(line []byte, w word, from, to *sample) []byte {
	for i, x := range table[w].compute(r, from, to) {
		if i > 0 {
			line = append(line, ' ')
		}
		line = appendNumber(line, x, table[w].decimals)
		if !math.IsNaN(x) {
			line = append(line, table[w].unit...)
		}
	}
	return line
}

func appendNumber(line []byte, x float64, decimals int) []byte {
	if math.IsNaN(x) {
		return append(line, "nan"...)
	}
	return strconv.AppendFloat(line, x, 'f', decimals, 64)
}
