//go:build !linux

// Package transport makes connections cheaper on Linux.
package transport

import "net"

// Conn is a TCP connection.
type Conn struct{ *net.TCPConn }

// New returns c as a Conn.
func New(c *net.TCPConn) (*Conn, error) { return &Conn{c}, nil }

// PoolConn is a Conn of a pool.
type PoolConn = Conn

// NewPoolConn returns c as a PoolConn.
func NewPoolConn(c *net.TCPConn) (*PoolConn, error) { return New(c) }
