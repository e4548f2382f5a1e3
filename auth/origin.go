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

// Origins is the list of web origins whose pages may use the gateway. The zero
// value allows only the origin that the request is addressed to. It is immutable
// after ParseOrigins.
type Origins struct {
	allowed []string // in the form of canonicalOrigin
}

// ParseOrigins parses a comma-separated list of scheme://host[:port] with scheme
// http or https. It ignores space around an entry. An empty text is the zero value.
//
// ParseOrigins refuses paths (also a trailing slash), wildcards, user names and
// null. No browser sends such an Origin, so the entry would allow nothing.
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

// Check returns nil if a request's Origin field is allowed. Scheme, host and port
// must match; a missing port is the scheme's default. self is the request's own
// scheme://host[:port], the only allowed origin if none are configured. It is not
// allowed otherwise, unless it is in the list.
//
// Check returns ErrNoOrigin without an Origin field, ErrTwoOrigins for several
// (even equal ones), and ErrOrigin if the origin is null, malformed or not allowed.
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

// OriginRule says when a request with a session cookie may lack an Origin header.
// A request with a token may always lack it, because a page of another site
// cannot make a browser add a token. An Origin that is present must be allowed
// under every rule.
type OriginRule int

const (
	// OriginRequired refuses requests without Origin. It is for WebSockets and
	// unsafe methods, for which browsers always send Origin.
	OriginRequired OriginRule = iota
	// OriginOrSameOrigin accepts Sec-Fetch-Site: same-origin instead, which pages
	// cannot set. It is for server-sent events: browsers send a same-origin GET
	// without Origin. They send Sec-Fetch-Site only to https and localhost.
	OriginOrSameOrigin
	// OriginOptional accepts requests without Origin. It is for safe methods whose
	// response a page of another site cannot read.
	OriginOptional
)

// Source holds the headers that say which site a request comes from.
type Source struct {
	Origin    []string // the Origin fields
	FetchSite []string // the Sec-Fetch-Site fields (W3C Fetch Metadata)
	Self      string   // the request's own scheme://host[:port]
}

// Admit returns nil if a request from this source is allowed, given how it was
// authenticated. The errors are those of Check.
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

// canonicalOrigin returns the same text for equal origins (RFC 6454, section 4):
// scheme and host in lower case, IP addresses as netip prints them, without the
// default port. It does not use net/url, which accepts much that is not an origin.
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

// isHostChar reports whether c can occur in a host name as browsers send it
// (punycode), or in an IPv4 address.
func isHostChar(c byte) bool {
	return isAlphanumeric(c) || c == '-' || c == '.' || c == '_'
}
