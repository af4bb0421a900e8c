package main

import (
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

// An address is what to dial or to listen on. In the networks that are not
// TCP, host is a path or a command.
type address struct{ network, host, port string }

const (
	memory  = "memory"  // this machine, with no network between
	stdio   = "stdio"   // our standard input and output
	socket  = "unix"    // a Unix socket
	command = "command" // a command's standard input and output
)

func (a address) String() string {
	switch a.network {
	case memory:
		return "this machine"
	case stdio:
		return "standard input"
	case socket, command:
		return quoteOdd(a.host)
	}
	return net.JoinHostPort(a.host, a.port)
}

// label is a's name in a header, where white space parts the columns.
func (a address) label() string {
	return strings.Join(strings.Fields(a.String()), "_")
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

// defaultPort is the port of addresses that have none.
var defaultPort = "5000"

// dialAddresses reads the operands of dial mode: host [port], or several
// hosts. A second one that is a number is a port; where there are just two, so
// is the name of a service.
func dialAddresses(network string, operands []string) (addrs []address, err error) {
	first, rest := operands[0], operands[1:]
	port := ""
	if len(rest) > 0 && (isNumber(rest[0]) || len(rest) == 1 && isService(rest[0])) {
		port, rest = rest[0], rest[1:]
	}
	for _, host := range append([]string{first}, rest...) {
		if isNumber(host) {
			return nil, fmt.Errorf("%s is a port without a host (to serve: cpunc -l %[1]s, to dial: cpunc localhost %[1]s)", host)
		}
		addr, err := parseAddress(network, host, port, 1)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
		port = ""
	}
	return addrs, nil
}

// listenAddress reads the operands of listen mode, [[host] port], and the port
// of -p.
func listenAddress(network string, operands []string, port string) ([]address, error) {
	host := "localhost"
	if network == "tcp6" { // which localhost need not be
		host = "::1"
	}
	switch {
	case len(operands) > 2:
		return nil, fmt.Errorf("one host and one port at most: %q", operands)
	case len(operands) > 0 && port != "" && (len(operands) == 2 || isNumber(operands[0])):
		return nil, fmt.Errorf("two ports: %q and %q", port, operands[len(operands)-1])
	case len(operands) == 2:
		host, port = operands[0], operands[1]
	case len(operands) == 1 && isNumber(operands[0]):
		port = operands[0]
	case len(operands) == 1:
		host = operands[0]
	}
	addr, err := parseAddress(network, host, port, 0)
	return []address{addr}, err
}

// parseAddress reads a host, host:port or [host]:port. The port may also be
// given apart, and is 5000 when it is not given at all; lowest is the least
// that it may be.
func parseAddress(network, s, port string, lowest int) (address, error) {
	host := s
	_, notIP := netip.ParseAddr(s)
	if inner, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	} else if strings.Contains(s, ":") && notIP != nil {
		var own string
		var err error
		if host, own, err = net.SplitHostPort(s); err != nil || own == "" {
			return address{}, fmt.Errorf("%q is no host:port", s)
		}
		if port != "" {
			return address{}, fmt.Errorf("two ports: %q and %q", s, port)
		}
		port = own
	}
	_, notIP = netip.ParseAddr(host)
	if host == "" || host == "-" || strings.ContainsAny(host, "[] \t\r\n") || notIP != nil && strings.Contains(host, ":") {
		return address{}, fmt.Errorf("%q names no host", s)
	}
	if port == "" {
		port = defaultPort
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil || n < lowest || port == "-" { // which the library takes for 0
		return address{}, fmt.Errorf("%q is no port", port)
	}
	return address{network, host, strconv.Itoa(n)}, nil
}

func isService(s string) bool {
	_, err := net.LookupPort("tcp", s)
	return err == nil
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// prefixes is a flag's value: addresses or CIDR prefixes, one at a time.
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
		if addr, aerr := netip.ParseAddr(one); aerr == nil {
			prefix, err = netip.PrefixFrom(addr.WithZone(""), addr.BitLen()), nil
		}
		if err != nil {
			return errors.New("no address, nor a prefix like 192.0.2.0/24 or 2001:db8::/32")
		}
		if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
		}
		if prefix != prefix.Masked() {
			return fmt.Errorf("has bits set behind its length; %s has not", prefix.Masked())
		}
		more = append(more, prefix)
	}
	for _, prefix := range more {
		if !slices.Contains(*p, prefix) { // the parser sets each of a flag's names
			*p = append(*p, prefix)
		}
	}
	return nil
}

// admit says whether a client at addr may connect. Where nothing is allowed in
// particular, everyone may.
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
