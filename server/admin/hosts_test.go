package admin

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestOnlyTrustedHostsReachTheAdminListener(t *testing.T) {
	for _, tt := range []struct {
		listen, host, path string
		want               int
	}{
		{"127.0.0.1:3001", "127.0.0.1:3001", "/", 200},
		{"127.0.0.1:3001", "localhost:3001", "/", 200},
		{"127.0.0.1:3001", "herald-1:3001", "/metrics", 421},
		{"localhost:3001", "herald-1:3001", "/metrics", 421},
		{":3001", "herald-1:3001", "/metrics", 200}, // open to other machines: scrapers use any name
		{":3001", "herald-1:3001", "/", 421},
		{":3001", "herald-1:3001", "/debug/pprof/heap", 421},
		{":3001", "10.0.0.7:3001", "/", 200},
		{":3001", "[fd00::7]:3001", "/", 200},
		{":3001", "", "/", 421},
		{"herald-1.internal:3001", "HERALD-1.internal", "/", 200},
		{"herald-1.internal:3001", "herald-2.internal", "/", 421},
	} {
		r := httptest.NewRequest("GET", tt.path, nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		newHosts(tt.listen).only(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("listening on %s, Host %q, %s: %d, want %d", tt.listen, tt.host, tt.path, w.Code, tt.want)
		}
	}
}
