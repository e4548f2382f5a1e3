//go:build unix && !linux

package transport

import "time"

// loops exist on Linux only; elsewhere each connection has a goroutine.
type loops struct{}

func newLoops(func(v any)) (*loops, error) { return nil, nil }

func (*loops) adopt(*accepted, time.Duration) (Conn, error) { return nil, errNotAccepted }

func (*loops) stop() {}
