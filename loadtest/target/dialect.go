// Package target starts and speaks to what is measured: the gateway, anything
// that keeps its contract, and the servers it is compared with.
package target

import (
	"bytes"
	"strconv"
	"time"

	"herald/loadtest/wire"
)

// Dialect is how a kind of server is spoken to. Its methods may be called from
// several threads.
type Dialect interface {
	// Upgrade is the request that opens a socket of a user, resuming after that
	// id; since < 0: from now on.
	Upgrade(host string, user int, since int64) []byte
	// Greets reports whether a socket is open only when Frame says so, rather
	// than with the handshake.
	Greets() bool
	// Settles is how long an open socket may still miss messages.
	Settles() time.Duration
	// Frame looks at a text that is no notification: what to answer (nil:
	// nothing), and whether the socket is now open.
	Frame(payload []byte) (answer []byte, open bool)
	// Say is a text that a client may send; nil if there is none.
	Say() []byte
	// Notify is a request that publishes a message to wire.AnyUser.
	Notify(host string, message []byte) []byte
	// Channel is where a PUBLISH of the message reaches wire.AnyUser's sockets;
	// "" if that cannot be done from outside.
	Channel() string
}

const jsonType = "Content-Type: application/json"

// herald is the gateway's contract.
type herald struct {
	key      string   // a backend's API key
	sessions []string // by user: the secret ids
}

func (h *herald) Upgrade(host string, user int, since int64) []byte {
	target := "/ws"
	if since >= 0 {
		target += "?since=" + strconv.FormatInt(since, 10)
	}
	return wire.Upgrade(host, target, "Origin: http://"+host, "Sec-WebSocket-Protocol: herald.v1", "Cookie: sid="+h.sessions[user])
}

func (*herald) Greets() bool           { return true }
func (*herald) Settles() time.Duration { return 0 }

func (*herald) Frame(payload []byte) ([]byte, bool) {
	return nil, bytes.HasPrefix(payload, []byte(`{"type":"hello"`))
}

func (*herald) Say() []byte { return []byte(`{"type":"ping"}`) }

func (h *herald) Notify(host string, message []byte) []byte {
	return wire.Post(host, "/notify", notifyBody(message), jsonType, h.authorization())
}

func (h *herald) authorization() string { return "Authorization: Bearer " + h.key }

func (*herald) Channel() string { return userChannel }

const userChannel = "user:" + wire.AnyUser + ":events"

func notifyBody(message []byte) []byte {
	return append(append([]byte(`{"userId":"`+wire.AnyUser+`","message":`), message...), '}')
}

// article is the Node server that the gateway starts from.
type article struct{}

func (article) Upgrade(host string, user int, _ int64) []byte {
	return wire.Upgrade(host, "/ws?userId="+wire.UserID(user))
}

func (article) Greets() bool                { return false }
func (article) Settles() time.Duration      { return 0 }
func (article) Frame([]byte) ([]byte, bool) { return nil, false }
func (article) Say() []byte                 { return []byte(`{"type":"ping"}`) }
func (article) Channel() string             { return userChannel }
func (article) Notify(host string, message []byte) []byte {
	return wire.Post(host, "/notify", notifyBody(message), jsonType)
}

// socketIO is socket.io 4 over WebSocket alone: Engine.IO's packets are a digit
// and a payload.
type socketIO struct{}

func (socketIO) Upgrade(host string, user int, _ int64) []byte {
	return wire.Upgrade(host, "/socket.io/?EIO=4&transport=websocket&userId="+wire.UserID(user))
}

func (socketIO) Greets() bool           { return true }
func (socketIO) Settles() time.Duration { return 0 }

func (socketIO) Frame(payload []byte) ([]byte, bool) {
	switch {
	case bytes.HasPrefix(payload, []byte("0")): // Engine.IO is open: connect to the namespace
		return []byte("40"), false
	case bytes.HasPrefix(payload, []byte("40")):
		return nil, true
	case string(payload) == "2": // ping
		return []byte("3"), false
	}
	return nil, false
}

func (socketIO) Say() []byte     { return []byte(`42["ping"]`) }
func (socketIO) Channel() string { return "" } // its adapter speaks MessagePack
func (socketIO) Notify(host string, message []byte) []byte {
	return wire.Post(host, "/notify", notifyBody(message), jsonType)
}

// nchan is nginx's module: channels by name, messages as they are.
type nchan struct{}

func (nchan) Upgrade(host string, user int, _ int64) []byte {
	return wire.Upgrade(host, "/sub?id="+wire.UserID(user))
}

func (nchan) Greets() bool { return false }

// Settles: nchan answers the handshake before it has found the newest message in
// Redis, and skips what is published meanwhile, though it counts the subscriber.
func (nchan) Settles() time.Duration { return time.Second }

func (nchan) Frame([]byte) ([]byte, bool) { return nil, false }
func (nchan) Say() []byte                 { return nil } // its subscribers only listen
func (nchan) Channel() string             { return "" }  // its Redis scripts are its own
func (nchan) Notify(host string, message []byte) []byte {
	return wire.Post(host, "/pub?id="+wire.AnyUser, message, jsonType)
}
