package auth

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

var (
	errNoOrigin   = refuse(ErrNoOrigin, "an Origin header is required")
	errOrigin     = refuse(ErrOrigin, "this Origin is not allowed")
	errTwoOrigins = refuse(ErrTwoOrigins, "several Origin headers")
)

// Origins are the sites whose pages may use the gateway. The zero value: only
// the site that the request itself is for. It never changes once parsed.
type Origins struct {
	allowed []string // canonical
}

// ParseOrigins reads scheme://host[:port], comma-separated, space around an entry
// ignored; an empty text is the zero value. The scheme is http or https. Paths
// (a trailing slash included), wildcards, user names and null are refused: an
// entry that no browser can send would look as if it allowed something.
func ParseOrigins(csv string) (Origins, error) {
	var o Origins
	for i, entry := range splitList(csv) {
		origin, err := canonicalOrigin(entry)
		if err != nil {
			return Origins{}, fmt.Errorf("origin %d: %w", i+1, err)
		}
		o.allowed = append(o.allowed, origin)
	}
	return o, nil
}

// Check decides on a request's Origin fields. self is the request's own
// scheme://host[:port]; it counts only if no origins are configured, and then
// nothing else does. Scheme, host and port must be equal, default ports
// supplied. ErrNoOrigin if there is none, ErrTwoOrigins if there are several,
// even equal ones, ErrOrigin if it is null, unreadable or another.
func (o Origins) Check(values []string, self string) error {
	switch {
	case len(values) == 0:
		return errNoOrigin
	case len(values) > 1:
		return errTwoOrigins
	}
	origin, err := canonicalOrigin(values[0])
	if err != nil || !o.allows(origin, self) {
		return errOrigin
	}
	return nil
}

func (o Origins) allows(origin, self string) bool {
	if len(o.allowed) > 0 {
		return slices.Contains(o.allowed, origin)
	}
	own, err := canonicalOrigin(self)
	return err == nil && own == origin
}

// OriginRule says what may stand for an Origin that a request by cookie lacks.
// One by token may always lack it, because no other site's page can make a
// browser add a token; and an Origin that is there must always be allowed.
type OriginRule int

const (
	// OriginRequired: nothing. For WebSockets and unsafe methods, with which
	// browsers always send one.
	OriginRequired OriginRule = iota
	// OriginOrSameOrigin: Sec-Fetch-Site: same-origin, which pages cannot set.
	// For server-sent events, whose GET browsers send without Origin to their
	// own site. They send Sec-Fetch-Site only to https and localhost.
	OriginOrSameOrigin
	// OriginOptional: its absence. For safe methods whose answer another site's
	// page cannot read.
	OriginOptional
)

// Source is where a request says it comes from.
type Source struct {
	Origin    []string // the Origin fields
	FetchSite []string // the Sec-Fetch-Site fields (W3C Fetch Metadata)
	Self      string   // the request's own scheme://host[:port]
}

// Admit decides whether a request proven by method may come from where it does.
// Its errors are those of Check.
func (o Origins) Admit(method Method, rule OriginRule, from Source) error {
	if len(from.Origin) > 0 {
		return o.Check(from.Origin, from.Self)
	}
	switch {
	case method != MethodSession, rule == OriginOptional:
		return nil
	case rule == OriginOrSameOrigin && slices.Equal(from.FetchSite, []string{"same-origin"}):
		return nil
	}
	return errNoOrigin
}

var errOriginForm = errors.New("must be scheme://host[:port] with http or https, and nothing else")

// canonicalOrigin gives equal origins one spelling (RFC 6454, 4): scheme and host
// in lower case, addresses as netip prints them, the default port left out. It
// does not use net/url, which accepts much that is not an origin.
func canonicalOrigin(s string) (string, error) {
	scheme, authority, ok := strings.Cut(s, "://")
	scheme = strings.ToLower(scheme)
	defaultPort, known := map[string]string{"http": "80", "https": "443"}[scheme]
	if !ok || !known {
		return "", errOriginForm
	}
	host, port, err := splitAuthority(authority)
	if err != nil {
		return "", err
	}
	if port == "" || port == defaultPort {
		return scheme + "://" + host, nil
	}
	return scheme + "://" + host + ":" + port, nil
}

func splitAuthority(authority string) (host, port string, err error) {
	host, colon := authority, strings.LastIndexByte(authority, ':')
	if colon > strings.LastIndexByte(authority, ']') {
		host, port = authority[:colon], authority[colon+1:]
		if !validPort(port) {
			return "", "", errors.New("its port must be 1 to 65535")
		}
	}
	host, err = canonicalHost(host)
	return host, port, err
}

func validPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0 && s[0] != '0'
}

func canonicalHost(host string) (string, error) {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		ip, err := netip.ParseAddr(host[1 : len(host)-1])
		if err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", errors.New("its address is not IPv6")
		}
		return "[" + ip.String() + "]", nil
	}
	if host == "" || !only(host, isHostChar) {
		return "", errOriginForm
	}
	return strings.ToLower(host), nil
}

// isHostChar covers names as browsers send them, in punycode, and IPv4.
func isHostChar(c byte) bool {
	return isAlphanumeric(c) || c == '-' || c == '.' || c == '_'
}
