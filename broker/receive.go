package broker

import (
	"strconv"
	"strings"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"

	"herald/notify"
)

// receiver passes messages of one Listen to its handlers. Owned by its goroutine.
type receiver struct {
	*Broker
	h     Handlers
	frame []byte // memory for the frame of another program's message
}

// receive handles a message that go-redis has read.
func (r *receiver) receive(m *redis.Message) {
	if m.Pattern == channelPattern {
		r.user(m.Channel, m.Payload)
		return
	}
	r.sub.received.Add(1)
	if m.Pattern == "" {
		r.control(m)
	} else {
		r.h.Patterns[m.Pattern](m.Channel, m.Payload)
	}
}

func (r *receiver) control(m *redis.Message) {
	if m.Channel != readChannel {
		r.h.Channels[m.Channel](m.Payload)
		return
	}
	userID, frame, ok := strings.Cut(m.Payload, " ")
	if !ok || !notify.ValidUserID(userID) || notify.CheckJSON(bytesOf(frame)) != nil {
		r.drop("not a read frame", m.Channel)
		return
	}
	r.h.Deliver(userID, notify.Frame{Event: "read", JSON: frame})
}

// user handles a message that matched channelPattern. Both strings are valid until it returns.
func (r *receiver) user(ch, payload string) {
	r.sub.received.Add(1)
	userID, ok := cutChannel(ch)
	switch {
	case !ok:
		r.drop("channel names no user", ch)
	case userID[0] == canaryMark[0]:
		if userID[1:] == r.o.Node {
			r.sub.heard.Store(int64(time.Since(r.start)))
		}
	default:
		r.message(userID, payload)
	}
}

// message passes our own frames on unchanged. It wraps JSON that another program published
// on a user's channel in an ephemeral frame.
func (r *receiver) message(userID, payload string) {
	if id, prev, ok := notify.ParseStored(payload); ok {
		r.h.Deliver(userID, notify.Frame{Event: "notification", ID: id, Prev: prev, JSON: payload})
		return
	}
	if notify.IsEphemeral(payload) {
		r.h.Deliver(userID, notify.Frame{Event: "notification", JSON: payload})
		return
	}
	if len(payload) > notify.MaxMessageBytes {
		r.drop("message of "+strconv.Itoa(len(payload))+" bytes", channel(userID))
		return
	}
	raw := bytesOf(payload)
	if err := notify.CheckJSON(raw); err != nil {
		r.drop("message "+err.Error(), channel(userID))
		return
	}
	r.sub.foreign.Add(1)
	r.frame = notify.AppendEphemeral(r.frame[:0], &notify.Draft{Message: raw}, time.Now().UnixMilli())
	r.h.Deliver(userID, notify.Frame{Event: "notification", JSON: view(r.frame)})
}

// drop counts a message that cannot be delivered, and logs at most one a second.
func (b *Broker) drop(why, ch string) {
	b.sub.malformed.Add(1)
	if b.sub.warnings.Allow() {
		b.o.Log.Warn("dropped a published message", "why", why, "channel", strconv.QuoteToASCII(clip(ch, 160)))
	}
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// bytesOf returns the bytes of s without a copy; they must not be changed.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// view returns b as a string without a copy; b must not change while it is used.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
