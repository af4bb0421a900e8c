package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const maxToken = 64 // bytes without a word or the end of a line that end a session

// methods are the HTTP methods.
var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"}

// errHTTP means that the client speaks HTTP.
var errHTTP = errors.New("speaks HTTP")

// errMark means that the client waits for a telnet timing mark, as telnet does
// after Ctrl-C: it drops all output until then.
var errMark = errors.New("timing mark")

// A scanner finds the words in the input of a client. It takes one byte at a
// time, so that packet boundaries do not matter.
type scanner struct {
	token   [maxToken]byte // input since the last word or line end, without white space
	n       int            // length of token
	command int            // length of the incomplete telnet command that follows token[:n]
	begin   int            // of the last word in token, if the line is dropped
	drop    bool           // the token has been reported; the rest of its line is dropped
	decided bool           // the first word is over, so no HTTP method may follow
}

// next takes one byte. It returns the word that is complete with it, or an
// error if it ends an unknown word. The error is errHTTP if the first word is
// an HTTP method, or errMark if the client wants a telnet timing mark.
func (s *scanner) next(b byte) (word, error) {
	if taken, err := s.negotiate(b); taken {
		return noWord, cmp.Or(err, s.overflow())
	}
	switch b {
	case '\r', '\n':
		err := s.finish()
		s.n, s.begin, s.drop = 0, 0, false
		return noWord, err
	case ' ', '\t', 0:
		if !s.decided && b == ' ' && slices.Contains(methods, s.text()) {
			return noWord, errHTTP
		}
		err := s.finish()
		s.begin = s.n
		return noWord, err
	}
	s.token[s.n] = b
	s.n++
	for w, name := range words {
		if string(s.token[s.begin:s.n]) == name && (!s.drop || word(w) == byeWord) {
			s.n, s.decided = 0, true
			return word(w), nil
		}
	}
	return noWord, s.overflow()
}

// The commands of telnet that matter here. A command is IAC and a byte from SE
// to IAC. An option follows WILL, WONT, DO and DONT, which are between SB and
// IAC, and data up to IAC SE follows SB.
const (
	telnetSE   = 240
	telnetSB   = 250
	telnetWill = 251
	telnetDo   = 253
	telnetIAC  = 255

	telnetMark = 6 // an option
)

// negotiate takes b if it belongs to a telnet command, which is skipped. IAC
// before anything else is a byte of the token. The error is errMark or nil.
func (s *scanner) negotiate(b byte) (taken bool, err error) {
	if s.command == 0 && b != telnetIAC {
		return false, nil
	}
	s.token[s.n+s.command] = b
	s.command++
	command := s.token[s.n : s.n+s.command]
	length := len(command)
	switch {
	case length == 1:
	case length == 2 && b < telnetSE:
		s.n++
		s.command = 0
		return false, nil
	case length == 3 && command[1] == telnetDo && b == telnetMark:
		s.command = 0
		return true, errMark
	case length == 2 && (b < telnetSB || b == telnetIAC),
		length == 3 && command[1] != telnetSB,
		length > 3 && command[length-2] == telnetIAC && b == telnetSE:
		s.command = 0
	case length > 3 && command[length-2] == telnetIAC && b == telnetIAC:
		command[length-2] = 0 // the two are one byte of data
		s.command--
	}
	return true, nil
}

// finish ends a word, at white space, at the maximum length or at the end of
// input. It returns an error if the word is unknown and its line is not dropped
// already.
func (s *scanner) finish() error {
	if s.command == 1 { // the input ended after IAC
		s.n, s.command = s.n+1, 0
	}
	if s.n == 0 || s.drop {
		return nil
	}
	s.drop, s.decided = true, true
	text := s.token[:s.n]
	if s.full() { // more may follow
		text = wholeLetters(text)
	}
	return fmt.Errorf("unknown word %q (known: %s)", text, strings.Join(words, ", "))
}

// overflow finishes the token if that has the maximum length.
func (s *scanner) overflow() error {
	if s.n+s.command < maxToken {
		return nil
	}
	s.n, s.command = maxToken, 0
	return s.finish()
}

// full reports whether the client has sent maxToken bytes without a word or the
// end of a line.
func (s *scanner) full() bool { return s.n == maxToken }

func (s *scanner) text() string { return string(s.token[:s.n]) }
