package main

import (
	"bufio"
	"bytes"
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
	in    io.Reader
	count int  // of lines to show; 0: no limit
	stay  bool // at the end of the input, wait until ctx is done
	brake brake
	show  func(line) error
	flush func() error // called before waiting for more

	names  []string // of the columns, from the last # line
	begins bool     // whether a # line came last
	number int      // of the line
	shown  int
}

// parse returns a line of the input as one of cpunc. It reports false for one
// without numbers: a # line, which names the columns of those after it, or a
// blank one. The time is that of the line, if it has one, or else now.
func (r *replay) parse(text string, now time.Time) (l line, ok bool, err error) {
	r.number++
	text = strings.TrimSpace(text)
	if names, found := strings.CutPrefix(text, "#"); found {
		r.names, r.begins = strings.Fields(names), true
		if len(r.names) > 0 && r.names[0] == "time" {
			r.names = r.names[1:]
		}
		return line{}, false, nil
	}
	if text == "" {
		return line{}, false, nil
	}
	l = line{at: now, answered: true, settled: true, begins: r.begins, columns: strings.Fields(text)}
	if at, err := time.Parse(time.RFC3339, l.columns[0]); err == nil {
		l.at, l.stamp, l.columns = at, l.columns[0], l.columns[1:]
	}
	for _, number := range l.columns {
		if !isReading(number) {
			return line{}, false, r.wrong(number)
		}
	}
	if len(l.columns) == 0 {
		return line{}, false, fmt.Errorf("standard input, line %d: no numbers", r.number)
	}
	if len(r.names) != len(l.columns) {
		r.names = numbered(len(l.columns))
	}
	l.names, r.begins = r.names, false
	return l, true, nil
}

// isReading reports whether text is a number as cpunc or another program prints
// it: 12.5, -3, 1e6 or nan.
func isReading(text string) bool {
	if text == "nan" {
		return true
	}
	_, err := strconv.ParseFloat(text, 64)
	return err == nil && strings.Trim(text, "0123456789.eE+-") == ""
}

// numbered returns names for n columns without a # line.
func numbered(n int) (names []string) {
	for i := range n {
		names = append(names, strconv.Itoa(i+1))
	}
	return names
}

// wrong returns an error that says which line is not numbers.
func (r *replay) wrong(field string) error {
	hint := ""
	if n := strings.Replace(field, ",", ".", 1); n != field && isReading(n) {
		hint = " (a decimal comma: run the program before it with LC_ALL=C)"
	}
	return fmt.Errorf("standard input, line %d: not a number: %s%s", r.number, excerpt([]byte(field)), hint)
}

// maxInput is the longest line of standard input, in bytes: enough for the
// cores of 8192 CPUs.
const maxInput = 64 << 10

// A block is what one read gave: whole lines, or the last one without a
// newline.
type block struct {
	text string
	err  error
}

// blocks reads from in and sends what arrived until the end of the input or of
// ctx.
func blocks(ctx context.Context, in io.Reader) <-chan block {
	to := make(chan block)
	go func() { // ends with the input, with ctx, or with the process
		buf := make([]byte, maxInput)
		kept := 0 // bytes of a line that is not complete yet
		for {
			n, err := in.Read(buf[kept:])
			n += kept
			whole := bytes.LastIndexByte(buf[:n], '\n') + 1
			switch {
			case err != nil:
				whole = n
			case whole == 0 && n == len(buf):
				err = bufio.ErrTooLong
			}
			select {
			case to <- block{string(buf[:whole]), err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
			kept = copy(buf, buf[whole:n])
		}
	}()
	return to
}

// run shows the lines until the end of the input or of ctx, or an error.
func (r *replay) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	arrived := blocks(ctx, r.in)
	for {
		var b block
		select {
		case b = <-arrived:
		case <-ctx.Done():
			return nil
		}
		err := r.brake.wait(ctx)
		if err == nil {
			err = r.showBlock(b)
		}
		err = cmp.Or(r.flush(), err)
		if err == io.EOF && r.stay {
			<-ctx.Done()
		}
		if err == io.EOF || err == errEnd {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// showBlock shows the lines of a block. It returns io.EOF after the last one of
// the input, or of those that are to be shown.
func (r *replay) showBlock(b block) error {
	now := time.Now()
	for text := range strings.Lines(b.text) {
		l, ok, err := r.parse(text, now)
		if ok {
			err = r.show(l)
			r.shown++
		}
		if err == nil && ok && r.shown == r.count {
			err = io.EOF
		}
		if err != nil {
			return err
		}
	}
	switch b.err {
	case nil, io.EOF:
		return b.err
	case bufio.ErrTooLong:
		return fmt.Errorf("standard input, line %d: too long (over %d bytes)", r.number+1, maxInput)
	}
	return fmt.Errorf("read standard input: %w", cause(b.err))
}
