package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// An address is where to dial or to listen. For a Unix socket or a command,
// host is its path or command line. The label, if any, replaces the address in
// headers and messages.
type address struct{ network, host, port, label string }

const (
	memory  = "memory"  // this machine, over a pipe in memory
	stdio   = "stdio"   // standard input and output
	socket  = "unix"    // a Unix socket
	command = "command" // a command's standard input and output
)

func (a address) String() string {
	switch {
	case a.label != "":
		return quoteOdd(a.label)
	case a.network == socket, a.network == command:
		return quoteOdd(a.host)
	}
	return a.target()
}

// target returns the address in the form that package net expects. For this
// machine and standard input, it is a name for messages.
func (a address) target() string {
	switch a.network {
	case memory:
		return "this machine"
	case stdio:
		return "standard input"
	case socket, command:
		return a.host
	}
	return net.JoinHostPort(a.host, a.port)
}

// column returns the name of a in a header, where white space separates the
// columns.
func (a address) column() string {
	return strings.Join(strings.Fields(a.String()), "_")
}

// reachable returns the name and the addresses of this host for a message, if
// the listener is bound to all of them or to all of one family. at is the
// address that it is bound to.
func (a address) reachable(at net.Addr) string {
	bound, ok := at.(*net.TCPAddr)
	if !ok || !bound.IP.IsUnspecified() {
		return ""
	}
	var names []string
	if name, err := os.Hostname(); err == nil {
		names = append(names, "host "+quoteOdd(name))
	}
	both := a.network == "tcp" && runtime.GOOS != "openbsd" // the IPv6 socket also accepts IPv4
	all, _ := net.InterfaceAddrs()
	for _, one := range all {
		ip, ok := one.(*net.IPNet)
		if !ok || !ip.IP.IsGlobalUnicast() {
			continue
		}
		if is4, bound4 := ip.IP.To4() != nil, bound.IP.To4() != nil; is4 == bound4 || is4 && both {
			names = append(names, ip.IP.String())
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

// defaultPort is the port if none is given.
var defaultPort = "5000"

// dialAddresses parses the operands of dial mode: host [port], or several
// hosts. A second operand that is a number is a port; the name of a service is
// a port only if it is the second of two. The port of -p applies to every host
// without a port.
func dialAddresses(network string, operands []string, port string) (addrs []address, err error) {
	if slices.Contains(operands, "-") {
		return nil, errors.New("- cannot be combined with hosts (it reads lines from standard input)")
	}
	first, rest := operands[0], operands[1:]
	own := ""
	if len(rest) > 0 && (isNumber(rest[0]) || len(rest) == 1 && isService(rest[0])) {
		own, rest = rest[0], rest[1:]
	}
	if own != "" && port != "" {
		return nil, givenTwice(port, own)
	}
	for i, host := range append([]string{first}, rest...) {
		if isNumber(host) {
			return nil, fmt.Errorf("missing host before port %s%s", host, portHint(operands, host))
		}
		if strings.HasPrefix(host, ":") && isNumber(host[1:]) {
			return nil, fmt.Errorf("missing host in %q (this machine: localhost%[1]s)", host)
		}
		apart := port
		if i == 0 && own != "" {
			apart = own
		}
		addr, err := parseAddress(network, host, apart, 1, apart == own)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// listenAddress parses the operands of listen mode, [[host] port], together
// with the port of -p.
func listenAddress(network string, operands []string, port string) ([]address, error) {
	host := "localhost"
	if network == "tcp6" { // localhost may have no IPv6 address
		host = "::1"
	}
	if n := len(operands); n > 0 && n <= 2 && port != "" && (n == 2 || isNumber(operands[0])) {
		return nil, givenTwice(port, operands[n-1])
	}
	switch {
	case len(operands) > 2:
		return nil, errors.New("too many arguments (want [host] [port])")
	case len(operands) == 2 && isNumber(operands[0]) && isNumber(operands[1]):
		return nil, givenTwice(operands[0], operands[1])
	case len(operands) == 2:
		host, port = operands[0], operands[1]
	case len(operands) == 1 && isNumber(operands[0]):
		port = operands[0]
	case len(operands) == 1:
		host = operands[0]
	}
	addr, err := parseAddress(network, host, port, 0, true)
	if name, own, ok := strings.Cut(host, ":"); (name == "" || name == "*") && (!ok || isNumber(own)) {
		all := "0.0.0.0"
		if network == "tcp6" {
			all = "::"
		}
		if addr, err = parseAddress(network, all, cmp.Or(own, port), 0, true); err == nil {
			err = fmt.Errorf("missing host in %q (all interfaces: %s %s)", host, all, addr.port)
		}
	}
	return []address{addr}, err
}

func givenTwice(port, other string) error {
	return fmt.Errorf("port given twice: %s and %s", quoteOdd(port), quoteOdd(other))
}

// parseAddress parses host, host:port or [host]:port. If s contains no port,
// the port is the argument, or else defaultPort. If both are given, the one in
// s applies, unless the argument is for this address alone, which is an error.
// The port must be at least lowest.
func parseAddress(network, s, port string, lowest int, alone bool) (address, error) {
	if hint := hostHint(s); hint != "" {
		return address{}, fmt.Errorf("invalid host %q%s", s, hint)
	}
	host := s
	_, notIP := netip.ParseAddr(s)
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	} else if strings.Contains(s, ":") && notIP != nil {
		var own string
		var err error
		if host, own, err = net.SplitHostPort(s); err != nil || own == "" {
			return address{}, fmt.Errorf("invalid address %q (want host:port)", s)
		}
		if port != "" && alone {
			return address{}, givenTwice(own, port)
		}
		port = own
	}
	_, notIP = netip.ParseAddr(host)
	if host == "" || host == "-" || strings.ContainsAny(host, "[] ") || host != quoteOdd(host) || notIP != nil && strings.Contains(host, ":") {
		return address{}, fmt.Errorf("invalid host %q", s)
	}
	if port == "" {
		port = defaultPort
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil || n < lowest || port == "-" { // LookupPort accepts "-" as 0
		return address{}, fmt.Errorf("invalid port %q", port)
	}
	return address{network: network, host: host, port: strconv.Itoa(n)}, nil
}

func isService(s string) bool {
	_, err := net.LookupPort("tcp", s)
	return err == nil
}

// prefixes is the value of an option: IP addresses or CIDR prefixes, separated
// by commas.
type prefixes []netip.Prefix

func (p *prefixes) String() string {
	var all []string
	for _, prefix := range *p {
		all = append(all, prefix.String())
	}
	return strings.Join(all, ",")
}

func (p *prefixes) Set(text string) error {
	var more prefixes
	for one := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(one)
		if addr, aerr := netip.ParseAddr(one); aerr == nil && addr.Zone() == "" {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil { // also if there is a zone, which would match no client
			return errors.New("not an IP address or CIDR prefix")
		}
		if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		if prefix != prefix.Masked() {
			return fmt.Errorf("host bits are set (did you mean %s?)", prefix.Masked())
		}
		more = append(more, prefix)
	}
	*p = append(*p, more...)
	return nil
}

// admit reports whether a client at addr may connect. An empty list admits
// every client.
func (p prefixes) admit(addr net.Addr) bool {
	if len(p) == 0 {
		return true
	}
	at, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return false
	}
	client := at.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(p, func(prefix netip.Prefix) bool { return prefix.Contains(client) })
}

// beyond returns a prefix whose addresses cannot connect to a listener at addr,
// because it is on the loopback interface, and the port of the listener.
func (p prefixes) beyond(addr net.Addr) (prefix, port string) {
	at, ok := addr.(*net.TCPAddr)
	if !ok || !at.IP.IsLoopback() {
		return "", ""
	}
	loopback := prefixes{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, one := range p {
		if !slices.ContainsFunc(loopback, one.Overlaps) {
			return strings.TrimSuffix(strings.TrimSuffix(one.String(), "/32"), "/128"), strconv.Itoa(at.Port)
		}
	}
	return "", ""
}
