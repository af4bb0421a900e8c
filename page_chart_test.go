package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// The page is small enough to be read as a whole, and loads fast on any network.
func TestPageSize(t *testing.T) {
	t.Parallel()
	const maxBytes, maxLines, maxColumns, tab = 66_000, 450, 120, 4
	bytes := 0
	err := fs.WalkDir(page, "page", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := page.ReadFile(name)
		bytes += len(text)
		lines := strings.Split(string(text), "\n")
		if len(lines) > maxLines {
			t.Errorf("%s has %d lines", name, len(lines))
		}
		for i, line := range lines {
			if columns := utf8.RuneCountInString(line) + (tab-1)*strings.Count(line, "\t"); columns > maxColumns {
				t.Errorf("%s:%d has %d columns", name, i+1, columns)
			}
		}
		return err
	})
	if err != nil || bytes > maxBytes {
		t.Errorf("the page has %d bytes, %v", bytes, err)
	}
}

// series returns JavaScript that makes samples of a reading, one second apart from 0.
func series(names string, rows ...string) string {
	return fmt.Sprintf(`(() => {
		const samples = new Samples(%q.split(' '));
		[%s].forEach((row, i) => samples.add(1000 * i, row));
		return samples;
	})()`, names, strings.Join(rows, ", "))
}

// Where everything is in a chart, as numbers: the area of the curves is 100 pixels
// high and wide, so a percentage and a second of ten are easily told.
func testGeometry(t *testing.T, p *tab, _ *relay) {
	frame := func(samples, begin, end, form, word string) string {
		return fmt.Sprintf(`const f = layout(%s, { begin: %s, end: %s }, { width: 168, height: 138, pixel: 1 }, %q, describe(%q));
			const round = x => Array.isArray(x) || x instanceof Float32Array ? Array.from(x, round) : typeof x === 'number' ? Math.round(x * 10) / 10 : x;`,
			samples, begin, end, form, word)
	}
	ten := series("cpu", "[0]", "[100]", "[50]", "[NaN]", "[20]", "[20]", "[20]", "[20]", "[20]", "[20]", "[40]")
	many := `(() => { const s = new Samples(['cpu']); for (let i = 0; i <= 1000; i++) s.add(10 * i, [i % 10 ? 10 : 90]); return s; })()`
	load := series("load1 load5 load15", "[0.42, 1, 2]", "[3, 1, 2]")
	for _, test := range []struct{ name, setup, get, want string }{
		{"the area", frame(ten, "0", "10000", "lines", "cpu"), "[f.left, f.top, f.right, f.bottom]", "[40 12 140 112]"},
		{"values", frame(ten, "0", "10000", "lines", "cpu"), "[f.y(0), f.y(50), f.y(100)]", "[112 62 12]"},
		{"times", frame(ten, "0", "10000", "lines", "cpu"), "[f.x(0), f.x(2500), f.x(10000), f.time(65), f.time(0)]", "[40 65 140 2500 0]"},
		{"a line with a gap", frame(ten, "0", "10000", "lines", "cpu"), "runs(f, 0).map(run => [run.xs, run.means])",
			"[[[40 50 60] [112 12 62]] [[80 90 100 110 120 130 140] [92 92 92 92 92 92 72]]]"},
		{"only what is in view, and one sample beyond", frame(ten, "4500", "8500", "lines", "cpu"), "runs(f, 0).map(run => run.xs)", "[[27.5 52.5 77.5 102.5 127.5 152.5]]"},
		{"statistics of what is in view", frame(ten, "3500", "10000", "lines", "cpu"), "[f.min[0], f.avg[0], f.max[0]]", "[20 22.9 40]"},
		{"statistics of nothing", frame(ten, "20000", "30000", "lines", "cpu"), "[f.min[0], f.avg[0], f.max[0]].map(Number.isNaN)", "[true true true]"},
		{"ten samples a pixel: lowest, mean, highest", frame(many, "0", "10000", "lines", "cpu"), "(([r]) => [r.xs.length, r.xs.slice(1, 3), r.lows[1], r.means[1], r.highs[1]])(runs(f, 0))",
			"[101 [41.5 42.5] 102 94 22]"},
		{"ticks", frame(ten, "0", "10000", "lines", "cpu"), "f.valueTicks.map(tick => [tick.y, tick.label])", "[[112 0] [62 50] [12 100]]"},
		{"the day at midnight", frame(ten, "+new Date(2026, 0, 2) - 90e3", "+new Date(2026, 0, 2) + 90e3", "lines", "cpu"), "f.timeTicks.map(tick => [tick.x, tick.label])", "[[90 Jan 02]]"},
		{"the top of the load", frame(load, "0", "10000", "lines", "load"), "[f.most, f.y(3), f.valueTicks.map(tick => tick.label)]", "[4 37 [0 2 4]]"},
		{"a stack", frame(series("user system idle", "[10, 20, 70]", "[NaN, NaN, NaN]", "[0, 50, 50]", "[0, 50, 50]"), "0", "10000", "stack", "modes"), "layers(f).map(run => [run.xs, run.edges])",
			"[[[40] [[112] [102] [82] [12]]] [[60 70] [[112 112] [112 112] [62 62] [12 12]]]]"},
		{"a heat map", frame(series(strings.TrimSpace(strings.Repeat("c ", 50)), "Array(50).fill(0)", "Array(50).fill(9)"), "0", "2000", "heat", "cores"), "[f.rows, f.neighbors, f.height, f.y(0), f.y(49), spans(f, 100)]",
			"[50 1 100 13 111 [[0 0] [0 50]]]"},
		{"more CPUs than pixels", frame(series(strings.Join(namesOf(512, coresWord), " "), "Array(512).fill(0)"), "0", "2000", "heat", "cores"), "[f.rows, f.neighbors, f.height, f.y(0) === f.y(10), f.y(11) > f.y(10), f.valueTicks.map(tick => tick.label)]",
			"[47 11 100 true true [0 100 200 300 400 500]]"},
		{"forms", "const round = x => x;", "[['cpu', 1], ['cores', 8], ['cores', 9], ['modes', 8], ['modes', 16]].map(([word, columns]) => formOf(word, columns))",
			"[lines lines heat stack lines]"}, // modes of two hosts do not add up to 100
		{"the sample at a time", frame(ten, "0", "10000", "lines", "cpu"), "[locate(f, 1400), locate(f, 1600), locate(f, 19000)]", "[1 2 -1]"},
		{"the column at a point", frame(series("a b c d", "[1, 2, 3, NaN]"), "0", "10000", "heat", "cores"), "[columnAt(f, 0, 13), columnAt(f, 0, 111), columnAt(f, 0, 50), columnAt(f, 0, 999)]", "[0 3 1 3]"},
	} {
		if got := fmt.Sprint(inPage[any](p, test.setup+" return round("+test.get+");")); got != test.want {
			t.Errorf("%s: %s\nwant %s", test.name, got, test.want)
		}
	}
}

// A recording holds a day of readings in bounded memory, and the newest of more.
func testMemory(t *testing.T, p *tab, _ *relay) {
	got := inPage[[]float64](p, `
		const measure = (columns, rows) => {
			const recording = new Recording(), samples = recording.of('cores');
			samples.extend(Array.from({ length: columns }, (_, c) => 'cpu' + c));
			const row = samples.names.map(() => 50);
			for (let i = 0; i < rows; i++) {
				samples.add(1000 * i, row);
				recording.limit();
			}
			return [samples.chunks.reduce((sum, { times, values }) => sum + times.byteLength + values.byteLength, 0), samples.count, samples.last];
		};
		return [measure(1, 86400), measure(64, 86400), measure(1024, 8000)].flat();`)
	for i, want := range []struct{ rows, last float64 }{{86400, 86399e3}, {86400, 86399e3}, {8000, 7999e3}} {
		bytes, rows, last := got[3*i], got[3*i+1], got[3*i+2]
		if bytes > 30e6 || last != want.last || rows != want.rows && bytes < 20e6 {
			t.Errorf("%v bytes, %v rows up to %v, of %v", bytes, rows, last, want)
		}
	}
}

// What the page saves is what cpunc prints, and what it prints is read again.
func testLogs(t *testing.T, p *tab, _ *relay) {
	for _, test := range []struct{ name, log, want string }{
		{"as saved", "# time cpu load1 load5 load15\n2026-01-02T15:04:05Z 12.4 0.42 0.10 0.00\n2026-01-02T15:04:06Z nan 0.50 0.10 0.00\n", ""},
		{"tenths of seconds", "# time cpu\n2026-01-02T15:04:05.100Z 12.4\n2026-01-02T15:04:05.200Z 0.0\n", ""},
		{"several hosts", "# time web1/cpu web1/cpu0 web1/cpu1 web2/cpu web2/cpu0\n2026-01-02T15:04:05Z 1.0 2.0 3.0 4.0 5.0\n",
			"# time web1/cpu web2/cpu web1/cpu0 web1/cpu1 web2/cpu0\n2026-01-02T15:04:05Z 1.0 4.0 2.0 3.0 5.0\n"},
		{"another run has a gap before it", "# time cpu\n2026-01-02T15:04:05Z 1.0\n\n# time cpu\n2026-01-02T15:04:07Z 2.0\n",
			"# time cpu\n2026-01-02T15:04:05Z 1.0\n2026-01-02T15:04:05Z nan\n2026-01-02T15:04:07Z 2.0\n"},
		{"without times", "# cpu\n1.0\n2.5", "# time cpu\n2026-01-02T15:04:04Z 1.0\n2026-01-02T15:04:05Z 2.5\n"},
		{"without names", "-1.5 1000000\n", "# time column1 column2\n2026-01-02T15:04:05Z -1.5 1000000.0\n"},
		{"CRLF", "# time cpu\r\n2026-01-02T15:04:05Z 12.4\r\n", "# time cpu\n2026-01-02T15:04:05Z 12.4\n"},
		{"no line", "12.4\nfoo\n", `line 2 is not a reading: "foo"`},
		{"too few columns", "1 2\n1\n", `line 2 is not a reading: "1"`},
		{"nothing", "\n", "no readings"},
	} {
		got := inPage[string](p, fmt.Sprintf(`
			try {
				const { recording } = await readLog(new File([%q], 'log', { lastModified: Date.parse('2026-01-02T15:04:05Z') }));
				return linesOf([...recording.series.values()], { begin: 0, end: Infinity }).join('');
			} catch (error) { return error.message; }`, test.log))
		if want := test.want; got != want && (want != "" || got != test.log) {
			t.Errorf("%s: %q, want %q", test.name, got, want)
		}
	}
}

// wheel turns the wheel over a chart; drag drags it by so many pixels.
func (p *tab) wheel(delta float64) {
	p.t.Helper()
	p.do(chromedp.MouseEvent("mouseMoved", 640, 300), chromedp.MouseEvent("mouseWheel", 640, 300, func(e *input.DispatchMouseEventParams) { e.DeltaX, e.DeltaY = 1e-9, delta }))
}

func (p *tab) drag(by float64) {
	p.t.Helper()
	p.do(chromedp.MouseEvent("mousePressed", 640, 300, chromedp.ButtonLeft, chromedp.ClickCount(1)), chromedp.MouseEvent("mouseMoved", 640+by/2, 300, chromedp.ButtonLeft),
		chromedp.MouseEvent("mouseMoved", 640+by, 300, chromedp.ButtonLeft), chromedp.MouseEvent("mouseReleased", 640+by, 300, chromedp.ButtonLeft, chromedp.ClickCount(1)))
}

// view returns the begin and the end of what the charts show, in ms, and whether it is
// frozen.
func (p *tab) view() (begin, end float64, frozen bool) {
	v := inPage[[]float64](p, "return [page.view.range.begin, page.view.range.end, page.view.frozen ? 1 : 0]")
	return v[0], v[1], v[2] == 1
}

func testFreeze(t *testing.T, p *tab, r *relay) {
	until(t, "five seconds", func() bool { return p.count("cpu") >= 50 })
	expectFrozen := func(what string, length float64) (begin float64) {
		t.Helper()
		var end float64
		until(t, what, func() bool {
			var frozen bool
			begin, end, frozen = p.view()
			return frozen && math.Abs(end-begin-length) < 20
		})
		return begin
	}
	expectLive := func(how string) {
		t.Helper()
		until(t, "live after "+how, func() bool {
			begin, end, frozen := p.view()
			return !frozen && end-begin == 2000
		})
	}
	p.wheel(-300)
	begin := expectFrozen("half of the window after a wheel", 2000*math.Exp(-0.6))
	p.drag(200)
	if now := expectFrozen("the same length after a drag", 2000*math.Exp(-0.6)); now >= begin {
		t.Errorf("a drag to the right moved the begin from %v to %v", begin, now)
	}
	n := p.count("cpu")
	until(t, "readings while frozen", func() bool { return p.count("cpu") > n+3 })
	if got := p.text("#detail"); !strings.HasPrefix(got, "Showing ") {
		t.Errorf("says %q while frozen", got)
	}
	p.do(chromedp.KeyEvent(kb.End))
	expectLive("End")
	p.drag(-100)
	expectFrozen("frozen after a drag to the left", 2000)
	p.do(chromedp.MouseClickXY(640, 300, chromedp.ClickCount(1)), chromedp.MouseClickXY(640, 300, chromedp.ClickCount(2)))
	expectLive("a double click")
	p.do(chromedp.Focus(chromedp.CSS("canvas")), chromedp.KeyEvent(kb.PageUp))
	expectFrozen("frozen after Page Up", 2000)
	p.click("#live")
	expectLive("the button")
	// A key changes the window, and a pointer moves before that is drawn.
	evaluate[bool](p, `(() => {
		document.body.dispatchEvent(new KeyboardEvent('keydown', { key: '+', bubbles: true }));
		return document.querySelector('canvas').dispatchEvent(new PointerEvent('pointermove', { clientX: 100, clientY: 300 }));
	})()`)
	if _, _, frozen := p.view(); frozen {
		t.Error("frozen by a pointer")
	}
	p.do(chromedp.KeyEvent("-"))
	// Two fingers move apart.
	evaluate[bool](p, `(() => {
		const canvas = document.querySelector('canvas');
		const send = (type, pointerId, x) => canvas.dispatchEvent(new PointerEvent(type, { pointerId, clientX: x, clientY: 300, bubbles: true, pointerType: 'touch' }));
		send('pointerdown', 11, 400); send('pointerdown', 12, 500); send('pointermove', 12, 600); send('pointerup', 11, 400); send('pointerup', 12, 600);
		return true;
	})()`)
	expectFrozen("half of the window after a pinch", 1000)
	p.stop(r)
	p.do(chromedp.KeyEvent(kb.End))
	expectLive("End while stopped")
	lines := inPage[string](p, "return linesOf([page.live.of('cpu')], { begin: 0, end: Infinity }).slice(1).join('')")
	sameLines(t, "nothing is lost while frozen", strings.Split(strings.TrimSuffix(lines, "\n"), "\n"), r.sent(0))
}

// Several readings share one stream, and changing them loses nothing.
func testPanels(t *testing.T, p *tab, r *relay) {
	until(t, "readings of both", func() bool { return p.count("cpu") >= 5 && p.count("load") >= 5 })
	if got, want := evaluate[[]string](p, "[...document.querySelectorAll('h2')].map(h => h.textContent)"), []string{"CPU utilization (%)", "Load average"}; !slices.Equal(got, want) {
		t.Errorf("titles %q, want %q", got, want)
	}
	until(t, "the number of CPUs", func() bool { return inPage[bool](p, "return page.panels[1].frame.cpus === 2") })
	p.choose("cpu,modes")
	until(t, "readings of the others", func() bool { return p.count("modes") >= 5 })
	p.do(chromedp.SetValue(chromedp.CSS("#interval"), "0.2"))
	until(t, "readings in the other interval", func() bool { return len(r.sent(2)) >= 3 && p.state() == "live" })
	p.choose("cpu,load")
	until(t, "the first two again", func() bool { return len(r.sent(3)) >= 3 && p.state() == "live" })
	until(t, "one open stream", func() bool { _, open := r.counts(); return open == 1 })
	p.stop(r)
	if got, want := r.asked(), []string{"cpu,load", "cpu,modes", "cpu,modes", "cpu,load"}; !slices.Equal(got, want) {
		t.Errorf("asked for %q, want %q", got, want)
	}
	// Nothing of cpu is missing, but what was in transit when a stream ended. The
	// others have a gap.
	lines := savedLines(t, p.saved("#saveData", ".txt"), "cpu load1 load5 load15")
	got := lines
	for n := range 4 {
		seen := false
		for _, line := range r.sent(n) {
			if len(got) == 0 || !slices.Equal(strings.Fields(got[0])[:2], strings.Fields(line)[:2]) {
				break
			}
			got, seen = got[1:], true
		}
		if !seen {
			t.Errorf("the page has nothing of stream %d", n)
		}
	}
	if len(got) > 0 || !slices.ContainsFunc(lines, func(line string) bool { return strings.HasSuffix(line, " nan nan nan") }) {
		t.Errorf("the page has %q, which no stream sent: %q", lines, got)
	}
}

// A log that is dropped on the page is shown until one returns to live.
func testDrop(t *testing.T, p *tab, r *relay) {
	until(t, "a line", func() bool { return p.state() == "live" })
	drop := func(text string) {
		evaluate[bool](p, fmt.Sprintf(`(() => {
			const dataTransfer = new DataTransfer();
			dataTransfer.items.add(new File([%q], 'web1.log'));
			return window.dispatchEvent(new DragEvent('drop', { dataTransfer, cancelable: true })) || true;
		})()`, text))
	}
	drop("# time cpu modes\n2026-01-02T15:04:05Z 1.0\n")
	until(t, "why it is not a log", func() bool {
		return p.text("#complaint") == `web1.log: line 2 is not a reading: "2026-01-02T15:04:05Z 1.0".`
	})
	drop("# time cpu other\n2026-01-02T15:04:05Z 1.0 7.0\n2026-01-02T16:04:05Z 3.0 9.0\n")
	until(t, "the log", func() bool { return p.text("#status") == "A log of 2 readings." })
	if begin, end, _ := p.view(); end-begin != 3_600_000 {
		t.Errorf("from %v to %v, want the whole log", begin, end)
	}
	want := [][]string{{"cpu", "3.0", "1.0", "2.0", "3.0"}, {"other", "9.0", "7.0", "8.0", "9.0"}}
	until(t, fmt.Sprintf("the legend %q", want), func() bool { return slices.EqualFunc(p.legend(), want, slices.Equal[[]string]) })
	until(t, "no stream", func() bool { _, open := r.counts(); return open == 0 })
	drop("# time cpu\n2026-01-02T10:00:00Z 1.0\n2026-01-04T10:00:00Z 1.0\n")
	until(t, "both days", func() bool {
		from, to, _ := strings.Cut(p.text("#detail"), " – ")
		return strings.HasPrefix(from, "Showing Jan 02 2026, ") && strings.HasPrefix(to, "Jan 04 2026, ")
	})
	drop("1 2 3 4 5 6 7 8 9 10\n")
	until(t, "a marker for each of many lines", func() bool {
		return evaluate[int](p, "[...document.querySelectorAll('.legend svg')].filter(svg => svg.checkVisibility()).length") == 10
	})
	p.click("#live")
	until(t, "the readings of the server", func() bool { return p.state() == "live" && len(r.sent(1)) > 0 })
}

// Browsers open six connections per host. The page leaves one for others, says so, and
// takes its turn when another page leaves.
func testFull(t *testing.T, p *tab, r *relay) {
	until(t, "a line", func() bool { return p.state() == "live" })
	open := `(() => {
		const frames = [];
		for (let i = 0; i < 5; i++) frames.push(window.open(location.href, '_blank', 'popup'));
		window.others = frames;
		return frames.every(Boolean);
	})()`
	if !evaluate[bool](p, open) {
		t.Fatal("no windows")
	}
	states := func() []string {
		return evaluate[[]string](p, `window.others.map(w => w.document.body?.dataset.state + ' ' + w.document.querySelector('#status')?.textContent)`)
	}
	isFull := func(state string) bool {
		return strings.HasPrefix(state, "lost Retrying: no connection is free (browsers open six per host; close another tab of this page).")
	}
	until(t, "five streams, and a page that says why it has none", func() bool {
		all := states()
		_, open := r.counts()
		return open == 5 && len(slices.DeleteFunc(all, isFull)) == 4
	})
	p.click("#toggle")
	until(t, "a stream for the last one", func() bool {
		all := states()
		_, open := r.counts()
		return open == 5 && !slices.ContainsFunc(all, isFull)
	})
	evaluate[bool](p, "window.others.map(w => w.close()).length > 0")
}

// Nothing is drawn where no frame is due, as in a hidden tab, but its title is current.
func testHidden(t *testing.T, p *tab, _ *relay) {
	until(t, "a line", func() bool { return p.state() == "live" })
	inPage[bool](p, `
		window.requestAnimationFrame = () => 0;
		window.drawn = 0;
		const panel = page.panels[0], { draw } = panel;
		panel.draw = (...args) => {
			window.drawn++;
			draw.apply(panel, args);
		};
		return true;`)
	n := p.count("cpu")
	until(t, "twenty lines", func() bool { return p.count("cpu") > n+20 })
	if drawn := evaluate[int](p, "window.drawn"); drawn > 1 { // one frame was already due
		t.Errorf("%d frames drawn", drawn)
	}
	title := evaluate[string](p, "document.title")
	until(t, "another title", func() bool { return evaluate[string](p, "document.title") != title })
}

// What a pointer that rests points at stays the same while the chart moves on.
func testStillPointer(t *testing.T, p *tab, r *relay) {
	until(t, "five lines", func() bool { return p.count("cpu") >= 5 })
	p.do(chromedp.MouseEvent("mouseMoved", 1240, 300))
	until(t, "the values at the pointer", func() bool { return !evaluate[bool](p, "document.querySelector('.readout').hidden") })
	shown, n := p.text(".readout"), p.count("cpu")
	until(t, "ten more lines", func() bool { return p.count("cpu") >= n+10 })
	if now := p.text(".readout"); now != shown {
		t.Errorf("%q became %q", shown, now)
	}
}

// A reading that fails does not hide the others.
func testOneFails(t *testing.T, p *tab) {
	until(t, "why there is none", func() bool {
		return p.state() == "live" && p.text("#status") == "A reading every 1s since "+time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC).Local().Format(time.TimeOnly)+". Server: pressure: none."
	})
	until(t, "the other", func() bool { return p.newest() == "50.0 nan" })
}

// ofCPUs returns lines of cores, a second apart.
func ofCPUs(cpus, lines int) string {
	var text strings.Builder
	text.WriteString("# time " + strings.Join(namesOf(cpus, coresWord), " ") + "\n")
	for s := range lines {
		fmt.Fprintf(&text, "2026-01-02T15:04:%02dZ%s\n", s, strings.Repeat(" 100.0", cpus))
	}
	return text.String()
}

// Many CPUs fit on the page: their legend scrolls, up to its last entry.
func testManyCPUs(t *testing.T, p *tab) {
	until(t, "the CPUs", func() bool { return p.count("cores") == 20 && len(p.legend()) == 512 })
	got := evaluate[[]float64](p, `(() => {
		const { scrollHeight, clientHeight } = document.documentElement, legend = document.querySelector('.legend');
		legend.scrollTop = 1e9;
		const narrow = [...legend.querySelectorAll('button')].filter(button => button.scrollWidth > button.clientWidth);
		return [scrollHeight - clientHeight, legend.getBoundingClientRect().bottom - legend.lastElementChild.getBoundingClientRect().bottom, narrow.length];
	})()`)
	if got[0] > 0 || got[1] < 0 || got[1] > 20 || got[2] > 0 {
		t.Errorf("the page is %v pixels too high, %v are below the last entry of the legend, and %v entries are too narrow", got[0], got[1], got[2])
	}
	if rows, neighbors := inPage[float64](p, "return page.panels[0].frame.rows"), inPage[float64](p, "return page.panels[0].frame.neighbors"); rows*neighbors < 512 || neighbors < 2 {
		t.Errorf("%v rows, each of %v CPUs", rows, neighbors)
	}
	want := fmt.Sprintf("each row: the hottest of %v CPUs", inPage[int](p, "return page.panels[0].frame.neighbors"))
	until(t, want, func() bool { return p.text(".note") == want })
}

// A page that fails says so, and not that the connection is lost.
func testFailure(t *testing.T, p *tab, r *relay) {
	p.expected = []string{`^Uncaught`}
	until(t, "a line", func() bool { return p.state() == "live" })
	for n, where := range []string{"page.panels[0].draw", "page.live.accept"} {
		inPage[bool](p, where+" = () => { throw new Error('broken'); }; return true;")
		until(t, "the failure of "+where, func() bool {
			_, open := r.counts()
			return p.text("#status") == "This page failed: Error: broken. Reload it." && p.state() == "failed" && open == 0
		})
		if n == 0 {
			inPage[bool](p, "delete page.panels[0].draw; return true;")
			p.click("#toggle")
			until(t, "a line after the start", func() bool { return p.state() == "live" })
		}
	}
}

// On paper, the charts have a size of their own and the light colors.
func testPrint(t *testing.T, p *tab, _ *relay) {
	until(t, "a frame", func() bool { return p.newest() != "" })
	state := func() string {
		return evaluate[string](p, "[document.querySelector('canvas').width, getComputedStyle(document.body).backgroundColor].join(' ')")
	}
	before := state()
	evaluate[bool](p, "dispatchEvent(new Event('beforeprint'))")
	if got := state(); got != "2160 rgb(255, 255, 255)" {
		t.Errorf("%s on paper", got)
	}
	evaluate[bool](p, "dispatchEvent(new Event('afterprint'))")
	until(t, "the screen again", func() bool { return state() == before })
}

// The page works behind nginx, under a subpath, with TLS and HTTP/2.
func testNginx(t *testing.T, tabs context.Context, base string) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("no nginx in PATH")
	}
	// The certificate is that of another test server.
	other := httptest.NewTLSServer(nil)
	addr := other.Listener.Addr().String()
	other.Close()
	cert := other.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"cert.pem": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})),
		"key.pem":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"nginx.conf": `pid nginx.pid; daemon off; master_process off; error_log stderr; events {}
http {
	access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
	server {
		listen ` + addr + ` ssl http2; ssl_certificate cert.pem; ssl_certificate_key key.pem;
		location /cpunc/ { proxy_pass ` + base + `; }
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(nginx, "-p", dir, "-c", "nginx.conf", "-e", "stderr")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	until(t, "nginx", func() bool {
		response, err := other.Client().Get("https://" + addr + "/cpunc/cpu")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
	p := openTab(t, tabs, "https://"+addr+"/cpunc/", "?interval=0.1&read=cpu,load")
	until(t, "readings as they are sent", func() bool { return p.count("cpu") >= 10 })
}

// axe-core finds nothing to mend. $AXE is its file axe.min.js, from npm.
func testAxe(t *testing.T, p *tab, _ *relay) {
	name := os.Getenv("AXE")
	if name == "" {
		t.Skip("no axe-core in $AXE")
	}
	axe, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "a line", func() bool { return p.state() == "live" })
	evaluate[bool](p, string(axe)+"; true")
	for _, view := range []string{"true", "!void document.querySelector('#choices').showPopover()", "!void document.querySelector('#toggle').click()"} {
		evaluate[bool](p, view)
		for _, found := range evaluate[[]string](p, "axe.run().then(({ violations }) => violations.map(v => v.id + ': ' + v.nodes.map(n => n.html)))") {
			t.Errorf("%s: %s", view, found)
		}
	}
}

// With forced colors, the dot of the button still says whether the chart is live.
func testForcedColors(t *testing.T, p *tab, r *relay) {
	p.emulateMedia("forced-colors", "active")
	until(t, "a line", func() bool { return p.state() == "live" })
	dot := "getComputedStyle(document.querySelector('#toggle'), '::before').backgroundColor"
	live := evaluate[string](p, dot)
	p.stop(r)
	if stopped := evaluate[string](p, dot); stopped == live {
		t.Errorf("the dot is %s, live and stopped", live)
	}
}

// linesOfPicture returns what a server sends for the pictures: two minutes that end now.
func linesOfPicture(now time.Time) string {
	names := namesOf(picturedCPUs, picturedWords...)
	var text strings.Builder
	p := printer{w: &text, timeFormat: time.RFC3339, header: true}
	for s := range 150 {
		l := line{at: now.Add(time.Duration(s-149) * time.Second), names: names}
		for i, name := range names {
			l.columns = append(l.columns, textOf(name, picturedReading(s, i)))
		}
		p.show(l)
	}
	return text.String()
}

// The picture of the page in the README is what a browser shows for the readings that
// the picture of the terminal shows. To renew it: go test -run TestPagePicture -update
func TestPagePicture(t *testing.T) {
	const name, most = "doc/page.png", 200 << 10
	if *update {
		r := newRelay(t, servePage(t, picturedCPUs))
		r.instead = linesOfPicture(noon)
		p := openTab(t, openBrowser(t), r.url(), "?read=cpu,modes,cores&window=120")
		p.do(chromedp.EmulateViewport(1000, 814))
		until(t, "the readings", func() bool { return p.count("cores") == 150 && p.newest() != "" })
		evaluate[bool](p, "!!(document.querySelector('#host').textContent = 'web1:5000')")
		picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, picture, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var size int64
	for _, name := range []string{name, "doc/terminal.svg"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > most {
		t.Errorf("the pictures have %d bytes", size)
	}
}

// BenchmarkPageFrame draws a chart of 1232 × 600 pixels, on a processor.
func BenchmarkPageFrame(b *testing.B) {
	tabs := openBrowser(b)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sendPage(w, cmp.Or(strings.TrimPrefix(r.URL.Path, "/"), "page/index.html"))
	}))
	defer server.Close()
	for _, size := range []struct {
		word       string
		rows, cpus int
	}{{"cpu", 18_000, 1}, {"modes", 18_000, 8}, {"cores", 3_600, 8}, {"cores", 3_600, 64}, {"cores", 3_600, 512}} {
		b.Run(fmt.Sprintf("%s/%dx%d", size.word, size.rows, size.cpus), func(b *testing.B) {
			ctx, cancel := chromedp.NewContext(tabs)
			defer cancel()
			measure := fmt.Sprintf(`(async () => {
				const load = name => import('/page/' + name + '.js');
				const [{ Panel }, { readPalette }, { Samples }] = await Promise.all(['panel', 'drawing', 'samples'].map(load));
				const samples = new Samples(Array.from({ length: %[3]d }, (_, c) => 'cpu' + c));
				for (let i = 0; i < %[2]d; i++) samples.add(1000 * i, samples.names.map((_, c) => 100 / %[3]d * Math.abs(Math.sin(i * (c + 3) / 70))));
				const view = { range: { begin: 0, end: samples.last } }, panel = new Panel(%[1]q, samples, view), palette = readPalette();
				document.querySelector('#panels').replaceChildren(panel.element);
				const size = { width: 1232, height: 600, scale: 1 };
				const began = performance.now();
				for (let n = 0; n < %[4]d; n++) {
					panel.draw(palette, 0, size);
					panel.canvas.getContext('2d').getImageData(0, 0, 1, 1); // waits until it is drawn
				}
				return performance.now() - began;
			})()`, size.word, size.rows, size.cpus, b.N)
			if err := chromedp.Do(ctx, chromedp.Navigate(server.URL)); err != nil {
				b.Fatal(err)
			}
			ms, err := chromedp.Run(ctx, chromedp.Evaluate[float64](measure, chromedp.EvalAwaitPromise))
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(ms/float64(b.N), "ms/frame")
			b.ReportMetric(0, "ns/op")
		})
	}
}
