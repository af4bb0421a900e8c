package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A line is the result of one tick: the columns of all hosts side by side.
type line struct {
	at      time.Time // time of the tick, or of a reply that came after its interval
	names   []string
	columns []string // numbers as received, or nan
	replied bool     // whether any host has replied
	begins  bool     // whether a # line is in front of it: it begins a new run
	stamp   string   // the time as it stands in a line of standard input, if it does
}

// value returns column i as a number, or NaN for a gap.
func (l line) value(i int) float64 { return number(l.columns[i]) }

// number returns a number that has been checked, or NaN for nan and -nan.
func number(text string) float64 {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return x
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

func decimals(name string) int {
	if _, w, _ := columnOf(name); w != noWord {
		return table[w].decimals
	}
	return 1
}

// A tee passes each line on to several takers in turn, until one of them ends
// the run by an error.
type tee []interface{ show(line) error }

func (t tee) show(l line) error {
	for _, taker := range t {
		if err := taker.show(l); err != nil {
			return err
		}
	}
	return nil
}

// A printer writes lines as text.
type printer struct {
	w          io.Writer
	timeFormat string // of the time in front of the columns, if any
	header     bool   // name the columns first and whenever they change
	names      string // in the last header
}

// timeFormat returns the format of the time in front of lines that are this far
// apart, or at any time if that is 0.
func timeFormat(interval time.Duration) string {
	if interval < time.Second {
		return "2006-01-02T15:04:05.000Z"
	}
	return "2006-01-02T15:04:05Z"
}

// show writes l with one write and without delay, because a reader may be
// waiting for it.
func (p *printer) show(l line) error {
	var text []byte
	if names := strings.Join(l.names, " "); p.header && (l.begins || names != p.names) {
		p.names = names
		text = append(text, "# "...)
		if p.timeFormat != "" {
			text = append(text, "time "...)
		}
		text = append(append(text, names...), '\n')
	}
	switch {
	case p.timeFormat == "":
	case l.stamp != "":
		text = append(append(text, l.stamp...), ' ')
	default:
		text = append(l.at.UTC().AppendFormat(text, p.timeFormat), ' ')
	}
	text = append(text, strings.Join(l.columns, " ")...)
	_, err := p.w.Write(append(text, '\n'))
	return err
}

// A summary holds the statistics of each column that -v logs at the end, as
// ping does.
type summary struct {
	names   []string
	columns map[string]*extent
}

func (s *summary) show(l line) error {
	for i, name := range l.names {
		e := s.columns[name]
		if e == nil {
			e = new(extent)
			s.columns[name] = e
			s.names = append(s.names, name)
		}
		e.add(l.value(i))
	}
	return nil
}

func (s *summary) print() {
	for _, name := range s.names {
		if e := s.columns[name]; e.n > 0 {
			say("%s: min/avg/max %.2f/%.2f/%.2f", name, e.min, e.sum/float64(e.n), e.max)
		}
	}
}

// An extent is the minimum, maximum and sum of n values. Gaps are not counted.
type extent struct {
	n             int
	min, max, sum float64
}

func (e *extent) add(x float64) {
	switch {
	case math.IsNaN(x):
		return
	case e.n == 0:
		e.min, e.max = x, x
	case x < e.min:
		e.min = x
	case x > e.max:
		e.max = x
	}
	e.n++
	e.sum += x
}

func (e extent) text(decimals int) string {
	if e.n == 0 {
		return "no readings"
	}
	return fmt.Sprintf("min %.*f avg %.*f max %.*f", decimals, e.min, decimals, e.sum/float64(e.n), decimals, e.max)
}
