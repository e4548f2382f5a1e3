//go:build unix && !linux

package transport

import "net"

// Listen takes ownership of l and returns a listener whose connections Engine.Adopt
// takes. A listener that is not of TCP is returned unchanged.
func Listen(l net.Listener) (net.Listener, error) {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return l, nil
	}
	return &listener{tcp}, nil
}

type listener struct{ *net.TCPListener }

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	setOptions(c)
	return &accepted{c}, nil
}

// accepted is a connection of a listener.
type accepted struct{ *net.TCPConn }

// tcp returns the connection as Go's, which is closed together with a.
func (a *accepted) tcp() (*net.TCPConn, error) { return a.TCPConn, nil }
