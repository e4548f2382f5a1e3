// Package target starts the servers to measure and speaks their protocols: the
// gateway, and the servers it is compared with.
package target

import (
	"bytes"
	"strconv"
	"time"

	"herald/loadtest/wire"
)

// Dialect is the protocol of one kind of server. Its methods are safe for concurrent
// use.
type Dialect interface {
	// Upgrade returns the request that opens a socket of a user and resumes after
	// the id since; negative: no resume.
	Upgrade(host string, user int, since int64) []byte
	// Greets reports whether a socket opens with a frame that Frame recognises,
	// rather than with the handshake.
	Greets() bool
	// ReadyDelay is the time for which an open socket may still miss messages.
	ReadyDelay() time.Duration
	// Frame handles a text that is not a notification. It returns the answer (nil:
	// none) and whether the socket is now open.
	Frame(payload []byte) (answer []byte, open bool)
	// SendText returns a text that a client may send; nil: none.
	SendText() []byte
	// Notify returns the request that publishes a message to wire.AnyUser.
	Notify(host string, message []byte) []byte
	// Channel returns the Redis channel on which a PUBLISH reaches the sockets of
	// wire.AnyUser; "": none.
	Channel() string
}

const jsonType = "Content-Type: application/json"

// herald is the gateway's protocol.
type herald struct {
	simple
	key      string   // a backend's API key
	sessions []string // session ids by user
}

func (h *herald) Upgrade(host string, user int, since int64) []byte {
	target := "/ws"
	if since >= 0 {
		target += "?since=" + strconv.FormatInt(since, 10)
	}
	return wire.Upgrade(host, target, "Origin: http://"+host, "Sec-WebSocket-Protocol: herald.v1", "Cookie: sid="+h.sessions[user])
}

func (*herald) Greets() bool { return true }

func (*herald) Frame(payload []byte) ([]byte, bool) {
	return nil, bytes.HasPrefix(payload, []byte(`{"type":"hello"`))
}

func (*herald) SendText() []byte { return []byte(`{"type":"ping"}`) }

func (h *herald) Notify(host string, message []byte) []byte {
	return wire.Post(host, "/notify", notifyBody(message), jsonType, h.authorization())
}

func (h *herald) authorization() string { return "Authorization: Bearer " + h.key }

func (*herald) Channel() string { return userChannel }

const userChannel = "user:" + wire.AnyUser + ":events"

func notifyBody(message []byte) []byte {
	return append(append([]byte(`{"userId":"`+wire.AnyUser+`","message":`), message...), '}')
}

// simple holds the defaults of a Dialect: a socket opens with the handshake, clients
// only listen, and POST /notify publishes.
type simple struct{}

func (simple) Greets() bool                { return false }
func (simple) ReadyDelay() time.Duration   { return 0 }
func (simple) Frame([]byte) ([]byte, bool) { return nil, false }
func (simple) SendText() []byte            { return nil }
func (simple) Channel() string             { return "" }
func (simple) Notify(host string, message []byte) []byte {
	return wire.Post(host, "/notify", notifyBody(message), jsonType)
}

// baseline is the Node baseline, peers/baseline.js.
type baseline struct{ simple }

func (baseline) Upgrade(host string, user int, _ int64) []byte {
	return wire.Upgrade(host, "/ws?userId="+wire.UserID(user))
}

func (baseline) SendText() []byte { return []byte(`{"type":"ping"}`) }
func (baseline) Channel() string  { return userChannel }

// socketIO is socket.io 4 over WebSocket only: an Engine.IO packet is a digit and a
// payload. It has no Channel, because its adapter encodes with MessagePack.
type socketIO struct{ simple }

func (socketIO) Upgrade(host string, user int, _ int64) []byte {
	return wire.Upgrade(host, "/socket.io/?EIO=4&transport=websocket&userId="+wire.UserID(user))
}

func (socketIO) Greets() bool { return true }

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

func (socketIO) SendText() []byte { return []byte(`42["ping"]`) }

// nchan is nginx with the module nchan: a channel per user, messages unchanged. It
// has no Channel, because its Redis scripts are internal.
type nchan struct{ simple }

func (nchan) Upgrade(host string, user int, _ int64) []byte {
	return wire.Upgrade(host, "/sub?id="+wire.UserID(user))
}

// ReadyDelay of nchan is a second: it answers the handshake before it has read the
// newest message from Redis, and skips messages published in between.
func (nchan) ReadyDelay() time.Duration { return time.Second }

func (nchan) Notify(host string, message []byte) []byte {
	return wire.Post(host, "/pub?id="+wire.AnyUser, message, jsonType)
}
