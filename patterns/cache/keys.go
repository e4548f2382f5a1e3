package cache

import (
	"errors"
	"fmt"
	"strings"
)

// valueKey: string; an entry in the format of entry.lua. It expires at the end of its
// stale window.
func valueKey(namespace, key string) string { return "cache:" + namespace + ":" + key }

// leaseKey: string; the random token of the process that is loading the key. It expires
// after Options.Lease, or after Options.Backoff if a refresh has failed.
func leaseKey(namespace, key string) string { return "lock:cache:" + namespace + ":" + key }

// channel is the pub/sub channel that announces the end of a lease. The payload is the
// key.
func channel(namespace string) string { return "cache:" + namespace + ":filled" }

const (
	maxNamespace = 64  // bytes
	maxKey       = 512 // bytes
)

func validNamespace(s string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._@-"
	return s != "" && len(s) <= maxNamespace && strings.Trim(s, allowed) == ""
}

var errKey = errors.New("the key must be 1 to " + fmt.Sprint(maxKey) + " bytes long")

// checkKey allows any byte, because the key is the last part of its Redis key.
func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return errKey
	}
	return nil
}
