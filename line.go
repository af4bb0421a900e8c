package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A line is what one tick brought: the columns of all hosts side by side.
type line struct {
	at       time.Time // of the tick, or of a reply that came after its interval
	names    []string
	columns  []string // numbers as they came, nan for gaps and what the server does not know
	answered bool     // by any host
	settled  bool     // every host has replied or failed at least once
}

// add appends the columns of one host, with a prefix to their names: its replies
// to the words, or gaps. There is no knowing how wide a reply to cores is that did
// not come; the last one had that many.
func (l *line) add(prefix string, ws []word, replies [][]string, cores int) {
	for i, w := range ws {
		for c := range cmp.Or(w.width(), cores, 1) {
			l.names = append(l.names, prefix+columnName(w, c))
			if replies == nil {
				l.columns = append(l.columns, "nan")
			} else {
				l.columns = append(l.columns, replies[i][c])
			}
		}
	}
}

// value is column i as a number; NaN for a gap.
func (l line) value(i int) float64 {
	x, err := strconv.ParseFloat(l.columns[i], 64)
	if err != nil {
		return math.NaN()
	}
	return x
}

// decimals is how many the column of that name has.
func decimals(name string) int {
	if strings.HasPrefix(name[strings.LastIndexByte(name, '/')+1:], "load") {
		return 2
	}
	return 1
}

// columnName is what column c of the answer to w is called.
func columnName(w word, c int) string {
	switch w {
	case coresWord:
		return "cpu" + strconv.Itoa(c)
	case modesWord:
		return modeNames[c]
	case loadWord:
		return [...]string{"load1", "load5", "load15"}[c]
	case cgroupWord:
		return [...]string{"cgroup", "throttled"}[c]
	}
	return w.String()
}

// A printer writes lines as text.
type printer struct {
	w          io.Writer
	timeFormat string // of the time in front of the columns, if any
	header     bool   // name the columns at first, and whenever they change
	names      []string
}

// print writes l at once and with one write: whoever reads must not wait.
func (p *printer) print(l line) error {
	var text []byte
	if p.header && !slices.Equal(p.names, l.names) {
		p.names = l.names
		text = append(text, '#')
		if p.timeFormat != "" {
			text = append(text, " time"...)
		}
		for _, name := range l.names {
			text = append(append(text, ' '), name...)
		}
		text = append(text, '\n')
	}
	if p.timeFormat != "" {
		text = l.at.UTC().AppendFormat(text, p.timeFormat)
		text = append(text, ' ')
	}
	text = append(text, strings.Join(l.columns, " ")...)
	_, err := p.w.Write(append(text, '\n'))
	return err
}

// A summary is what -v says at the end of each column, as ping does.
type summary struct {
	names   []string
	columns map[string]*extent
}

func (s *summary) add(l line) {
	if s.columns == nil {
		s.columns = map[string]*extent{}
	}
	for i, name := range l.names {
		e := s.columns[name]
		if e == nil {
			e = new(extent)
			s.columns[name] = e
			s.names = append(s.names, name)
		}
		e.add(l.value(i))
	}
}

func (s *summary) print() {
	for _, name := range s.names {
		if e := s.columns[name]; e.n > 0 {
			say("%s: min/avg/max %.2f/%.2f/%.2f", name, e.min, e.sum/float64(e.n), e.max)
		}
	}
}

// An extent is how far some values reach; gaps are none.
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

func (e extent) text(decimals int) string {
	if e.n == 0 {
		return "no readings"
	}
	return fmt.Sprintf("min %.*f avg %.*f max %.*f", decimals, e.min, decimals, e.sum/float64(e.n), decimals, e.max)
}
