package main

import (
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
	begins  bool     // whether a # line is in front of it: it begins a new run
	stamp   string   // the time as it stands in a line of standard input, if it does
}

// value returns column i as a number, or NaN for a gap.
func (l line) value(i int) float64 { return number(l.columns[i]) }

// isGap reports whether no number is known.
func (l line) isGap() bool {
	return !slices.ContainsFunc(l.columns, func(column string) bool { return column != "nan" })
}

// number returns a number that has been checked, or NaN for nan and -nan.
func number(text string) float64 {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return x
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
	if math.IsNaN(x) {
		return
	}
	if e.n == 0 {
		e.min, e.max = x, x
	}
	e.n++
	e.min, e.max, e.sum = min(e.min, x), max(e.max, x), e.sum+x
}
