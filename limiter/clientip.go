package limiter

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ClientIP returns the address of the client behind our own proxies. peer is the address
// that opened the connection; xForwardedFor has all values of that header, in the order
// received. Proxies append to it, so it is read from its right end, as long as the writer of
// the next entry is a trusted proxy. The first untrusted address is the client; entries to
// its left are the client's own claims. An empty or invalid entry stops the search at the
// last valid address. Without trusted proxies the header is never read.
//
// The result has no zone and is never an IPv4-mapped IPv6 address.
func ClientIP(peer netip.Addr, xForwardedFor []string, trusted []netip.Prefix) netip.Addr {
	client := bare(peer)
	for i := len(xForwardedFor) - 1; i >= 0; i-- {
		list := xForwardedFor[i]
		for more := true; more; {
			if !contains(trusted, client) {
				return client
			}
			var entry string
			list, entry, more = cutLast(list)
			addr, ok := parseHop(entry)
			if !ok {
				return client
			}
			client = addr
		}
	}
	return client
}

// cutLast splits off a list's last entry; more reports whether entries are left.
func cutLast(list string) (rest, entry string, more bool) {
	comma := strings.LastIndexByte(list, ',')
	if comma < 0 {
		return "", list, false
	}
	return list[:comma], list[comma+1:], true
}

// parseHop reads one entry: an address, an address with a port, or an IPv6
// address in brackets with or without one.
func parseHop(entry string) (netip.Addr, bool) {
	entry = strings.Trim(entry, " \t")
	if strings.HasPrefix(entry, "[") && strings.HasSuffix(entry, "]") {
		addr, err := netip.ParseAddr(entry[1 : len(entry)-1])
		return bare(addr), err == nil && addr.Is6()
	}
	if addr, err := netip.ParseAddr(entry); err == nil {
		return bare(addr), true
	}
	ap, err := netip.ParseAddrPort(entry)
	return bare(ap.Addr()), err == nil
}

func bare(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// ParsePrefixes reads comma-separated CIDR prefixes and single addresses
// ("10.0.0.0/8, 192.0.2.7, fd00::/8"). Blank means none. It returns IPv4-mapped prefixes
// as IPv4 prefixes, because ClientIP compares unmapped addresses.
func ParsePrefixes(csv string) ([]netip.Prefix, error) {
	if strings.Trim(csv, " \t") == "" {
		return nil, nil
	}
	var all []netip.Prefix
	for text := range strings.SplitSeq(csv, ",") {
		text = strings.Trim(text, " \t")
		p, err := parsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("prefix %q: %w", text, err)
		}
		all = append(all, p)
	}
	return all, nil
}

var (
	errNotPrefix  = errors.New("want an address or a CIDR prefix such as 10.0.0.0/8")
	errHalfMapped = errors.New("an IPv4-mapped prefix shorter than /96 means no set of IPv4 addresses")
)

func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, errNotPrefix
		}
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errNotPrefix
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, errHalfMapped
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
