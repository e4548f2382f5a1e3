package stream

import "time"

// A client may send this much; more closes its connection with 4003. A client's
// messages are a few dozen bytes; pings and empty fragments cost it six bytes each.
// From a client of server-sent events nothing is expected at all.
const (
	inboundRate  = 16 << 10 // bytes per second
	inboundBurst = 64 << 10 // bytes at once
)

// inbound is a client's budget of bytes to send, a token bucket. The zero value is full.
type inbound struct {
	spent int64 // bytes, at most inboundBurst
	at    int64 // Unix ns at which spent was computed
}

// spend takes n bytes from the budget; false if that is more than is left.
func (b *inbound) spend(n int, now time.Time) bool {
	ns := now.UnixNano()
	regained := min(max(ns-b.at, 0), int64(time.Hour)) * inboundRate / int64(time.Second)
	b.spent, b.at = max(b.spent-regained, 0)+int64(n), ns
	return b.spent <= inboundBurst
}
