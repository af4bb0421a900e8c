package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxToken  = 64                     // bytes with no word and no newline that end a session
	maxReply  = 16 << 10               // bytes of answers that wait to leave together
	stuckTime = 10 * time.Second       // how long a client may leave its answers unread
	leaveTime = 400 * time.Millisecond // for what is to be read or written in the end

	maxRefusals = 100 // being explained at once
)

const noWord word = -1

// A scanner finds the words in what a client sends. It takes one byte after
// the other, so how they were cut into packets cannot matter.
type scanner struct {
	token [maxToken]byte // what came since the last word or newline
	n     int
	skip  bool // the token had its error; the rest of its line is dropped
}

// next takes one byte and gives the word that it completes, or an error when
// it ends something that is no word.
func (s *scanner) next(b byte) (word, error) {
	blank := b == ' ' || b == '\t' || b == '\r' || b == '\n'
	var err error
	if blank {
		err = s.end()
	}
	if b == '\n' {
		s.n, s.skip = 0, false
		return noWord, err
	}
	if blank && s.n == 0 {
		return noWord, nil
	}
	s.token[s.n] = b
	s.n++
	if !s.skip {
		for w, name := range words {
			if string(s.token[:s.n]) == name {
				s.n = 0
				return word(w), nil
			}
		}
	}
	if s.full() {
		return noWord, cmp.Or(err, s.end())
	}
	return noWord, err
}

// end is the end of a token: white space, too many bytes, or the end of input.
// It gives the error that the client has yet to be told.
func (s *scanner) end() error {
	if s.n == 0 || s.skip {
		return nil
	}
	s.skip = true
	return fmt.Errorf("unknown word %q (there are %s)", s.token[:s.n], strings.Join(words[:], ", "))
}

// full says that the client sent as much without a word as it may.
func (s *scanner) full() bool { return s.n == maxToken }

// A session answers one client. Its intervals are its own: an answer covers the
// time since this session was last answered the same word.
type session struct {
	sampler *sampler
	scan    scanner
	last    [readings]answer
	asked   [readings]int
	reply   []byte
	web     bool                 // HTTP is told from words
	taken   int                  // bytes, while they may be the beginning of HTTP
	head    []byte               // what was read of HTTP
	scrapes int                  // of the metrics
	stuckAt time.Time            // the deadline of writes
	silence time.Duration        // how long the client may send nothing; 0: for ever
	trace   func(request string) // is told every request; nil when nobody listens
}

// An answer is the line that a word got, and the sample where its interval ends.
type answer struct {
	line []byte
	end  *sample
}

// serve answers the words that arrive on conn, and closes it in the end.
func (s *session) serve(ctx context.Context, conn net.Conn) error {
	err := s.converse(ctx, conn)
	if err != errHTTP {
		hangUp(conn)
	}
	return err
}

// errSilent is why a client is let go that says nothing for too long.
var errSilent = errors.New("silent")

// converse answers the words that arrive on conn until the client says bye,
// ends its input or is gone, or ctx is done. What one read brings is answered
// with one write. The error says why conn had to be closed; errHTTP says that
// the client speaks HTTP, of which s.head has what was read.
func (s *session) converse(ctx context.Context, conn net.Conn) error {
	// Reading stops at once; an answer under way is finished, and soon.
	defer context.AfterFunc(ctx, func() {
		conn.SetReadDeadline(time.Now())
		conn.SetWriteDeadline(time.Now().Add(leaveTime))
	})()
	var in [512]byte
	for open := true; open; {
		if s.silence > 0 {
			conn.SetReadDeadline(time.Now().Add(s.silence))
			if ctx.Err() != nil { // then the deadline above may have come first
				return nil
			}
		}
		n, readErr := conn.Read(in[:])
		for i := 0; open && i < n; i++ {
			if open = s.take(in[i]); s.head != nil {
				return s.handOver(in[i+1 : n])
			}
			if len(s.reply) > maxReply {
				if err := s.flush(ctx, conn); err != nil {
					return err
				}
			}
		}
		if readErr == io.EOF {
			s.refuse(s.scan.end())
		}
		if err := s.flush(ctx, conn); err != nil {
			return err
		}
		switch {
		case readErr == nil:
		case readErr == io.EOF || ctx.Err() != nil:
			return nil
		case errors.Is(readErr, os.ErrDeadlineExceeded):
			return fmt.Errorf("%w for %v", errSilent, s.silence)
		default:
			return readErr
		}
	}
	return nil
}

// take takes one byte, adds what it calls for to the reply, and says whether
// the session goes on.
func (s *session) take(b byte) bool {
	if s.web && s.isHTTP(b) {
		return false
	}
	w, err := s.scan.next(b)
	s.refuse(err)
	if w == noWord {
		return !s.scan.full()
	}
	if s.trace != nil {
		s.trace(strconv.Quote(w.String()))
	}
	if w == byeWord {
		return false
	}
	s.answer(w)
	return true
}

// isHTTP says whether b is the space behind a method that the connection began
// with.
func (s *session) isHTTP(b byte) bool {
	if s.taken > maxToken {
		return false
	}
	begin := s.scan.token[:s.scan.n]
	if b == ' ' && s.taken == len(begin) && slices.Contains(methods, string(begin)) {
		s.head = append(slices.Clone(begin), b)
		return true
	}
	s.taken++
	return false
}

// handOver ends a session that is none; rest is what was read with its head.
//
//go:noinline // inlined, it would add to the stack that each session keeps
func (s *session) handOver(rest []byte) error {
	s.head = append(s.head, rest...)
	return errHTTP
}

// refuse adds an error line to the reply, unless err is nil.
func (s *session) refuse(err error) {
	if err == nil {
		return
	}
	if s.trace != nil {
		s.trace(err.Error())
	}
	s.reply = fmt.Appendf(s.reply, "error: %v\n", err)
}

// answer adds the answer to w to the reply. For 100 ms, less the tick by which
// a client may be early, that is the line that w got before: the counters are
// too coarse for shorter intervals.
func (s *session) answer(w word) {
	last := &s.last[w]
	if last.line == nil {
		// Here and not where it is written: so much deeper, an allocation makes
		// the stack grow, of every session and for good.
		last.line = make([]byte, 0, 16)
	}
	if last.end == nil || time.Since(last.end.at) >= minWindow-tick {
		end, err := s.read(w, last)
		if err != nil {
			s.refuse(err)
			return
		}
		last.end = end
	}
	s.asked[w]++
	s.sampler.answers[w].Add(1)
	s.reply = append(s.reply, last.line...)
}

// read makes the line that w reads since its last answer, or else since the
// sampler's history begins; a history younger than 100 ms it waits for.
func (s *session) read(w word, last *answer) (end *sample, err error) {
	begin := last.end
	if begin == nil && w.source() != averages {
		begin = s.sampler.since(w.source())
		if begin.err != nil {
			return nil, begin.err
		}
		time.Sleep(minWindow - time.Since(begin.at))
	}
	end = s.sampler.now(w.source())
	if end.err != nil {
		return nil, end.err
	}
	last.line = append(appendReading(last.line[:0], w, begin, end), '\n')
	if len(last.line) == 1 {
		last.end = nil // to begin anew
		return nil, errors.New("read CPU counters: every CPU is another one than before")
	}
	return end, nil
}

// flush writes the reply. A client that does not read it in time is cut off,
// with no more of it kept in the kernel's buffers.
func (s *session) flush(ctx context.Context, conn net.Conn) error {
	if len(s.reply) == 0 {
		return nil
	}
	// Once a second is enough: to set a deadline costs as much as the answer.
	if now := time.Now(); s.stuckAt.Sub(now) < stuckTime {
		s.stuckAt = now.Add(stuckTime + time.Second)
		conn.SetWriteDeadline(s.stuckAt)
		if ctx.Err() != nil { // then the deadline of serve may have come first
			conn.SetWriteDeadline(now.Add(leaveTime))
		}
	}
	_, err := conn.Write(s.reply)
	if tcp, ok := conn.(*net.TCPConn); ok && errors.Is(err, os.ErrDeadlineExceeded) {
		tcp.SetLinger(0)
		tcp.Close()
	}
	if s.reply = s.reply[:0]; cap(s.reply) > 1<<10 {
		s.reply = nil // an exception, not to be held until the next one
	}
	return err
}

// hangUp closes conn so that the last answer arrives: closing with input unread
// resets a TCP connection, and the reset can overtake the answer.
func hangUp(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(leaveTime))
		io.CopyN(io.Discard, conn, 64<<10)
	}
	conn.Close()
}

// testOnlyListening is told the address when the listener is ready.
var testOnlyListening = func(net.Addr) {}

// listen serves this machine's readings at addr until ctx is done.
func listen(ctx context.Context, opt *options, addr address) error {
	srv := &server{
		sampler:  newSampler(),
		verbose:  opt.verbose,
		once:     opt.once,
		silence:  opt.silence,
		allow:    opt.allow,
		maxConns: int32(min(opt.maxConns, math.MaxInt32)),
	}
	var ln net.Listener
	if addr.network != stdio {
		var err error
		if ln, err = addr.listen(ctx); err != nil {
			return fmt.Errorf("listen %s: %w", addr, cause(err))
		}
		log.Print("listening on ", quoteOdd(ln.Addr().String()), addr.reachable(ln.Addr()))
	}
	if err := srv.sampler.remember(); err != nil && addr.network != stdio {
		log.Print(err) // the words that need no counters are served all the same
	}
	// The heap is mostly connections, which stay. What comes and goes is little,
	// so collecting it often costs less than room for it beside them.
	debug.SetGCPercent(20)

	srv.web = newWeb(srv, addr.host)
	background, stop := context.WithCancel(ctx)
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer stop()
	helpers.Go(func() { srv.sampler.run(background) })
	helpers.Go(func() { srv.web.run(background) })

	if addr.network == stdio {
		srv.serving.Add(1)
		srv.running.Add(1)
		conn := newDuplex(os.Stdin, os.Stdout, addr.String())
		err := srv.attend(ctx, conn)
		srv.running.Wait() // it may have become HTTP
		switch {
		case errors.Is(err, errSilent): // no failure, as little as over a network
			err = nil
		case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil: // it was not to wait longer
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded): // waited for already
			return stdoutError(err)
		}
		return cmp.Or(stdoutError(conn.flush(ctx)), err)
	}
	testOnlyListening(ln.Addr())
	return srv.serve(ctx, ln)
}

func (a address) listen(ctx context.Context) (net.Listener, error) {
	if a.network == socket {
		return listenUnix(a.host)
	}
	if ip, err := netip.ParseAddr(a.host); err == nil && ip.Is4() && a.network == "tcp" {
		a.network = "tcp4" // tcp takes 0.0.0.0 for IPv6 too
	}
	return (&net.ListenConfig{KeepAliveConfig: testOnlyAlive}).Listen(ctx, a.network, a.String())
}

// testOnlyAlive is how a peer that vanished is found out: after half a minute.
var testOnlyAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// A unixListener removes its socket, if it is still the one at path, when it
// is closed.
type unixListener struct {
	*net.UnixListener
	path   string
	socket os.FileInfo
}

// listenUnix listens on a socket at path that is for its owner alone. It
// replaces one that nobody answers on.
func listenUnix(path string) (net.Listener, error) {
	if old, err := os.Lstat(path); err == nil && old.Mode().Type() != os.ModeSocket {
		return nil, errors.New("is there already, and no socket")
	}
	for _, kind := range []string{"unix", "unixgram", "unixpacket"} {
		conn, err := net.DialTimeout(kind, path, time.Second)
		if err == nil {
			conn.Close()
		}
		busy, ok := err.(net.Error)
		switch {
		case err == nil, ok && busy.Timeout():
			return nil, errors.New("address already in use")
		case errors.Is(err, os.ErrPermission):
			return nil, err
		case kind == "unix" && errors.Is(err, syscall.EINVAL): // nobody could dial it
			return nil, syscall.ENAMETOOLONG
		}
	}
	// In a folder of its own nobody can connect before the mode is set, and
	// its new name replaces an old socket without a moment in between.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".cpunc")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	hidden := filepath.Join(dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: hidden, Net: "unix"})
	if errors.Is(err, syscall.EINVAL) { // since it is a little longer than path
		err = syscall.ENAMETOOLONG
	}
	if err != nil {
		return nil, err
	}
	l := &unixListener{UnixListener: ln, path: path}
	if err = os.Chmod(hidden, 0o600); err == nil {
		if l.socket, err = os.Lstat(hidden); err == nil {
			err = os.Rename(hidden, path)
		}
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return l, nil
}

func (l *unixListener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

func (l *unixListener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.socket) {
		os.Remove(l.path)
	}
	return l.UnixListener.Close()
}

// reachable names this host and its addresses, when what a is bound to means all
// of them, or all of a family.
func (a address) reachable(at net.Addr) string {
	bound, ok := at.(*net.TCPAddr)
	if !ok || !bound.IP.IsUnspecified() {
		return ""
	}
	var text strings.Builder
	if name, err := os.Hostname(); err == nil {
		fmt.Fprintf(&text, ", this host is %s", name)
	}
	both := a.network == "tcp" && runtime.GOOS != "openbsd" // the IPv6 socket is IPv4's, too
	all, _ := net.InterfaceAddrs()
	for _, one := range all {
		ip, ok := one.(*net.IPNet)
		if !ok || !ip.IP.IsGlobalUnicast() {
			continue
		}
		if is4, bound4 := ip.IP.To4() != nil, bound.IP.To4() != nil; is4 == bound4 || is4 && both {
			fmt.Fprintf(&text, " %s", ip.IP)
		}
	}
	return text.String()
}

// A server answers every connection to one listener.
type server struct {
	sampler  *sampler
	verbose  int
	once     bool
	silence  time.Duration
	allow    prefixes
	maxConns int32
	web      *web // nil where HTTP is not spoken

	running  sync.WaitGroup
	serving  atomic.Int32 // connections
	refusals atomic.Int32 // that are being explained
}

// serve accepts connections, each with a goroutine of its own, until ctx is
// done, and returns when the last of them has ended.
func (srv *server) serve(ctx context.Context, ln net.Listener) error {
	defer srv.running.Wait()
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()

	var pause time.Duration
	var said time.Time
	for {
		var conn net.Conn
		err := room(2) // for a connection and, beside it, for reading the counters
		if err == nil {
			conn, err = ln.Accept()
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if conn != nil {
				conn.Close()
			}
			return nil
		}
		if err != nil { // out of descriptors, or the client was gone already
			if now := time.Now(); now.Sub(said) > time.Minute {
				log.Printf("accept: %v; waiting", cause(err))
				said = now
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		if !srv.allow.admit(conn.RemoteAddr()) {
			if srv.verbose > 0 {
				log.Printf("%s: not allowed", conn.RemoteAddr())
			}
			conn.Close()
			continue
		}
		if srv.serving.Load() >= srv.maxConns {
			srv.refuse(conn)
			continue
		}
		srv.serving.Add(1)
		srv.running.Add(1)
		go srv.attend(ctx, conn)
		if srv.once {
			return nil
		}
	}
}

// room gives EMFILE unless this process may have n more descriptors.
func room(n int) error {
	for range n {
		f, err := os.Open(os.DevNull)
		if errors.Is(err, syscall.EMFILE) {
			return err
		}
		defer f.Close()
	}
	return nil
}

// refuse tells a client that there are too many, unless too many are being told.
func (srv *server) refuse(conn net.Conn) {
	if srv.verbose > 0 {
		log.Printf("%s: one more than %d connections", conn.RemoteAddr(), srv.maxConns)
	}
	if srv.refusals.Add(1) > maxRefusals {
		srv.refusals.Add(-1)
		conn.Close()
		return
	}
	srv.running.Go(func() {
		defer srv.refusals.Add(-1)
		conn.SetWriteDeadline(time.Now().Add(leaveTime))
		fmt.Fprintf(conn, "error: more than %d connections\n", srv.maxConns)
		hangUp(conn)
	})
}

// attend is the goroutine of one connection. It is started as it is, since
// each function around it would cost stack, and just that much too much.
func (srv *server) attend(ctx context.Context, conn net.Conn) error {
	s := &session{sampler: srv.sampler, silence: srv.silence, web: srv.web != nil}
	var err error
	if srv.verbose > 0 {
		err = srv.tell(ctx, conn, s)
	} else {
		err = s.converse(ctx, conn)
	}
	if err == errHTTP {
		srv.web.take(conn, s, func() { srv.left(conn, s, nil) })
		return nil
	}
	hangUp(conn)
	srv.left(conn, s, err)
	return err
}

// left counts a connection out.
func (srv *server) left(conn net.Conn, s *session, err error) {
	if srv.verbose > 0 {
		end := "closed"
		if err != nil {
			end = "cut off: " + cause(err).Error()
		}
		log.Printf("%s: %s, asked%s", clientOf(conn), end, s.requests())
	}
	srv.serving.Add(-1)
	srv.running.Done()
}

// tell serves one connection, and logs that it came and, with -vv, what it asks.
func (srv *server) tell(ctx context.Context, conn net.Conn, s *session) error {
	client := clientOf(conn)
	log.Printf("%s: connected", client)
	if srv.verbose > 1 {
		s.trace = func(request string) { log.Printf("%s: %s", client, request) }
	}
	return s.converse(ctx, conn)
}

// clientOf names the other end of conn.
func clientOf(conn net.Conn) string {
	if name := conn.RemoteAddr().String(); name != "" && name != "@" {
		return quoteOdd(name)
	}
	return "unix socket"
}

// requests says how often each word was asked for.
func (s *session) requests() string {
	var text strings.Builder
	for w, n := range s.asked {
		if n > 0 {
			fmt.Fprintf(&text, " %d %s", n, words[w])
		}
	}
	if s.scrapes > 0 {
		fmt.Fprintf(&text, " %d metrics", s.scrapes)
	}
	return cmp.Or(text.String(), " nothing")
}
