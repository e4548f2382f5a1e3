package limiter

import (
	"net/netip"
	"strconv"
)

// Subject returns the subject of a client's address. For IPv4, also mapped into IPv6, it is
// the address. For IPv6 it is the /64, written as "2001-db8-0-1" because parts of a key
// contain no ':'. A /64 is the least that one customer gets (RFC 6177), and its addresses
// cost nothing. Invalid addresses (the zero Addr) share the subject "unknown".
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
