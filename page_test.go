package main

import (
	"bytes"
	"context"
	"fmt"
	"image/png"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// sameLines compares lines on the page with those that were sent. The last ones may
// have been in transit when the page stopped.
func sameLines(t *testing.T, what string, got, sent []string) {
	t.Helper()
	if len(got) < 2 || len(got) > len(sent) || !slices.Equal(got, sent[:len(got)]) {
		t.Errorf("%s: the page has %q, the server sent %q", what, got, sent)
	}
}

func TestPage(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a browser")
	}
	t.Parallel()
	tabs := openBrowser(t)
	base := servePage(t, 2)

	t.Run("policy", func(t *testing.T) {
		request, _ := http.NewRequest("GET", base, nil)
		request.Header.Set("Accept", "text/html")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		want := "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; " +
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
		if got := response.Header.Get("Content-Security-Policy"); got != want {
			t.Errorf("Content-Security-Policy: %s\nwant %s", got, want)
		}
	})

	// On a busy machine, the limit is three times what a minimal script needs to show
	// a value.
	t.Run("shown within a second of its load", func(t *testing.T) {
		var seen [][]float64
		for range 5 {
			r := newRelay(t, base)
			p := openTab(t, tabs, r.url(), "")
			ms := evaluate[[]float64](p, `(async () => {
				const frame = () => new Promise(requestAnimationFrame);
				while (!document.querySelector('.legend .now')?.textContent) await frame();
				const shown = performance.now(), { loadEventStart } = performance.getEntriesByType('navigation')[0];
				await (await fetch('/cpu?interval=1')).body.getReader().read();
				await frame();
				return [shown - loadEventStart, performance.now() - shown];
			})()`)
			seen = append(seen, ms)
			if ms[0] < max(1000, 3*ms[1]) {
				return
			}
		}
		t.Errorf("times of the page and of the minimal script, in ms: %v", seen)
	})

	t.Run("start and stop", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, base)
		p := openTab(t, tabs, r.url(), "?interval=0.1")
		if got := p.text("h1") + ", " + p.text("h2"); got != r.addr+", CPU utilization (%)" {
			t.Errorf("titles %q", got)
		}
		until(t, "ten lines", func() bool { return p.count("cpu") >= 10 })
		until(t, "the newest number in the title of the tab", func() bool {
			title := evaluate[string](p, "document.title")
			number, rest, _ := strings.Cut(title, " ")
			return rest == "cpu · "+r.addr && slices.ContainsFunc(r.sent(0), func(line string) bool { return valuesOf(line) == number })
		})
		icon := evaluate[string](p, "document.querySelector('#icon').href")
		if got := p.text("#toggle"); got != "Monitoring on: press to stop" {
			t.Errorf("button %q", got)
		}
		p.stop(r)
		if got := p.text("#toggle"); got != "Monitoring off: press to start" {
			t.Errorf("button %q when stopped", got)
		}
		if got := p.text("#status"); !strings.HasPrefix(got, "Stopped at ") {
			t.Errorf("status %q", got)
		}
		if got := evaluate[string](p, "document.querySelector('#icon').href"); got == icon {
			t.Error("the icon is that of a live chart when stopped")
		}
		lines := savedLines(t, p.saved("#saveData", ".txt"), "cpu")
		sameLines(t, "saved data", lines, r.sent(0))
		least, sum, most := 100.0, 0.0, 0.0
		for _, line := range lines {
			x, _ := strconv.ParseFloat(valuesOf(line), 64)
			least, sum, most = min(least, x), sum+x, max(most, x)
		}
		entry := p.legend()[0]
		if want := []string{"cpu", valuesOf(lines[len(lines)-1]), fmt.Sprintf("%.1f", least), entry[3], fmt.Sprintf("%.1f", most)}; !slices.Equal(entry, want) {
			t.Errorf("legend %q, want %q", entry, want)
		}
		if avg, _ := strconv.ParseFloat(entry[3], 64); avg < sum/float64(len(lines))-0.06 || avg > sum/float64(len(lines))+0.06 {
			t.Errorf("average %s, want %.2f", entry[3], sum/float64(len(lines)))
		}
		for quiet := time.Now().Add(time.Second); time.Now().Before(quiet); time.Sleep(50 * time.Millisecond) {
			if all, _ := r.counts(); all != 1 {
				t.Fatal("a request while stopped")
			}
		}
		n := p.count("cpu")
		p.do(chromedp.KeyEvent(" "))
		until(t, "lines after the start", func() bool { return p.count("cpu") >= n+4 }) // and a gap
		p.do(chromedp.KeyEvent(" "))
		until(t, "the end of the second stream", func() bool { _, open := r.counts(); return open == 0 })
		lines = savedLines(t, p.saved("#saveData", ".txt"), "cpu")
		at := slices.IndexFunc(lines, isGap)
		if at < 0 {
			t.Fatalf("no gap in %q", lines)
		}
		sameLines(t, "saved data before the gap", lines[:at], r.sent(0))
		sameLines(t, "saved data after the gap", lines[at+1:], r.sent(1))
	})

	t.Run("the server dies and comes back", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, base)
		p := openTab(t, tabs, r.url(), "?interval=0.1&window=60")
		p.expected = []string{`^Failed to load resource: net::ERR_`}
		until(t, "ten lines", func() bool { return p.count("cpu") >= 10 })
		r.die()
		died := time.Now()
		until(t, "the message", func() bool { return p.text("#status") == "Connection lost. Reconnecting." })
		until(t, "the age of the last reading", func() bool { return regexp.MustCompile(`^Last reading \d+s ago\. $`).MatchString(p.text("#detail")) })
		if sent := r.sent(0); !slices.ContainsFunc(sent[len(sent)-3:], func(line string) bool { return valuesOf(line) == p.newest() }) {
			t.Errorf("legend %q, not the last reading of %q", p.newest(), sent)
		}
		evaluate[bool](p, `(() => {
			const { setTimeout } = window;
			window.pauses = [];
			window.setTimeout = (act, ms, ...values) => {
				if (ms < 10_000) window.pauses.push(ms); // no timeout for a reply
				return setTimeout(act, ms, ...values);
			};
			return true;
		})()`)
		var pauses []float64
		until(t, "two pauses before an attempt to reconnect", func() bool {
			pauses = evaluate[[]float64](p, "window.pauses")
			return len(pauses) >= 2
		})
		if pauses[1] < pauses[0] {
			t.Errorf("the pauses do not grow: %v ms", pauses)
		}
		n := p.count("cpu")
		r.rise(t)
		gap := time.Since(died)
		until(t, "the reconnection", func() bool {
			return p.state() == "live" && strings.HasPrefix(p.text("#status"), "A reading every 100ms since ") && p.count("cpu") >= n+6
		})
		p.stop(r)
		lines := savedLines(t, p.saved("#saveData", ".txt"), "cpu")
		at := slices.IndexFunc(lines, isGap)
		if at < 0 || slices.ContainsFunc(lines[at+1:], isGap) {
			t.Fatalf("want one gap in %q", lines)
		}
		sameLines(t, "after the gap", lines[at+1:], r.sent(1))
		// In the picture, the gap is the longest run of pixel columns without a line
		// between the first and the last line.
		share := evaluate[float64](p, `(() => {
			const canvas = document.querySelector('canvas'), { width, height } = canvas;
			const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
			const line = getComputedStyle(document.querySelector('.legend path')).fill.match(/\d+/g).map(Number);
			const columns = Array.from({ length: width }, (_, x) => {
				for (let y = 0; y < height; y++) {
					const i = 4 * (y * width + x);
					if (data[i + 3] > 200 && line.every((v, c) => Math.abs(v - data[i + c]) < 30)) return true;
				}
				return false;
			});
			let longest = 0;
			for (let x = columns.indexOf(true), run = 0; x <= columns.lastIndexOf(true); x++) {
				run = columns[x] ? 0 : run + 1;
				longest = Math.max(longest, run);
			}
			return longest / width;
		})()`)
		if want := gap.Seconds() / 60; share < 0.6*want {
			t.Errorf("the gap takes %.2f of the width, want about %.2f", share, want)
		}
	})

	// Those that this system does not have are nan.
	t.Run("every reading", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, base)
		p := openTab(t, tabs, r.url(), "?interval=0.1&read="+strings.Join(words[:readings], ","))
		if got := evaluate[[]string](p, "[...document.querySelectorAll('#choices input')].map(box => box.value)"); !slices.Equal(got, words[:readings]) {
			t.Errorf("choices %q", got)
		}
		until(t, "three lines", func() bool { return p.count("cores") >= 3 })
		p.stop(r)
		var all []word
		var titles []string
		for w := range readings {
			all, titles = append(all, w), append(titles, table[w].title)
		}
		lines := savedLines(t, p.saved("#saveData", ".txt"), strings.Join(namesOf(2, all...), " "))
		sameLines(t, "all readings", lines, r.sent(0))
		if got, want := p.newest(), valuesOf(lines[len(lines)-1]); got != want {
			t.Errorf("legends %q, want %q", got, want)
		}
		if got := evaluate[[]string](p, "[...document.querySelectorAll('h2')].map(h => h.textContent)"); !slices.Equal(got, titles) {
			t.Errorf("titles %q, want %q", got, titles)
		}
		picture, err := png.Decode(bytes.NewReader(p.saved("#savePicture", ".png")))
		if err != nil || picture.Bounds().Dx() < 1280 || picture.Bounds().Dy() < 300*len(all) {
			t.Errorf("saved picture: %v %v", picture.Bounds(), err)
		}
	})

	for name, test := range map[string]struct {
		query string
		run   func(*testing.T, *tab, *relay)
	}{
		"geometry":         {"", testGeometry},
		"memory":           {"", testMemory},
		"logs":             {"", testLogs},
		"a log dropped":    {"?interval=0.1", testDrop},
		"frozen":           {"?interval=0.1&window=2", testFreeze},
		"several readings": {"?read=cpu,load&interval=0.1", testPanels},
		"six connections":  {"", testFull},
		"hidden":           {"?interval=0.1", testHidden},
		"failed":           {"?interval=0.1", testFailure},
		"axe-core":         {"?read=cpu,load,modes", testAxe},
		"forced colors":    {"", testForcedColors},
		"still pointer":    {"?interval=0.1", testStillPointer},
		"printed":          {"", testPrint},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, base)
			test.run(t, openTab(t, tabs, r.url(), test.query), r)
		})
	}

	// The responses are fixed.
	for name, test := range map[string]struct {
		query, instead string
		run            func(*testing.T, *tab)
	}{
		"one of several fails": {"?read=cpu,pressure", "error: pressure: none\n# time cpu pressure\n2026-01-02T15:04:05Z 50.0 nan\n", testOneFails},
		"512 CPUs":             {"?read=cores&interval=60", ofCPUs(512, 20), testManyCPUs},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, base)
			r.instead = test.instead
			test.run(t, openTab(t, tabs, r.url(), test.query))
		})
	}

	t.Run("behind nginx", func(t *testing.T) {
		t.Parallel()
		testNginx(t, tabs, base)
	})

	t.Run("64 CPUs", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, servePage(t, 64))
		p := openTab(t, tabs, r.url(), "?read=cores&interval=0.1")
		until(t, "five lines", func() bool { return p.count("cores") >= 5 })
		p.stop(r)
		var names []string
		for n := range 64 {
			names = append(names, fmt.Sprintf("cpu%d", n))
		}
		lines := savedLines(t, p.saved("#saveData", ".txt"), strings.Join(names, " "))
		sameLines(t, "64 CPUs", lines, r.sent(0))
		if got, want := p.newest(), valuesOf(lines[len(lines)-1]); got != want {
			t.Errorf("legend %q, want %q", got, want)
		}
		p.click(".legend li:nth-child(13) button")
		until(t, "cpu12 in focus", func() bool {
			return evaluate[bool](p, "document.querySelector('.legend [aria-pressed=true] .name').textContent === 'cpu12'")
		})
		// The pointer at the right end shows the newest values.
		p.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
			at := evaluate[[]float64](p, "(({ right, top, height }) => [right - 28, top + height / 2])(document.querySelector('canvas').getBoundingClientRect())")
			return chromedp.Do(ctx, chromedp.MouseEvent("mouseMoved", at[0], at[1]))
		}))
		values := strings.Fields(lines[len(lines)-1])[1:]
		hottest := 0
		for n := range values {
			a, _ := strconv.ParseFloat(values[n], 64)
			if b, _ := strconv.ParseFloat(values[hottest], 64); a > b {
				hottest = n
			}
		}
		want := fmt.Sprintf("cpu12%shighest: cpu%d%s", values[12], hottest, values[hottest])
		until(t, "the readout "+want, func() bool { return strings.Contains(p.text(".readout"), want) })
	})

	t.Run("keys and settings", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, base)
		p := openTab(t, tabs, r.url(), "?interval=500ms&window=1m")
		if got := evaluate[string](p, "document.querySelector('#interval').value + ' ' + document.querySelector('#window').value"); got != "0.5 60" {
			t.Errorf("interval and window %q", got)
		}
		until(t, "two lines", func() bool { return len(r.sent(0)) >= 2 && p.state() == "live" })
		p.do(chromedp.KeyEvent("+"))
		if got := evaluate[string](p, "location.search"); got != "?read=cpu&interval=0.5&window=30" {
			t.Errorf("address %q after +", got)
		}
		p.do(chromedp.KeyEvent("-"), chromedp.KeyEvent("-"))
		if got := evaluate[string](p, "location.search"); got != "?read=cpu&interval=0.5&window=120" {
			t.Errorf("address %q after - -", got)
		}
		p.stop(r)
		p.do(chromedp.Focus(chromedp.CSS("canvas")), chromedp.KeyEvent(kb.End))
		until(t, "the newest value, read with a key", func() bool {
			return strings.HasSuffix(evaluate[string](p, "document.querySelector('canvas').ariaValueText"), " cpu "+p.newest())
		})
		p.do(chromedp.KeyEvent(kb.Escape))
		until(t, "no readout", func() bool { return evaluate[bool](p, "document.querySelector('.readout').hidden") })
		// A reading is chosen with keys alone.
		p.do(chromedp.Focus(chromedp.CSS("[popovertarget]")), chromedp.KeyEvent(kb.Enter), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(" "))
		if got := evaluate[string](p, "location.search"); got != "?read=cpu,cores&interval=0.5&window=120" {
			t.Errorf("address %q after a choice", got)
		}
		p.do(chromedp.KeyEvent(kb.Escape))
		if !evaluate[bool](p, "document.activeElement.matches('[popovertarget]') && !document.querySelector('#choices').matches(':popover-open')") {
			t.Error("the readings are still open")
		}
		// While stopped, choosing another reading sends no request. The next start
		// opens its stream.
		p.choose("load")
		if all, _ := r.counts(); all != 1 {
			t.Error("a request while stopped")
		}
		p.click("#toggle")
		until(t, "load averages", func() bool { return len(r.sent(1)) >= 1 && p.newest() == valuesOf(r.sent(1)[len(r.sent(1))-1]) })
	})

	t.Run("light, dark and small", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, base)
		p := openTab(t, tabs, r.url(), "?read=cpu,load,pressure")
		until(t, "a line", func() bool { return p.state() == "live" })
		grounds := map[string]bool{}
		for _, scheme := range []string{"light", "dark"} {
			p.emulateMedia("prefers-color-scheme", scheme)
			grounds[evaluate[string](p, "getComputedStyle(document.body).backgroundColor")] = true
		}
		for _, size := range [][2]int64{{1280, 800}, {640, 400}, {844, 390}, {390, 844}, {320, 640}} {
			p.do(chromedp.EmulateViewport(size[0], size[1]))
			got := evaluate[[]float64](p, `(() => {
				const { width, height } = document.querySelector('#toggle').getBoundingClientRect();
				const dot = getComputedStyle(document.querySelector('#toggle'), '::before');
				const below = [...document.querySelectorAll('footer button')].map(button => button.clientHeight);
				return [document.documentElement.scrollWidth, height, parseFloat(dot.width) - parseFloat(dot.height),
					document.querySelector('canvas').clientHeight, Math.max(...below), document.querySelector('h1').clientHeight];
			})()`)
			if got[0] > float64(size[0]) || got[1] > 50 || got[2] != 0 || got[3] < 120 || got[4] > 34 || got[5] > 30 {
				t.Errorf("at %v: width of the page, height of the button, oval of its dot, height of the chart, of the buttons below, of the title: %v", size, got)
			}
			p.click("[popovertarget]")
			got = evaluate[[]float64](p, `(() => {
				const { left, top, right, bottom } = document.querySelector('#choices').getBoundingClientRect();
				return [left, top, innerWidth - right, innerHeight - bottom];
			})()`)
			if slices.Min(got) < 0 {
				t.Errorf("at %v: the readings to choose from are outside: %v", size, got)
			}
			p.do(chromedp.KeyEvent(kb.Escape))
		}
		if len(grounds) != 2 {
			t.Errorf("background colors %v", grounds)
		}
	})

	t.Run("texts are never markup", func(t *testing.T) {
		t.Parallel()
		const evil = `<img src=x onerror=document.title=1><b id=evil>`
		r := newRelay(t, base)
		p := openTab(t, tabs, r.url(), "?read="+url.QueryEscape(evil)+"&interval="+url.QueryEscape(evil)+"&window=-1")
		until(t, "the error messages", func() bool {
			text := p.text("#complaint")
			return strings.Contains(text, `Unknown reading "`+evil+`" (choose from cpu, cores,`) && strings.Contains(text, `Invalid interval "`+evil+`"`) &&
				strings.Contains(text, `Invalid window "-1"`)
		})
		r.mu.Lock()
		r.instead = "error: " + evil + "\n"
		r.mu.Unlock()
		p.click("#toggle")
		p.click("#toggle")
		until(t, "the server's error message", func() bool { return p.text("#status") == "Server: "+evil+"." })
		if evaluate[int](p, "document.querySelectorAll('img, #evil').length") != 0 {
			t.Error("text became markup")
		}
	})

	t.Run("numbers that are not known", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, base)
		r.instead = "# time cpu0 cpu1 cpu2\n2026-01-02T15:04:05Z 50.0 nan 100.0\n2026-01-02T15:04:06Z 40.0 nan nan\n"
		p := openTab(t, tabs, r.url(), "?read=cores&interval=60")
		want := [][]string{{"cpu0", "40.0", "40.0", "45.0", "50.0"}, {"cpu1", "nan", "nan", "nan", "nan"}, {"cpu2", "nan", "100.0", "100.0", "100.0"}}
		until(t, fmt.Sprintf("the legend %q", want), func() bool {
			return slices.EqualFunc(p.legend(), want, slices.Equal[[]string])
		})
		if _, end, _ := p.view(); int64(end) != time.Date(2026, 1, 2, 15, 4, 6, 0, time.UTC).UnixMilli() {
			t.Errorf("the chart ends at %v, not at the time of the server", end)
		}
		if got := savedLines(t, p.saved("#saveData", ".txt"), "cpu0 cpu1 cpu2"); !slices.Equal(got, []string{"2026-01-02T15:04:05Z 50.0 nan 100.0", "2026-01-02T15:04:06Z 40.0 nan nan"}) {
			t.Errorf("saved data %q", got)
		}
	})

	t.Run("an injected script does not run", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, base)
		p := openTab(t, tabs, r.url(), "")
		p.expected = []string{`Content Security Policy`}
		evaluate[bool](p, `(() => {
			const script = document.createElement('script');
			script.textContent = 'window.injected = true';
			document.body.append(script);
			document.body.insertAdjacentHTML('beforeend', '<img src="data:," onerror="window.injected = true">');
			return true;
		})()`)
		until(t, "two violations", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return len(p.console) >= 2 })
		if evaluate[bool](p, "window.injected === true") {
			t.Error("an injected script ran")
		}
	})
}
