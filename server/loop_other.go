//go:build unix && !linux

package server

import (
	"time"

	"herald/internal/transport"
)

// loops are for Linux only; elsewhere each connection has a goroutine.
type loops struct{}

func newLoops(func(v any)) (*loops, error) { return nil, nil }

func (*loops) adopt(*transport.Accepted, time.Duration) (peerConn, error) { return nil, errNotTCP }

func (*loops) stop() {}
