//go:build !linux

package transport

import "net"

// PoolConn is a TCP connection of a client's pool.
type PoolConn struct{ *net.TCPConn }

// NewPoolConn returns c as a PoolConn.
func NewPoolConn(c *net.TCPConn) (*PoolConn, error) { return &PoolConn{c}, nil }
