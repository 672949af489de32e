package factor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// What is read of allowed_outbound_hosts: the entries of one component, each of which is compared with
// every destination, and how much of an entry an error repeats.
const (
	maxAllowedHosts = 1024
	maxQuoted       = 200
)

// maxHostName is the length of the longest name that DNS can hold (RFC 1035, 2.3.4, in text form).
const maxHostName = 253

// letters are what words of ASCII consist of. Other alphabets are refused before anything is put in lower
// case: some of their letters have a lower case in ASCII.
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// AllowedHosts are the destinations that a component may connect to: its allowed_outbound_hosts. The zero
// value allows nothing. It is immutable.
//
// An entry is `scheme://host[:port]`, where
//   - scheme is a word of letters, or `*`;
//   - host is a name, an IP address (IPv6 in brackets), a network (`10.0.0.0/8`), `*.` and a domain for the
//     names below it, `self` (or `self.alt`) for the app itself, or `*`;
//   - port is a number, a range without its end (`8000..8010`), or `*`. It may be left out for schemes
//     that have a port of their own.
type AllowedHosts struct {
	entries   []allowedHost
	templates []string
}

// allowedHost is one entry.
type allowedHost struct {
	scheme   string // "" is any
	host     hostPattern
	from, to uint32 // the ports, without to
}

// hostPattern is the host of an entry; exactly one of its fields is set.
type hostPattern struct {
	any, self bool
	below     string // ".example.com"
	name      string
	addr      netip.Addr
	network   netip.Prefix
}

// ParseAllowedHosts parses the entries of a component. An entry with a template in it allows nothing until
// [AllowedHosts.Resolve] has resolved it.
func ParseAllowedHosts(entries []string) (AllowedHosts, error) {
	if len(entries) > maxAllowedHosts {
		return AllowedHosts{}, fmt.Errorf("allowed_outbound_hosts: %d entries, at most %d are supported", len(entries), maxAllowedHosts)
	}
	var a AllowedHosts
	for _, text := range entries {
		t, err := ParseTemplate(text)
		if err == nil && !t.isLiteral() {
			a.templates = append(a.templates, text)
			continue
		}
		var entry allowedHost
		if err == nil {
			entry, err = parseAllowedHost(text)
		}
		if err != nil {
			return AllowedHosts{}, fmt.Errorf("allowed_outbound_hosts: %.*q: %w", maxQuoted, text, err)
		}
		a.entries = append(a.entries, entry)
	}
	return a, nil
}

// Resolve returns a with its templates resolved. One that resolves to nothing, or to a web scheme and
// nothing, is left out: that is how an app makes a destination optional.
func (a AllowedHosts) Resolve(ctx context.Context, r Resolver) (AllowedHosts, error) {
	if len(a.templates) == 0 {
		return a, nil
	}
	resolved := AllowedHosts{entries: append([]allowedHost(nil), a.entries...)}
	for _, template := range a.templates {
		text, err := r.Resolve(ctx, template)
		if err != nil {
			return AllowedHosts{}, fmt.Errorf("allowed_outbound_hosts: %.*q: %w", maxQuoted, template, err)
		}
		if text == "" || text == "http://" || text == "https://" {
			continue
		}
		entry, err := parseAllowedHost(text)
		if err != nil {
			return AllowedHosts{}, fmt.Errorf("allowed_outbound_hosts: %.*q, resolved: %w", maxQuoted, template, err)
		}
		resolved.entries = append(resolved.entries, entry)
	}
	return resolved, nil
}

// IsEmpty says that a allows nothing and never will.
func (a AllowedHosts) IsEmpty() bool { return len(a.entries) == 0 && len(a.templates) == 0 }

// Allows says whether a connection to host is allowed. host is a name or an IP address, with or without
// brackets; port 0 is the port of the scheme.
func (a AllowedHosts) Allows(scheme, host string, port uint16) bool {
	name, addr, err := parseHost(host)
	if err != nil {
		return false
	}
	scheme = strings.ToLower(scheme)
	if port == 0 {
		port = WellKnownPort(scheme)
	}
	for i := range a.entries {
		e := &a.entries[i]
		if (e.scheme == "" || e.scheme == scheme) && e.from <= uint32(port) && uint32(port) < e.to && e.host.matches(name, addr) {
			return true
		}
	}
	return false
}

// AllowsSelf says whether requests to the app itself are allowed with one of the schemes.
func (a AllowedHosts) AllowsSelf(schemes ...string) bool {
	for i := range a.entries {
		e := &a.entries[i]
		if !e.host.any && !e.host.self {
			continue
		}
		for _, scheme := range schemes {
			if e.scheme == "" || e.scheme == scheme {
				return true
			}
		}
	}
	return false
}

// matches says whether p stands for the host that [parseHost] returned as name or addr.
func (p *hostPattern) matches(name string, addr netip.Addr) bool {
	switch {
	case p.any:
		return true
	case p.below != "":
		return strings.HasSuffix(name, p.below)
	case p.name != "":
		return name == p.name
	case p.addr.IsValid():
		return addr == p.addr
	case p.network.IsValid():
		return p.network.Contains(addr)
	}
	return false
}

// parseAllowedHost parses an entry. Its errors do not repeat it: it may hold secrets.
func parseAllowedHost(text string) (allowedHost, error) {
	text = strings.TrimSpace(text)
	scheme, rest, found := strings.Cut(text, "://")
	if text == "insecure:allow-all" {
		return allowedHost{}, errors.New("no longer supported, write *://*:* to allow everything")
	}
	if !found {
		return allowedHost{}, errors.New("no scheme, write https://host or *://host:port")
	}
	host, port := rest, ""
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, port = rest[:i], strings.TrimSuffix(rest[i+1:], "/")
	}
	if strings.HasSuffix(port, "]") {
		return allowedHost{}, errors.New("an IPv6 address needs a port behind it")
	}
	if strings.Contains(port, "/") {
		return allowedHost{}, errors.New("a path is not allowed")
	}
	var e allowedHost
	var err error
	if e.scheme, err = parseScheme(scheme); err != nil {
		return allowedHost{}, err
	}
	if e.from, e.to, err = parsePorts(port, e.scheme); err != nil {
		return allowedHost{}, err
	}
	if e.host, err = parseHostPattern(host); err != nil {
		return allowedHost{}, err
	}
	return e, nil
}

func parseScheme(scheme string) (string, error) {
	if scheme == "*" {
		return "", nil
	}
	if scheme == "" || strings.Trim(scheme, letters) != "" {
		return "", errors.New("a scheme is * or letters only")
	}
	return strings.ToLower(scheme), nil
}

func parsePorts(port, scheme string) (from, to uint32, err error) {
	switch {
	case port == "*":
		return 0, 1 << 16, nil
	case port == "":
		known := uint32(WellKnownPort(scheme))
		if known == 0 {
			return 0, 0, errors.New("no port, and the scheme has none of its own")
		}
		return known, known + 1, nil
	case strings.HasPrefix(port, "{"):
		return 0, 0, errors.New("lists of ports are not supported")
	}
	first, last, isRange := strings.Cut(port, "..")
	if from, err = parsePort(first); err != nil || !isRange {
		return from, from + 1, err
	}
	to, err = parsePort(last)
	return from, to, err
}

func parsePort(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, errors.New("a port is a number up to 65535, a range from..to of numbers, or *")
	}
	return uint32(n), nil
}

func parseHostPattern(host string) (hostPattern, error) {
	host = strings.TrimSpace(host)
	switch {
	case host == "*":
		return hostPattern{any: true}, nil
	case host == "self" || host == "self.alt":
		return hostPattern{self: true}, nil
	case strings.HasPrefix(host, "{"):
		return hostPattern{}, errors.New("lists of hosts are not supported")
	}
	if network, err := netip.ParsePrefix(host); err == nil {
		return hostPattern{network: network.Masked()}, nil
	}
	host = strings.TrimRight(host, "/")
	if strings.Contains(host, "/") {
		return hostPattern{}, errors.New("a path is not allowed")
	}
	domain, below := strings.CutPrefix(host, "*.")
	if strings.Contains(domain, "*") {
		return hostPattern{}, errors.New("a * in a host stands alone or before the first dot")
	}
	name, addr, err := parseHost(domain)
	switch {
	case err != nil:
		return hostPattern{}, err
	case addr.Is6() && host[0] != '[':
		return hostPattern{}, errors.New("an IPv6 address stands in brackets")
	case below && addr.IsValid():
		return hostPattern{}, errors.New("a * before an IP address is not allowed")
	case below:
		return hostPattern{below: "." + name}, nil
	}
	return hostPattern{name: name, addr: addr}, nil
}

// parseHost returns the lower-case name or the address that host is.
func parseHost(host string) (name string, addr netip.Addr, err error) {
	bare := host
	if inner, found := strings.CutPrefix(host, "["); found {
		bare, found = strings.CutSuffix(inner, "]")
		if !found || !strings.Contains(bare, ":") {
			return "", netip.Addr{}, errors.New("brackets are for IPv6 addresses")
		}
	}
	if addr, err := netip.ParseAddr(bare); err == nil && addr.Zone() == "" {
		return "", addr, nil
	}
	if host == "" {
		return "", netip.Addr{}, errors.New("no host")
	}
	if len(host) > maxHostName {
		return "", netip.Addr{}, errors.New("a host name is too long for DNS")
	}
	if strings.Trim(host, letters+"0123456789-_.") != "" {
		return "", netip.Addr{}, errors.New("a host is letters, digits, -, _ and dots (other alphabets as xn--…), or an IP address")
	}
	return strings.ToLower(host), netip.Addr{}, nil
}

// WellKnownPort is the port that a scheme has if an address names none, or 0.
func WellKnownPort(scheme string) uint16 {
	switch scheme {
	case "http":
		return 80
	case "https":
		return 443
	case "postgres":
		return 5432
	case "mysql":
		return 3306
	case "redis":
		return 6379
	case "mqtt":
		return 1883
	}
	return 0
}
