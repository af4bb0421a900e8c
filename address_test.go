package main

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// parsed returns the addresses in a command line.
func parsed(args string) ([]address, error) {
	opt, err := parse(strings.Fields(args))
	if err != nil {
		return nil, err
	}
	return opt.addresses, nil
}

func TestAddresses(t *testing.T) {
	for _, test := range []struct{ operands, want string }{
		{"", "this machine"},
		{"web1", "web1:5000"},
		{"web1 6000", "web1:6000"},
		{"web1 http", "web1:80"},
		{"web1:6000", "web1:6000"},
		{"[::1]:6000", "[::1]:6000"},
		{"[::1]", "[::1]:5000"},
		{"::1", "[::1]:5000"},
		{"::1 6000", "[::1]:6000"},
		{"fe80::1%eth0", "[fe80::1%eth0]:5000"},
		{"web1:http", "web1:80"},
		{"web1 web2", "web1:5000 web2:5000"},
		{"web1 web2:6000 web3", "web1:5000 web2:6000 web3:5000"},
		{"web1 6000 web2", "web1:6000 web2:5000"},
		{"web1 http web2", "web1:5000 http:5000 web2:5000"},
		{"-p 6000 web1", "web1:6000"},
		{"-p http web1 web2:81 [::1]", "web1:80 web2:81 [::1]:80"},
		{"web1 -p6000 web2", "web1:6000 web2:6000"},
		{"--label a web1 web2", "a web2:5000"},
		{"--label a web1 --label b web2", "a b"},
		{"web1 --label b 6000", "error"},
		{"-- -l -v", "-l:5000 -v:5000"},
		{"web1 -e cat web2 -U sock web3", "web1:5000 cat web2:5000 sock web3:5000"},
		{"-U a -e cat -U b web1 6000 -e dog", "a cat b web1:6000 dog"},
		{"web1 -e cat 6000 web2", "web1:6000 cat web2:5000"},
		{"web1 -e cat http", "web1:80 cat"},
		{"-p 6000 -e cat web1 web2:80", "cat web1:6000 web2:80"},
		{"web1 --label b -e cat web2 --label c -U sock", "web1:5000 b web2:5000 c"},
		{"--label here", "here"},

		{"web1 6000 -p 6000", "error"},
		{"-p 6000", "error"},
		{"--label a --label b web1 web2", "error"},
		{"web1 --label a", "error"},
		{"-e cat -4", "error"},
		{"-e cat -", "error"},
		{"- -U sock", "error"},
		{"-e cat 6000", "error"},
		{"web1 web2 6000", "error"},
		{"6000", "error"},
		{"web1 0", "error"},
		{"web1 99999", "error"},
		{"web1:99999", "error"},
		{"web1:", "error"},
		{":5000", "error"},
		{"web1:6000 7000", "error"},
		{"[::1", "error"},
		{"a:b:c", "error"},
	} {
		addrs, err := parsed(test.operands)
		got := strings.Trim(fmt.Sprint(addrs), "[]")
		if len(addrs) == 1 {
			got = addrs[0].String() // an IPv6 address has its own brackets
		}
		if err != nil {
			got = "error"
		}
		if got != test.want {
			t.Errorf("dial %q: %s (%v), want %s", test.operands, got, err, test.want)
		}
	}
	for _, test := range []struct{ operands, port, want string }{
		{"", "", "localhost:5000"},
		{"6000", "", "localhost:6000"},
		{"0", "", "localhost:0"},
		{"0.0.0.0 6000", "", "0.0.0.0:6000"},
		{":: 6000", "", "[::]:6000"},
		{"web1", "", "web1:5000"},
		{"", " -p 6000", "localhost:6000"},
		{"0.0.0.0", " -p 6000", "0.0.0.0:6000"},
		{"web1:6000", "", "web1:6000"},
		{"-", "", "standard input"},

		{"- 6000", "", "error"},
		{"-", " -p 6000", "error"},
		{"web1 6000", " -p 6000", "error"},
		{"6000", " -p 6000", "error"},
		{"99999", "", "error"},
		{"", " -p x", "error"},
		{"a 1 2", "", "error"},
	} {
		addrs, err := parsed("-l " + test.operands + test.port)
		got := ""
		if len(addrs) == 1 {
			got = addrs[0].String()
		}
		if err != nil {
			got = "error"
		}
		if got != test.want {
			t.Errorf("listen %q: %s (%v), want %s", test.operands, got, err, test.want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"web1", "web1:6000", "[::1]:5000", "::1", "fe80::1%eth0", "[::1]", ":5000", "a:b:c", "", "[", "[a:b]", "::%]"} {
		f.Add(s, "")
		f.Add(s, "6000")
	}
	f.Fuzz(func(t *testing.T, s, port string) {
		addr, err := parseAddress("tcp", address{host: s}, port)
		if err != nil {
			return
		}
		name, number, err := net.SplitHostPort(addr.String())
		if err != nil || name != addr.host || number != addr.port {
			t.Errorf("%q %q became %q, which does not read back: %v", s, port, addr, err)
		}
	})
}

func FuzzAllow(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "192.0.2.0/24", "::1", "2001:db8::/32", "::ffff:192.0.2.0/120", "10.0.0.1/8", "x", "/", "1.2.3.4,::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var p, again prefixes
		if err := p.add(text); err != nil {
			return
		}
		for _, prefix := range p {
			if err := again.add(prefix.String()); err != nil {
				t.Errorf("%q parses as %v, of which %v does not read back: %v", text, p, prefix, err)
			}
		}
		if !slices.Equal(again, p) {
			t.Errorf("%q parses as %v, which reads back as %v", text, p, again)
		}
		for _, prefix := range p {
			if !p.admit(&net.TCPAddr{IP: prefix.Addr().AsSlice()}) {
				t.Errorf("%q does not admit %s", text, prefix.Addr())
			}
		}
	})
}
