package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxToken  = 64                     // bytes with no word and no newline that end a session
	maxReply  = 16 << 10               // bytes of replies that wait to leave together
	stuckTime = 10 * time.Second       // how long a client may leave its replies unread
	leaveTime = 400 * time.Millisecond // for what is to be read or written in the end
)

// methods are those of HTTP.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"}

// speaksHTTP says whether a client is one of HTTP, by the first bytes that it
// sends: a method and a space. No word begins with a capital letter, so they are
// decided with the first byte that differs.
func speaksHTTP(begin []byte) (http, decided bool) {
	method, _, ended := bytes.Cut(begin, []byte(" "))
	for _, m := range methods {
		switch {
		case ended && m == string(method):
			return true, true
		case !ended && strings.HasPrefix(m, string(begin)):
			return false, false
		}
	}
	return false, true
}

// errHTTP says that a conversation is one in HTTP.
var errHTTP = errors.New("speaks HTTP")

// errSilent is why a client is let go that says nothing for too long.
var errSilent = errors.New("idle")

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
	return fmt.Errorf("unknown word %q (known: %s)", s.token[:s.n], strings.Join(words[:], ", "))
}

// full says that the client sent as much without a word as it may.
func (s *scanner) full() bool { return s.n == maxToken }

// A session replies to one client. Its intervals are its own: a reply covers
// the time since this session last replied to the same word.
type session struct {
	sampler *sampler
	idle    time.Duration        // how long the client may send nothing; 0: forever
	http    bool                 // HTTP is told from words
	trace   func(request string) // is told every request; nil when nobody listens

	begun   []byte // what was read of HTTP
	scan    scanner
	last    [readings]reply
	asked   [readings]int
	scrapes int // of the metrics
	unsent  []byte
	ended   bool      // the client ended its input
	stuckAt time.Time // the deadline of writes
}

// A reply is the line that a word got, and the sample where its interval ends.
type reply struct {
	line []byte
	end  *sample
}

// serve replies to the words that arrive on conn, and closes it in the end.
func (s *session) serve(ctx context.Context, conn net.Conn) error {
	err := s.converse(ctx, conn)
	switch {
	case err == errHTTP:
	case s.ended: // then nothing is unread
		conn.Close()
	default:
		hangUp(conn)
	}
	return err
}

// converse replies to the words that arrive on conn until the client says bye,
// ends its input or is gone, or ctx is done. What one read brings is replied to
// with one write. The error says why conn had to be closed; errHTTP says that
// the client speaks HTTP, of which s.begun has what was read.
func (s *session) converse(ctx context.Context, conn net.Conn) error {
	// Reading stops at once; a reply under way is finished, and soon.
	defer context.AfterFunc(ctx, func() {
		conn.SetReadDeadline(time.Now())
		conn.SetWriteDeadline(time.Now().Add(leaveTime))
	})()
	var in [512]byte
	kept, undecided := 0, s.http
	for {
		n, readErr := s.listen(ctx, conn, in[kept:])
		got := in[:kept+n]
		if undecided && n > 0 {
			http, decided := speaksHTTP(got)
			if http {
				s.begun = slices.Clone(got)
				return errHTTP
			}
			undecided = !decided
		}
		if kept = len(got); undecided && readErr == nil {
			continue
		}
		kept = 0
		open, err := s.take(ctx, conn, got)
		if readErr == io.EOF {
			s.ended = open
			s.refuse(s.scan.end())
		}
		if err = cmp.Or(err, s.flush(ctx, conn)); err != nil {
			return err
		}
		if !open || readErr != nil {
			return s.ending(ctx, readErr)
		}
	}
}

// listen reads what the client sends, for no longer than it may be silent.
func (s *session) listen(ctx context.Context, conn net.Conn, in []byte) (int, error) {
	if s.idle > 0 {
		conn.SetReadDeadline(time.Now().Add(s.idle))
		if ctx.Err() != nil { // then the deadline of converse may have come first
			return 0, ctx.Err()
		}
	}
	return conn.Read(in)
}

// ending says whether there is something wrong with the end of a conversation
// for which reading gave err.
func (s *session) ending(ctx context.Context, err error) error {
	switch {
	case err == io.EOF, ctx.Err() != nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w for %v", errSilent, s.idle)
	}
	return err
}

// take adds what the bytes call for to the replies, and says whether the
// session goes on.
func (s *session) take(ctx context.Context, conn net.Conn, bytes []byte) (open bool, err error) {
	for _, b := range bytes {
		w, wrong := s.scan.next(b)
		s.refuse(wrong)
		if w == noWord {
			if s.scan.full() {
				return false, nil
			}
			continue
		}
		if s.trace != nil {
			s.trace(strconv.Quote(w.String()))
		}
		if w == byeWord {
			return false, nil
		}
		s.answer(ctx, w)
		if len(s.unsent) > maxReply {
			if err := s.flush(ctx, conn); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// refuse adds an error line to the replies, unless err is nil.
func (s *session) refuse(err error) {
	if err == nil {
		return
	}
	if s.trace != nil {
		s.trace(err.Error())
	}
	s.unsent = fmt.Appendf(s.unsent, "error: %v\n", err)
}

// answer adds the reply to w. For 100 ms, less the tick by which a client may be
// early, that is the line that w got before: the counters are too coarse for
// shorter intervals.
func (s *session) answer(ctx context.Context, w word) {
	last := &s.last[w]
	if last.end == nil || time.Since(last.end.at) >= minWindow-tick {
		if err := s.read(ctx, w, last); err != nil {
			s.refuse(err)
			return
		}
	}
	s.asked[w]++
	s.sampler.replies[w].Add(1)
	s.unsent = append(s.unsent, last.line...)
}

// read makes the line that w reads since its last reply, or else since what the
// sampler has for a first one.
func (s *session) read(ctx context.Context, w word, last *reply) error {
	begin := last.end
	if begin == nil && w.source() != averages {
		if begin = s.sampler.baseline(ctx, w.source()); begin.err != nil {
			return begin.err
		}
	}
	end := s.sampler.sample(ctx, w.source())
	if end.err != nil {
		return end.err
	}
	last.line = append(appendReading(last.line[:0], w, begin, end), '\n')
	last.end = end
	return nil
}

// flush writes the replies. A client that does not read them in time is cut off,
// with no more of them kept in the kernel's buffers.
func (s *session) flush(ctx context.Context, conn net.Conn) error {
	if len(s.unsent) == 0 {
		return nil
	}
	// Once a second is enough: to set a deadline costs as much as the reply.
	if now := time.Now(); s.stuckAt.Sub(now) < stuckTime {
		s.stuckAt = now.Add(stuckTime + time.Second)
		conn.SetWriteDeadline(s.stuckAt)
		if ctx.Err() != nil { // then the deadline of converse may have come first
			conn.SetWriteDeadline(now.Add(leaveTime))
		}
	}
	_, err := conn.Write(s.unsent)
	if tcp, ok := conn.(*net.TCPConn); ok && errors.Is(err, os.ErrDeadlineExceeded) {
		tcp.SetLinger(0)
		tcp.Close()
	}
	if s.unsent = s.unsent[:0]; cap(s.unsent) > 1<<10 {
		s.unsent = nil // an exception, not to be held until the next one
	}
	return err
}

// requests says how often each word was asked for.
func (s *session) requests() string {
	var counts []string
	for w, n := range s.asked {
		if n > 0 {
			counts = append(counts, fmt.Sprintf("%s=%d", words[w], n))
		}
	}
	if s.scrapes > 0 {
		counts = append(counts, fmt.Sprintf("metrics=%d", s.scrapes))
	}
	if len(counts) == 0 {
		return "0 requests"
	}
	return "requests: " + strings.Join(counts, " ")
}

// hangUp closes conn so that the last reply arrives: closing with input unread
// resets a TCP connection, and the reset can overtake the reply.
func hangUp(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(leaveTime))
		io.CopyN(io.Discard, conn, 64<<10)
	}
	conn.Close()
}
