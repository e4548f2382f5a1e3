package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"herald/internal/redisinfo"
)

// Files of kernel settings. A check is omitted if its file cannot be read, as on other
// systems than Linux.
const (
	backlogFile    = "/proc/sys/net/core/somaxconn"
	portsFile      = "/proc/sys/net/ipv4/ip_local_port_range"
	overcommitFile = "/proc/sys/vm/overcommit_memory"
	hugePagesFile  = "/sys/kernel/mm/transparent_hugepage/enabled"
)

// examineMachine examines the machine of the doctor, which should be the machine of a
// node. withRedis tells that Redis runs on it too.
func examineMachine(cfg config, withRedis bool) (found []redisinfo.Finding) {
	if limit, ok := openFiles(); ok {
		found = append(found, examineFiles(limit, cfg.MaxConnections))
	}
	if n, ok := kernelNumbers(backlogFile, 1); ok {
		found = append(found, examineBacklog(n[0]))
	}
	if n, ok := kernelNumbers(portsFile, 2); ok {
		found = append(found, examinePorts(n[1]-n[0]+1, cfg.MaxConnections))
	}
	if !withRedis {
		return found
	}
	if n, ok := kernelNumbers(overcommitFile, 1); ok {
		found = append(found, examineOvercommit(n[0]))
	}
	if text, err := os.ReadFile(hugePagesFile); err == nil {
		found = append(found, examineHugePages(string(text)))
	}
	return found
}

// kernelNumbers reads a file of count integers.
func kernelNumbers(name string, count int) ([]int, bool) {
	text, err := os.ReadFile(name)
	words := strings.Fields(string(text))
	if err != nil || len(words) != count {
		return nil, false
	}
	numbers := make([]int, count)
	for i, w := range words {
		if numbers[i], err = strconv.Atoi(w); err != nil {
			return nil, false
		}
	}
	return numbers, true
}

// fewConnections is the number of connections that a node should support by default.
const fewConnections = 10_000

func examineFiles(limit, connections int) redisinfo.Finding {
	allowed := max(limit-spareFiles, 0)
	f := redisinfo.Finding{Name: "open files", Text: fmt.Sprintf("ulimit -n is %d: %d connections and %d other files", limit, allowed, spareFiles)}
	const raise = "raise ulimit -n (LimitNOFILE= in systemd, --ulimit nofile= in Docker)"
	switch {
	case connections > allowed:
		f.Level, f.Advice = redisinfo.Fail, fmt.Sprintf("%s to %d, or lower HERALD_MAX_CONNECTIONS from %d", raise, connections+spareFiles, connections)
	case connections == 0 && allowed < fewConnections:
		f.Level, f.Advice = redisinfo.Warn, raise+": it limits this node's connections"
	}
	return f
}

func examineBacklog(n int) redisinfo.Finding {
	f := redisinfo.Finding{Name: "accept backlog", Text: fmt.Sprintf("net.core.somaxconn is %d", n)}
	if n < 1024 {
		f.Level, f.Advice = redisinfo.Warn, "sysctl -w net.core.somaxconn=4096: when many clients reconnect at once, those over the backlog wait until they repeat their SYN"
	}
	return f
}

func examinePorts(n, connections int) redisinfo.Finding {
	f := redisinfo.Finding{Name: "local ports", Text: fmt.Sprintf("net.ipv4.ip_local_port_range has %d: the maximum of connections from a proxy on this machine to one node", n)}
	if n < max(connections, fewConnections) {
		f.Level, f.Advice = redisinfo.Warn, "sysctl -w net.ipv4.ip_local_port_range='1024 65535', or let the proxy use several addresses"
	}
	return f
}

func examineOvercommit(n int) redisinfo.Finding {
	f := redisinfo.Finding{Name: "overcommit", Text: fmt.Sprintf("vm.overcommit_memory is %d", n)}
	if n != 1 {
		f.Level, f.Advice = redisinfo.Warn, "sysctl -w vm.overcommit_memory=1: without it, a large Redis cannot fork to save when memory is half full, and then refuses writes"
	}
	return f
}

func examineHugePages(text string) redisinfo.Finding {
	f := redisinfo.Finding{Name: "huge pages", Text: "transparent_hugepage/enabled is " + strings.TrimSpace(text)}
	if strings.Contains(text, "[always]") {
		f.Level, f.Advice = redisinfo.Warn, "echo madvise > "+hugePagesFile+": while Redis saves, each write copies 2 MiB instead of 4 KiB"
	}
	return f
}

// here reports whether an address belongs to this machine.
func here(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // a Unix socket
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	theirs, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return false
	}
	ours, _ := net.InterfaceAddrs()
	for _, ip := range theirs {
		if ip.IP.IsLoopback() {
			return true
		}
		for _, a := range ours {
			if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip.IP) {
				return true
			}
		}
	}
	return false
}
