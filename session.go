package main

import (
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
	maxReply  = 16 << 10               // bytes of answers that wait to leave together
	stuckTime = 10 * time.Second       // how long a client may leave its answers unread
	leaveTime = 400 * time.Millisecond // for what is to be read or written in the end
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

// errHTTP says that a session is none, since its client speaks HTTP.
var errHTTP = errors.New("speaks HTTP")

// methods are those of HTTP. No word begins with a capital letter, so a client
// that begins with one of these and a space is no client of ours.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"}

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

// hangUp closes conn so that the last answer arrives: closing with input unread
// resets a TCP connection, and the reset can overtake the answer.
func hangUp(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(leaveTime))
		io.CopyN(io.Discard, conn, 64<<10)
	}
	conn.Close()
}
