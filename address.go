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
// host is its path or command line. This machine and the standard streams have
// only a network.
type address struct {
	network, host, port string

	label string // if not "", it replaces the address in headers and messages
	hint  string // what the user probably meant, if it never replies
}

const (
	memory  = "this machine"   // over a pipe in memory
	stdio   = "standard input" // and output
	socket  = "unix"           // a Unix socket
	command = "command"        // a command's standard input and output
)

func (a address) String() string { return quoteOdd(cmp.Or(a.label, a.target())) }

// target returns the address in the form that package net expects, or the name
// of what it is.
func (a address) target() string {
	if a.port == "" {
		return cmp.Or(a.host, a.network)
	}
	return net.JoinHostPort(a.host, a.port)
}

// reachable returns the name and the addresses of this host for a message, if
// the listener is bound to all of them or to all of one family. at is the
// address that it is bound to.
func (a address) reachable(at net.Addr) string {
	bound, ok := at.(*net.TCPAddr)
	name, err := os.Hostname()
	if !ok || !bound.IP.IsUnspecified() || err != nil {
		return ""
	}
	names := []string{"host " + quoteOdd(name)}
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
	return " (" + strings.Join(names, ", ") + ")"
}

var defaultPort = "5000"

// dialAddresses returns the addresses to dial: those that were typed, with the
// operands, which have no network yet, parsed as host [port], as several hosts or
// as -. The port of -p applies to every host without a port.
func dialAddresses(network string, typed []address, port string) ([]address, error) {
	addrs := attachPort(typed)
	for i, a := range addrs {
		if a.network != "" {
			continue
		}
		addr, err := parseAddress(network, a, port)
		switch {
		case a.host == "-" && len(typed) > 1:
			err = errors.New("- cannot be combined with other arguments (it reads lines from standard input)")
		case a.host == "-":
			addr, err = address{network: stdio, label: a.label}, nil
		case err != nil:
		case addr.port == "0":
			err = fmt.Errorf("invalid port %q", addr.port)
		case isNumber(a.host):
			err = fmt.Errorf("missing host before port %s%s", a.host, portHint(operandsOf(typed), a.host))
		case addr.host == "":
			err = fmt.Errorf("missing host in %q (this machine: localhost:%s)", a.host, addr.port)
		}
		if err != nil {
			return nil, err
		}
		addrs[i] = addr
	}
	return addrs, nil
}

// operandsOf returns the operands as they were typed: they have no network yet.
func operandsOf(typed []address) (operands []string) {
	for _, a := range typed {
		if a.network == "" {
			operands = append(operands, a.host)
		}
	}
	return operands
}

// attachPort makes the second operand the port of the first if it is a number,
// or if it is the last and the name of a service.
func attachPort(typed []address) []address {
	typed = slices.Clone(typed)
	hosts := operandsOf(typed)
	if len(hosts) < 2 || isNumber(hosts[0]) || !isNumber(hosts[1]) && (len(hosts) > 2 || !isService(hosts[1])) {
		return typed
	}
	isOperand := func(a address) bool { return a.network == "" }
	first := slices.IndexFunc(typed, isOperand)
	second := first + 1 + slices.IndexFunc(typed[first+1:], isOperand)
	if typed[second].label != "" {
		return typed
	}
	typed[first].port = hosts[1]
	return slices.Delete(typed, second, second+1)
}

// listenAddress returns the only address to listen on: a socket, or the operands
// [[host] port] or -, together with the port of -p.
func listenAddress(network string, typed []address, port string) ([]address, error) {
	host, all := "localhost", "0.0.0.0"
	if network == "tcp6" { // localhost may have no IPv6 address
		host, all = "::1", "::"
	}
	addrs := attachPort(typed)
	if len(addrs) == 0 {
		addrs = []address{{host: host}}
	}
	a := addrs[0]
	switch {
	case len(addrs) > 1:
		return nil, errors.New("too many arguments (want [host] [port] or -U PATH)")
	case a.network != "":
		return addrs, nil
	case a.host == "-" && a.port == "":
		return []address{{network: stdio}}, nil
	}
	if a.port == "" {
		a.port, port = port, "" // -p takes the place of the second operand
	}
	addr, err := parseAddress(network, a, port)
	switch {
	case err != nil:
	case isNumber(a.host):
		addr.host = host
	case addr.host == "" || addr.host == "*":
		err = fmt.Errorf("missing host in %q (all interfaces: %s %s)", a.host, all, addr.port)
	}
	return []address{addr}, err
}

// parseAddress parses an operand: host, host:port, [host]:port or port. If typed
// has a port already, it must be the only one; otherwise, port is that of -p.
func parseAddress(network string, typed address, port string) (address, error) {
	host, hostPort, err := splitAddress(typed.host)
	if err != nil {
		return address{}, err
	}
	port = cmp.Or(hostPort, port)
	if typed.port != "" && port != "" {
		return address{}, fmt.Errorf("port given twice: %s and %s", quoteOdd(port), quoteOdd(typed.port))
	}
	port = cmp.Or(port, typed.port, defaultPort)
	n, err := net.LookupPort("tcp", port)
	if err != nil || port == "-" { // LookupPort accepts "-" as 0
		return address{}, fmt.Errorf("invalid port %q", port)
	}
	typed.network, typed.host, typed.port = network, host, strconv.Itoa(n)
	return typed, nil
}

// splitAddress splits host, host:port, [host]:port or port. What is missing is "".
func splitAddress(s string) (host, port string, err error) {
	switch {
	case s == "": // "$HOST" when HOST is not set
		return "", "", errors.New("empty argument")
	case strings.ContainsAny(s, " /@,") || !isPlain(s):
		return "", "", fmt.Errorf("invalid host %q%s", s, hostHint(s))
	case isNumber(s):
		return "", s, nil
	case isIP(s) || !strings.Contains(s, ":"):
		host = s
	case strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]"):
		host = s[1 : len(s)-1]
	default:
		if host, port, err = net.SplitHostPort(s); err != nil || port == "" {
			return "", "", fmt.Errorf("invalid address %q (want host:port)", s)
		}
	}
	if host == "-" || strings.ContainsAny(host, "[]") || strings.Contains(host, ":") && !isIP(host) {
		return "", "", fmt.Errorf("invalid host %q", s)
	}
	return host, port, nil
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func isService(s string) bool {
	n, err := net.LookupPort("tcp", s)
	return err == nil && n > 0 // it is 0 for "" and "-"
}

// prefixes are the IP addresses and CIDR prefixes that may connect.
type prefixes []netip.Prefix

// add adds addresses and prefixes that are separated by commas.
func (p *prefixes) add(text string) error {
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
		*p = append(*p, prefix)
	}
	return nil
}

// admit reports whether a client at addr may connect. An empty list admits
// every client.
func (p prefixes) admit(addr net.Addr) bool {
	if len(p) == 0 {
		return true
	}
	at, _ := netip.ParseAddrPort(addr.String()) // another kind of address is in no prefix
	client := at.Addr().Unmap().WithZone("")
	return slices.ContainsFunc(p, func(prefix netip.Prefix) bool { return prefix.Contains(client) })
}

// unreachable returns a prefix whose addresses cannot connect to a listener at addr,
// because it is on the loopback interface, and the command for all interfaces.
func (p prefixes) unreachable(addr net.Addr) (prefix, instead string) {
	at, ok := addr.(*net.TCPAddr)
	if !ok || !at.IP.IsLoopback() {
		return "", ""
	}
	loopback := prefixes{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	for _, one := range p {
		if !slices.ContainsFunc(loopback, one.Overlaps) {
			all := netip.IPv4Unspecified()
			if slices.ContainsFunc(p, func(prefix netip.Prefix) bool { return prefix.Addr().Is6() }) {
				all = netip.IPv6Unspecified()
			}
			return prefixes{one}.String(), fmt.Sprintf("cpunc -l -a %s %s %d", p, all, at.Port)
		}
	}
	return "", ""
}

// String returns the list in the form that add takes.
func (p prefixes) String() string {
	var list []string
	for _, one := range p {
		text := one.String()
		if one.IsSingleIP() {
			text = one.Addr().String()
		}
		list = append(list, text)
	}
	return strings.Join(list, ",")
}
