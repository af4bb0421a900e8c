package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// A replay takes lines from standard input instead of hosts: those that cpunc
// prints, or any numbers.
type replay struct {
	in    *lineReader
	count int  // of lines to show; 0: no limit
	stay  bool // after the last line, wait until ctx is done
	brake brake
	show  func(line) error
	flush func() error // called before waiting for more

	names  []string // of the columns, from the last # line
	begins bool     // whether a # line came last
}

// run shows the lines until the last one, or until ctx is done or show fails.
func (r *replay) run(ctx context.Context) error {
	var err error
	for shown := 0; err == nil && (r.count == 0 || shown < r.count); shown++ {
		var l line
		if l, err = r.next(ctx); err == nil {
			err = r.brake.wait(ctx)
		}
		if err == nil {
			err = r.show(l)
		}
	}
	err = cmp.Or(r.flush(), err)
	if r.stay && (err == nil || err == io.EOF) {
		<-ctx.Done()
	}
	if err == io.EOF || err == errEnd {
		return nil
	}
	return err
}

// next returns the next line of the input with numbers, or io.EOF after the last
// one. Those that arrived together leave together.
func (r *replay) next(ctx context.Context) (line, error) {
	for {
		if !r.in.hasLine() {
			if err := r.flush(); err != nil {
				return line{}, err
			}
		}
		text, err := r.in.next(ctx)
		if err != nil {
			return line{}, err
		}
		text = strings.TrimSpace(text)
		if names, found := strings.CutPrefix(text, "#"); found {
			r.names, r.begins = strings.Fields(names), true
			if len(r.names) > 0 && r.names[0] == "time" {
				r.names = r.names[1:]
			}
		} else if text != "" {
			return r.parse(text)
		}
	}
}

// parse returns a line of the input as one of cpunc. The time is that of the
// line, if it has one, or else now.
func (r *replay) parse(text string) (line, error) {
	l := line{at: time.Now(), begins: r.begins, columns: strings.Fields(text)}
	if at, err := time.Parse(time.RFC3339, l.columns[0]); err == nil {
		l.at, l.stamp, l.columns = at, l.columns[0], l.columns[1:]
	}
	for _, number := range l.columns {
		if !isReading(number) {
			return line{}, r.wrong(number)
		}
	}
	if len(l.columns) == 0 {
		return line{}, fmt.Errorf("standard input, line %d: no numbers", r.in.number)
	}
	if len(r.names) != len(l.columns) {
		r.names = nil
		for i := range l.columns {
			r.names = append(r.names, strconv.Itoa(i+1))
		}
	}
	l.names, r.begins = r.names, false
	return l, nil
}

// isReading reports whether text is a number as cpunc or another program prints
// it: 12.5, -3, 1e6 or nan.
func isReading(text string) bool {
	if strings.EqualFold(strings.TrimLeft(text, "+-"), "nan") { // some awks print -nan
		return true
	}
	_, err := strconv.ParseFloat(text, 64)
	return err == nil && strings.Trim(text, "0123456789.eE+-") == ""
}

func (r *replay) wrong(field string) error {
	hint := ""
	if n := strings.Replace(field, ",", ".", 1); n != field && isReading(n) {
		hint = " (a decimal comma: run the program before it with LC_ALL=C)"
	} else if strings.HasPrefix(field, "\x1f\x8b") && r.in.number == 1 { // logrotate compresses
		hint = " (compressed with gzip: zcat FILE | cpunc -)"
	}
	return fmt.Errorf("standard input, line %d: not a number: %s%s", r.in.number, excerpt([]byte(field)), hint)
}
