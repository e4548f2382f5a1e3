package admin

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// hosts checks the Host header against DNS rebinding. An attacker's domain can resolve to
// 127.0.0.1, so that its pages read this listener. The browser then sends that domain as
// Host. An IP address cannot be rebound, so any is accepted.
type hosts struct {
	configured string // "" if the listener is configured without a name
	loopback   bool   // only this machine reaches the listener
}

func newHosts(listen string) hosts {
	host, _, _ := net.SplitHostPort(listen)
	ip, err := netip.ParseAddr(host)
	return hosts{configured: host, loopback: err == nil && ip.IsLoopback() || localName(host)}
}

// only refuses requests for other hosts with 421. If other machines reach the listener,
// /metrics accepts every host, because scrapers use names that this node cannot list.
func (h hosts) only(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if !h.accepts(r.Host) && (h.loopback || r.URL.Path != "/metrics") {
			http.Error(w, "This listener answers to localhost, to addresses, and to the host of HERALD_ADMIN_LISTEN, not to this Host.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (h hosts) accepts(hostPort string) bool {
	host := hostPort
	if name, _, err := net.SplitHostPort(hostPort); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || localName(host) || host != "" && strings.EqualFold(host, h.configured)
}

// localName reports whether browsers resolve host to this machine without DNS (RFC 6761,
// 6.3).
func localName(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
