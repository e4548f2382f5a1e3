package limiter

import (
	"net/netip"
	"strconv"
)

// Subject is whom an address stands for: an IPv4 address itself (also when it
// comes mapped into IPv6), an IPv6 address its /64, which is the least that one
// customer is given (RFC 6177) and within which addresses are free. IPv6 is
// written as its four groups, "2001-db8-0-1", since a key's parts hold no ':'.
// All unknown addresses (the zero Addr) share the subject "unknown".
func Subject(addr netip.Addr) string {
	addr = addr.Unmap()
	switch {
	case !addr.IsValid():
		return "unknown"
	case addr.Is4():
		return addr.String()
	}
	a := addr.As16()
	b := make([]byte, 0, len("ffff-ffff-ffff-ffff"))
	for i := 0; i < 8; i += 2 {
		if i > 0 {
			b = append(b, '-')
		}
		b = strconv.AppendUint(b, uint64(a[i])<<8|uint64(a[i+1]), 16)
	}
	return string(b)
}
