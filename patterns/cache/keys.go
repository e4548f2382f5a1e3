package cache

import (
	"errors"
	"fmt"
	"strings"
)

// valueKey is a string: an entry as entry.lua describes it, content included. It
// expires when the entry may not be served any more.
func valueKey(namespace, key string) string { return "cache:" + namespace + ":" + key }

// leaseKey is a string: the token of whoever loads this key now. It expires after
// Options.Lease, or Options.Backoff after a failed refresh.
func leaseKey(namespace, key string) string { return "lock:cache:" + namespace + ":" + key }

// channel is where it is said that the lease on a key, the payload, has ended.
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

// checkKey lets any byte pass: nothing follows the key in a name.
func checkKey(key string) error {
	if key == "" || len(key) > maxKey {
		return errKey
	}
	return nil
}
