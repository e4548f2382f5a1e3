package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// banner tells a new user the demo's address and a command that publishes.
func banner(cfg config, addr string) string {
	base := "http://" + dialable(addr)
	var b strings.Builder
	b.WriteString("Herald is running with an embedded Redis: its data is lost on exit.\nSet REDIS_URL to keep the data and to run several nodes.\n\n")
	if cfg.demo {
		fmt.Fprintf(&b, "  Demo     %s/   (log in as alice in one tab, as bob in another)\n", base)
	}
	key, where := cfg.demoKey, ""
	if key == "" {
		key, where = "$SECRET", "   (with a secret from HERALD_API_KEYS)"
	}
	fmt.Fprintf(&b, "  Publish%s\n", where)
	fmt.Fprintf(&b, "    curl -X POST %s/notify -H \"Authorization: Bearer %s\" -H 'Content-Type: application/json' \\\n"+
		"      -d '{\"userId\":\"alice\",\"message\":{\"text\":\"Hello, Alice\"}}'\n\n", base, key)
	return b.String()
}

// dialable converts a listening address to one that this machine can dial.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// healthcheck asks GET /health/ready. It serves container images without a shell.
func healthcheck(listen string) error {
	client := http.Client{Timeout: 3 * time.Second}
	resp, err := client.Get("http://" + dialable(listen) + "/health/ready")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", resp.Status)
	}
	return nil
}
