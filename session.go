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
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	maxUnsent       = 4 << 10 // bytes of replies, after which they are written
	minSocketBuffer = 2 << 10 // bytes that a socket always takes
)

// A session replies to one client. Each reply covers the time since this
// session's previous reply to the same word.
type session struct {
	sampler *sampler
	idle    time.Duration        // limit for an idle client; 0: none
	trace   func(request string) // called with every request; nil if they are not logged

	in      [512]byte // input of one read
	scan    scanner
	begun   []byte // input that is HTTP
	last    [requests]reply
	asked   [requests]int
	scrapes int // number of requests for the metrics
	unsent  []byte
	written int // bytes
}

// A reply is the latest line for a word, and the sample at the end of its
// interval.
type reply struct {
	line   []byte
	sample *sample
}

// serve replies to the words that arrive on conn until the client says bye, ends
// its input or disconnects, or ctx is done, and then closes conn. The error is
// why conn had to be closed. If it is errHTTP, the client speaks HTTP, conn is
// still open, and s.begun holds what was read.
func (s *session) serve(ctx context.Context, conn net.Conn) error {
	defer s.sampler.peaks.leave(s)
	// Reading stops at once. A reply in progress may finish within grace.
	stop := context.AfterFunc(ctx, func() {
		conn.SetReadDeadline(time.Now())
		conn.SetWriteDeadline(time.Now().Add(grace))
	})
	var err error
	for err == nil {
		err = s.exchange(ctx, conn)
	}
	stop()
	switch {
	case err == errHTTP:
		return err
	case err == io.EOF: // then no input is unread
		conn.Close()
	default:
		lingerClose(conn)
	}
	if err == io.EOF || err == errEnd || isReset(err) || ctx.Err() != nil { // health checks reset connections instead of closing them
		return nil
	}
	return err
}

// exchange reads once, and replies to the words in that with one write. The
// error is why the session ends.
func (s *session) exchange(ctx context.Context, conn net.Conn) error {
	n, readErr := s.receive(ctx, conn)
	err := s.process(ctx, conn, s.in[:n])
	if err == errHTTP {
		return err
	}
	if readErr == io.EOF {
		s.refuse(s.scan.finish())
	}
	return cmp.Or(s.flush(ctx, conn), err, readErr)
}

// receive reads what the client sends, until it has been idle for too long.
func (s *session) receive(ctx context.Context, conn net.Conn) (int, error) {
	if s.idle == 0 {
		return conn.Read(s.in[:])
	}
	deadline := time.Now().Add(s.idle)
	conn.SetReadDeadline(deadline)
	if ctx.Err() != nil { // its end may have set a deadline before
		conn.SetReadDeadline(time.Now())
	}
	n, err := conn.Read(s.in[:])
	switch {
	case n > 0 || !errors.Is(err, os.ErrDeadlineExceeded):
		return n, err
	case time.Since(deadline) > brief && ctx.Err() == nil:
		return s.receive(ctx, conn) // this process was stopped, and the client may have sent something meanwhile
	}
	return 0, fmt.Errorf("idle for %v", s.idle)
}

// process adds replies to the words in the input. The error is errEnd if the
// client ends the session. If it is errHTTP, s.begun holds the input.
func (s *session) process(ctx context.Context, conn net.Conn, input []byte) error {
	for i, b := range input {
		switch w, err := s.scan.next(b); {
		case err == errHTTP:
			s.begun = append([]byte(s.scan.text()+" "), input[i+1:]...)
			return err
		case err == errMark:
			s.unsent = append(s.unsent, telnetIAC, telnetWill, telnetMark)
		case err != nil:
			s.refuse(err)
		case w == byeWord:
			s.note(strconv.Quote(w.String()))
			return errEnd
		case w != noWord:
			if bytes.Contains(input[i+1:], []byte(words[peakWord])) {
				s.read(ctx, peakWord) // may wait for a second, and all words are to cover the same time
			}
			s.answer(ctx, w)
		}
		if s.scan.full() {
			return errEnd
		}
		if len(s.unsent) > maxUnsent {
			if err := s.flush(ctx, conn); err != nil {
				return err
			}
		}
	}
	return nil
}

// refuse adds an error line to the replies, unless err is nil.
func (s *session) refuse(err error) {
	if err == nil {
		return
	}
	s.note(err.Error())
	s.unsent = fmt.Appendf(s.unsent, "error: %v\n", err)
}

// note logs a request or an error of the client, with -vv.
func (s *session) note(text string) {
	if s.trace != nil {
		s.trace(text)
	}
}

// answer adds the reply to w.
func (s *session) answer(ctx context.Context, w word) {
	s.note(strconv.Quote(w.String()))
	line, err := s.reply(ctx, w)
	s.refuse(err)
	s.unsent = append(s.unsent, line...)
}

// reply returns the reply to w, which is valid until the next one.
func (s *session) reply(ctx context.Context, w word) (line []byte, err error) {
	if err := s.read(ctx, w); err != nil {
		return nil, err
	}
	s.asked[w]++
	s.sampler.replies[w].Add(1)
	return s.last[w].line, nil
}

// read reads w for the time since its previous reply or, for a first reply,
// since the baseline of the sampler. Within 100 ms, minus the jiffy by which a
// client may be early, the reply stays as it is, because the counters are too
// coarse for shorter intervals.
func (s *session) read(ctx context.Context, w word) error {
	last := &s.last[w]
	if last.sample != nil && time.Since(last.sample.at) < minWindow-jiffy {
		return nil
	}
	var notBefore *sample
	switch w {
	case meanWord:
		s.sampler.wantMean(ctx)
	case peakWord:
		if notBefore = s.sampler.wantPeak(ctx, s); notBefore.err != nil {
			return notBefore.err
		}
	}
	begin, minFirst := last.sample, s.sampler.minFirst
	if begin != nil && begin.usage != nil && !s.sampler.sample(ctx, groups).isOfGroup(begin) {
		// The service was restarted. Its first reply need not cover the interval of a
		// client, which does not wait for that.
		begin, minFirst = nil, min(minFirst, firstWindow)
	}
	if begin == nil && !table[w].instant {
		if begin = s.sampler.baseline(ctx, table[w].source, notBefore, minFirst); begin.err != nil {
			return begin.err
		}
	}
	end := s.sampler.sample(ctx, table[w].source)
	if end.err != nil {
		return end.err
	}
	last.line = append(s.sampler.appendReading(last.line[:0], w, begin, end), '\n')
	last.sample = end
	return nil
}

// flush writes the replies. If the client does not read them in time, flush
// resets the connection, so that the kernel drops what it has buffered.
func (s *session) flush(ctx context.Context, conn net.Conn) error {
	if len(s.unsent) == 0 {
		return nil
	}
	// Without a deadline for what every socket takes, a connection for one reading
	// costs 7 % less CPU time.
	s.written += len(s.unsent)
	if _, isSocket := conn.(syscall.Conn); !isSocket || s.written > minSocketBuffer {
		conn.SetWriteDeadline(time.Now().Add(stuckTime))
		if ctx.Err() != nil { // its end may have set a deadline before
			conn.SetWriteDeadline(time.Now().Add(grace))
		}
	}
	_, err := conn.Write(s.unsent)
	if tcp, ok := conn.(*net.TCPConn); ok && errors.Is(err, os.ErrDeadlineExceeded) {
		tcp.SetLinger(0)
		tcp.Close()
	}
	s.unsent = s.unsent[:0]
	return err
}

// requests returns how often each word was requested, for the log.
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

// lingerClose closes conn so that the last reply arrives. Closing a TCP
// connection with unread input resets it, and the reset can overtake the reply.
func lingerClose(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(grace))
		io.CopyN(io.Discard, conn, 64<<10)
	}
	conn.Close()
}
