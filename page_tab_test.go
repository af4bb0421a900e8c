package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// A relay stands between the browser and a listener. It counts the streams,
// keeps their lines, and can die and come back at the same address.
type relay struct {
	addr  string
	proxy *httputil.ReverseProxy

	mu      sync.Mutex
	server  *http.Server
	streams []*stream
	instead string // if not empty, the body of every stream
}

// A stream is one endless reply.
type stream struct {
	words string
	open  bool
	text  []byte
}

// streamKey is the context key for a request's stream.
type streamKey struct{}

func newRelay(t *testing.T, base string) *relay {
	t.Helper()
	target, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: "127.0.0.1:0"}
	r.proxy = &httputil.ReverseProxy{
		Rewrite:       func(p *httputil.ProxyRequest) { p.SetURL(target) },
		FlushInterval: -1,
		ModifyResponse: func(response *http.Response) error {
			if s, ok := response.Request.Context().Value(streamKey{}).(*stream); ok {
				response.Body = &recorder{response.Body, r, s}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	r.rise(t)
	t.Cleanup(r.die)
	return r
}

func (r *relay) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if !request.URL.Query().Has("interval") || request.URL.Path == "/" { // the page has an interval, too
		r.proxy.ServeHTTP(w, request)
		return
	}
	s := &stream{words: strings.TrimPrefix(request.URL.Path, "/"), open: true}
	r.mu.Lock()
	r.streams = append(r.streams, s)
	instead := r.instead
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		s.open = false
		r.mu.Unlock()
	}()
	if instead != "" {
		io.WriteString(w, instead)
		w.(http.Flusher).Flush()
		<-request.Context().Done()
		return
	}
	r.proxy.ServeHTTP(w, request.WithContext(context.WithValue(request.Context(), streamKey{}, s)))
}

// A recorder keeps what is read from a response.
type recorder struct {
	io.ReadCloser
	r *relay
	s *stream
}

func (rec *recorder) Read(p []byte) (int, error) {
	n, err := rec.ReadCloser.Read(p)
	rec.r.mu.Lock()
	rec.s.text = append(rec.s.text, p[:n]...)
	rec.r.mu.Unlock()
	return n, err
}

func (r *relay) rise(t *testing.T) {
	t.Helper()
	until(t, "listening on "+r.addr, func() bool {
		l, err := net.Listen("tcp", r.addr)
		if err != nil {
			return false
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.addr = l.Addr().String()
		r.server = &http.Server{Handler: r}
		go r.server.Serve(l)
		return true
	})
}

func (r *relay) die() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server.Close()
}

func (r *relay) url() string { return "http://" + r.addr + "/" }

// counts returns how many streams there were, and how many are open.
func (r *relay) counts() (all, open int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.streams {
		if s.open {
			open++
		}
	}
	return len(r.streams), open
}

// sent returns the whole lines of the n-th stream that are readings.
func (r *relay) sent(n int) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n >= len(r.streams) {
		return nil
	}
	lines := strings.Split(string(r.streams[n].text), "\n")
	return slices.DeleteFunc(lines[:len(lines)-1], func(line string) bool { return strings.HasPrefix(line, "#") || strings.HasPrefix(line, "error: ") })
}

// asked returns the readings of each stream.
func (r *relay) asked() (words []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.streams {
		words = append(words, s.words)
	}
	return words
}

// openBrowser starts a browser for one test. Without a browser, the test is skipped.
func openBrowser(t testing.TB) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("no Chromium in PATH")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Env("TMPDIR="+shortDir(t)), // for its socket
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		// Otherwise each window loads invisible pages for the suggestions of its
		// address bar, which cost more than the page under test.
		chromedp.Flag("disable-features", "Translate,BlinkGenPropertyTrees,WebUIOmniboxPopup,WebUIOmniboxAimPopup"),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("ignore-certificate-errors", true), // of the test behind nginx
	)
	limited, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	t.Cleanup(cancel)
	allocator, cancel := chromedp.NewExecAllocator(limited, options...)
	t.Cleanup(func() {
		cancel()
		chromedp.FromContext(allocator).Allocator.Wait()
	})
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("cannot start the browser: %v", err)
	}
	return ctx
}

// A tab shows the page. The test fails at its end for every console message that
// matches none of expected, and for every request to another server.
type tab struct {
	t         *testing.T
	ctx       context.Context
	downloads string

	mu       sync.Mutex
	console  []string
	requests []string
	expected []string // regular expressions
}

func openTab(t *testing.T, browserContext context.Context, base, query string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browserContext, chromedp.WithNewBrowserContext()) // a window of its own: hidden tabs draw nothing
	p := &tab{t: t, ctx: ctx, downloads: t.TempDir()}
	t.Cleanup(func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, message := range p.console {
			if !slices.ContainsFunc(p.expected, func(e string) bool { return regexp.MustCompile(e).MatchString(message) }) {
				t.Errorf("message in the console: %s", message)
			}
		}
		for _, url := range p.requests {
			if !strings.HasPrefix(url, base) && !regexp.MustCompile("^(data|blob):").MatchString(url) {
				t.Errorf("request to %s", url)
			}
		}
	})
	err := chromedp.Listen(ctx, func(event any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventConsoleAPICalled:
			p.console = append(p.console, fmt.Sprintf("%s call", e.Type))
		case *runtime.EventExceptionThrown:
			p.console = append(p.console, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			p.console = append(p.console, e.Entry.Text)
		case *network.EventRequestWillBeSent:
			p.requests = append(p.requests, e.Request.URL)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	allow := true
	_, err = chromedp.CallBrowser(ctx, browser.SetDownloadBehavior, browser.SetDownloadBehaviorParams{
		Behavior: "allow", BrowserContextID: chromedp.FromContext(ctx).BrowserContextID, DownloadPath: p.downloads, EventsEnabled: &allow,
	})
	if err != nil {
		t.Fatal(err)
	}
	// A window that the browser takes for hidden draws nothing.
	_, err = chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
	if err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.EmulateViewport(1280, 800), chromedp.Navigate(base+query))
	return p
}

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// evaluate evaluates JavaScript in the tab; promises are awaited.
func evaluate[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

func (p *tab) text(selector string) string {
	p.t.Helper()
	return evaluate[string](p, fmt.Sprintf("document.querySelector(%q).textContent", selector))
}

func (p *tab) state() string {
	p.t.Helper()
	return evaluate[string](p, "document.body.dataset.state")
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector)))
}

// choose selects readings, as a bookmark would name them. A pointer moves on their
// charts at once.
func (p *tab) choose(words string) {
	p.t.Helper()
	evaluate[bool](p, fmt.Sprintf(`(() => {
		for (const box of document.querySelectorAll('#choices input')) box.checked = %q.split(',').includes(box.value);
		document.querySelector('#choices').dispatchEvent(new Event('change'));
		return document.querySelector('canvas').dispatchEvent(new PointerEvent('pointermove', { clientX: 600, clientY: 300 }));
	})()`, words))
}

// inPage evaluates JavaScript that uses what the page's modules export.
func inPage[T any](p *tab, body string) T {
	p.t.Helper()
	return evaluate[T](p, `(async () => {
		const load = name => import(new URL('page/' + name + '.js', document.baseURI));
		const [page, { formOf, layout, runs, layers, spans, locate, columnAt }, { Recording, Samples }, { linesOf, readLog }, { describe }] =
			await Promise.all(['page', 'chart', 'samples', 'save', 'readings'].map(load));
		`+body+`
	})()`)
}

// count returns how many samples of a reading the page has.
func (p *tab) count(word string) int {
	p.t.Helper()
	return inPage[int](p, fmt.Sprintf("return page.live.of(%q).count", word))
}

// legend returns the texts of the legends: name, newest, min, avg and max.
func (p *tab) legend() [][]string {
	p.t.Helper()
	return evaluate[[][]string](p, `[...document.querySelectorAll('.legend button')].map(b => [b.querySelector('.name').textContent, b.querySelector('.now').textContent,
		...['min', 'avg', 'max'].map(name => b.querySelector('.' + name).lastChild.data)])`)
}

// newest returns the newest values in the legend, as a line.
func (p *tab) newest() string {
	p.t.Helper()
	var values []string
	for _, entry := range p.legend() {
		values = append(values, entry[1])
	}
	return strings.Join(values, " ")
}

// emulateMedia sets a media feature, and only that.
func (p *tab) emulateMedia(name, value string) {
	p.t.Helper()
	p.do(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: name, Value: value}},
		})
		return err
	}))
}

// stop presses the button and waits until the server has no open stream.
func (p *tab) stop(r *relay) {
	p.t.Helper()
	p.click("#toggle")
	until(p.t, "the end of the stream", func() bool { _, open := r.counts(); return open == 0 })
}

// saved presses a button and returns the file that it saves. If there is none
// for a while, the click went past the button, which had moved, and is repeated.
func (p *tab) saved(button, suffix string) []byte {
	p.t.Helper()
	var file []byte
	before, _ := filepath.Glob(filepath.Join(p.downloads, "*"+suffix))
	p.click(button)
	clicked := time.Now()
	until(p.t, "a file saved by "+button, func() bool {
		names, _ := filepath.Glob(filepath.Join(p.downloads, "*"+suffix))
		for _, name := range names {
			if !slices.Contains(before, name) {
				file, _ = os.ReadFile(name)
			}
		}
		if len(file) == 0 && time.Since(clicked) > 10*time.Second {
			p.click(button)
			clicked = time.Now()
		}
		return len(file) > 0
	})
	return file
}

// savedLines returns the lines of saved data.
func savedLines(t *testing.T, file []byte, columns string) (lines []string) {
	t.Helper()
	head, rest, _ := strings.Cut(string(file), "\n")
	if head != "# time "+columns {
		t.Errorf("the first line of the saved data is %q", head)
	}
	var before time.Time
	for line := range strings.Lines(rest) {
		line = strings.TrimSuffix(line, "\n")
		stamp, values, _ := strings.Cut(line, " ")
		at, err := time.Parse(time.RFC3339, stamp)
		if err != nil || at.Before(before) || values == "" {
			t.Fatalf("line %q in the saved data, after %v", line, before)
		}
		before = at
		lines = append(lines, line)
	}
	return lines
}

// valuesOf returns a line without its time.
func valuesOf(line string) string {
	_, values, _ := strings.Cut(line, " ")
	return values
}

// isGap reports whether all values of a line are nan.
func isGap(line string) bool { return strings.Trim(valuesOf(line), "an ") == "" }
