package server

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// hosts are the names under which the admin listener answers. A page of
// anywhere can have its own name resolve to 127.0.0.1 and then read what it likes
// there (DNS rebinding); it cannot have the browser send another Host than that
// name. An address is no name, so any is good.
type hosts struct {
	configured string // "" if the listener is configured without a name
	loopback   bool   // nothing but this machine reaches the listener
}

func newHosts(listen string) hosts {
	host, _, _ := net.SplitHostPort(listen)
	ip, err := netip.ParseAddr(host)
	return hosts{configured: host, loopback: err == nil && ip.IsLoopback() || localName(host)}
}

// only refuses requests for other hosts. Where the listener has been opened to
// other machines, metrics answer to any: scrapers know nodes by names that this
// node does not.
func (h hosts) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !h.good(r.Host) && (h.loopback || r.URL.Path != "/metrics") {
			http.Error(w, "This listener answers to localhost, to addresses, and to the host of HERALD_ADMIN_LISTEN, not to this Host.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (h hosts) good(hostPort string) bool {
	host := hostPort
	if name, _, err := net.SplitHostPort(hostPort); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || localName(host) || host != "" && strings.EqualFold(host, h.configured)
}

// localName: browsers resolve these to this machine without asking anyone (RFC 6761, 6.3).
func localName(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
