package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"
)

// newReplay returns a replay of in without a limit.
func newReplay(in io.Reader, show func(line) error) *replay {
	return &replay{in: newLineReader(in), brake: newBrake(), show: show, flush: func() error { return nil }}
}

// replayed returns what is printed of lines from standard input. The wait at the end of
// the input takes the time of a bubble.
func replayed(t *testing.T, in io.Reader, withTime, header bool) (text string, err error) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := printer{w: &out, header: header}
		if withTime {
			p.timeFormat = timeFormat(0)
		}
		err = newReplay(in, p.show).run(t.Context())
		text = out.String()
	})
	return text, err
}

// TestReplay shows that lines come back as cpunc has printed them, however they arrive.
func TestReplay(t *testing.T) {
	for _, test := range []struct {
		name, log      string
		withTime, head bool
	}{
		{"plain", "12.5\n9.0\nnan\n100.0\n", false, false},
		{"with time", "2026-01-02T15:04:05Z 12.5\n2026-01-02T15:04:06Z nan\n", true, false},
		{"tenths of a second", "2026-01-02T15:04:05.100Z 12.5\n2026-01-02T15:04:05.200Z 9.0\n", true, false},
		{"a header", "# time cpu load1 load5 load15\n2026-01-02T15:04:05Z 12.5 0.10 0.20 0.30\n", true, true},
		{"no time", "# cpu\n12.5\n9.0\n", false, true},
		{"several hosts and labels", "# time web1:5000/cpu db_of_web/cpu\n2026-01-02T15:04:05Z 12.5 nan\n", true, true},
		{"several runs", "# time cpu\n2026-01-02T15:04:05Z 12.5\n# time cpu\n2026-01-02T16:04:05Z 12.5\n# time cpu0 cpu1\n2026-01-02T17:04:05Z 1.0 nan\n", true, true},
	} {
		for way, in := range map[string]io.Reader{
			"at once":      strings.NewReader(test.log),
			"byte by byte": iotest.OneByteReader(strings.NewReader(test.log)),
			"by half":      iotest.HalfReader(strings.NewReader(test.log)),
		} {
			if got, err := replayed(t, in, test.withTime, test.head); got != test.log || err != nil {
				t.Errorf("%s, %s: got %q, %v, want %q", test.name, way, got, err, test.log)
			}
		}
	}
}

// TestReplayOfOthers shows what becomes of the output of other programs.
func TestReplayOfOthers(t *testing.T) {
	long := strings.Repeat("1.0 ", maxInput/4)
	for _, test := range []struct{ name, in, want, err string }{
		{"a last line without a newline", "1\n2", "1\n2\n", ""},
		{"carriage returns", "1\r\n2\r\n", "1\n2\n", ""},
		{"blank lines", "\n1\n \n2\n\n", "1\n2\n", ""},
		{"columns in white space", "  1\t-2  1e3 \n", "1 -2 1e3\n", ""},
		{"unknown numbers", "nan -nan NaN\n", "nan -nan NaN\n", ""},
		{"nothing", "", "", ""},
		{"no numbers", "1\nr b swpd\n2\n", "1\n", `standard input, line 2: not a number: "r"`},
		{"a decimal comma", "12,5\n", "", `standard input, line 1: not a number: "12,5" (a decimal comma: run the program before it with LC_ALL=C)`},
		{"compressed", "\x1f\x8b\b\x00 x\n", "", `standard input, line 1: not a number: "\x1f\x8b\b\x00" (compressed with gzip: zcat FILE | cpunc -)`},
		{"blank lines and names count", "# cpu\n\n1\nx\n", "1\n", `standard input, line 4: not a number: "x"`},
		{"a time alone", "2026-01-02T15:04:05Z\n", "", "standard input, line 1: no numbers"},
		{"not hexadecimal", "0x1p4\n", "", `standard input, line 1: not a number: "0x1p4"`},
		{"not infinite", "inf\n", "", `standard input, line 1: not a number: "inf"`},
		{"not readable", "\x1b[2J\x9b\n", "", `standard input, line 1: not a number: "\x1b[2J\x9b"`},
		{"too long", "1\n" + long + "1\n", "1\n", "standard input, line 2: too long (over 65536 bytes)"},
	} {
		got, err := replayed(t, strings.NewReader(test.in), false, false)
		if got != test.want || err == nil && test.err != "" || err != nil && err.Error() != test.err {
			t.Errorf("%s: got %q and %q, want %q and %q", test.name, got, err, test.want, test.err)
		}
	}
}

// TestReplayNames shows which names the columns have.
func TestReplayNames(t *testing.T) {
	for _, test := range []struct{ in, names string }{
		{"1 2", "1 2"},
		{"# cpu busy\n1 2", "cpu busy"},
		{"# time cpu\n2026-01-02T15:04:05Z 2", "cpu"},
		{"# cpu\n1 2", "1 2"},
		{"#cpu\n1", "cpu"},
		{"# not the names\n1\n2 3", "1 2"},
	} {
		var names []string
		synctest.Test(t, func(t *testing.T) {
			newReplay(strings.NewReader(test.in), func(l line) error { names = l.names; return nil }).run(t.Context())
		})
		if got := strings.Join(names, " "); got != test.names {
			t.Errorf("%q: got names %q, want %q", test.in, got, test.names)
		}
	}
}

// TestReplayEnds shows that no line is printed after the one that decides.
func TestReplayEnds(t *testing.T) {
	shown := 0
	show := func(line) error {
		if shown++; shown == 2 {
			return errEnd
		}
		return nil
	}
	if err := newReplay(strings.NewReader("1\n2\n3\n"), show).run(context.Background()); err != nil || shown != 2 {
		t.Errorf("got %v after %d lines", err, shown)
	}
	shown = 10
	r := newReplay(strings.NewReader("1\n2\n3\n"), show)
	r.count = 2
	if err := r.run(context.Background()); err != nil || shown != 12 {
		t.Errorf("count 2: got %v after %d lines", err, shown-10)
	}
	ctx, cancel := context.WithCancel(context.Background())
	silent, w := io.Pipe()
	defer w.Close()
	time.AfterFunc(time.Millisecond, cancel)
	if err := newReplay(silent, show).run(ctx); err != nil {
		t.Errorf("got %v at the end of ctx", err)
	}
}

// During a pause, no line is shown.
func TestReplayPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, typed := io.Pipe()
		shown := 0
		r := newReplay(in, func(line) error { shown++; return nil })
		r.brake.pause()
		go r.run(t.Context())
		io.WriteString(typed, "1\n2\n")
		if synctest.Wait(); shown != 0 {
			t.Errorf("%d lines in a pause", shown)
		}
		r.brake.resume()
		if synctest.Wait(); shown != 2 {
			t.Errorf("%d lines after a pause, want 2", shown)
		}
		typed.Close()
	})
}

// FuzzReplay shows that whatever is accepted is printed in a form that comes back equal.
func FuzzReplay(f *testing.F) {
	f.Add("# time cpu\n2026-01-02T15:04:05Z 12.5\n", true, true)
	f.Add("1 2\n3\n", false, true)
	f.Add("# cpu\n\n1\r\n# cpu\n2", false, true)
	f.Fuzz(func(t *testing.T, in string, withTime, header bool) {
		once, _ := replayed(t, strings.NewReader(in), withTime, header)
		twice, err := replayed(t, strings.NewReader(once), withTime, header)
		if once != twice || err != nil {
			t.Fatalf("%q: %q, then %q and %v", in, once, twice, err)
		}
	})
}

// BenchmarkReplay reads a log that cpunc -t made.
func BenchmarkReplay(b *testing.B) {
	const lines = 100000
	var log bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&log, "%s %.1f\n", noon.Add(time.Duration(i)*time.Second).Format("2006-01-02T15:04:05Z"), 100*rand.Float64())
	}
	b.SetBytes(int64(log.Len()))
	b.ReportAllocs()
	for b.Loop() {
		p := printer{w: io.Discard, timeFormat: timeFormat(time.Second)}
		r := newReplay(bytes.NewReader(log.Bytes()), p.show)
		r.count = lines
		r.run(b.Context())
	}
}
