//go:build !linux

package transport

import "net"

// Listen takes l over, and returns a listener whose connections are Accepted. prepare
// is called with each. Where l is not of TCP it is returned as it is.
func Listen(l net.Listener, prepare func(*net.TCPConn)) (net.Listener, error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return l, nil
	}
	return &listener{tcp, prepare}, nil
}

type listener struct {
	*net.TCPListener
	prepare func(*net.TCPConn)
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	l.prepare(c)
	return &Accepted{c}, nil
}

// Accepted is a connection.
type Accepted struct{ *net.TCPConn }

// TCP returns it as an ordinary connection, which is closed with it.
func (a *Accepted) TCP() (*net.TCPConn, error) { return a.TCPConn, nil }
