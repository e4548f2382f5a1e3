//go:build unix && !linux

package server

import (
	"time"

	"herald/rawio"
)

// loops are for Linux only; elsewhere each connection has a goroutine.
type loops struct{}

func newLoops(func(v any)) (*loops, error) { return nil, nil }

func (*loops) adopt(*rawio.Accepted, time.Duration) (peerConn, error) { return nil, errNotTCP }

func (*loops) stop() {}
