package hub

import (
	"sync/atomic"

	"herald/notify"
)

// Stats counts what the hub has done since New.
type Stats struct {
	Delivered  uint64 // messages × sockets
	Absent     uint64 // messages for users without sockets on this node
	Duplicates uint64 // stored messages that the user's sockets already had
	Repairs    uint64 // repairs of a user from the log
	Repaired   uint64 // messages delivered by repairs
	Gaps       uint64 // gap frames, to one socket or all of a user
	Shed       uint64 // ephemeral messages dropped because more than 4 MiB waited for one user's sockets
	Dead       uint64 // sockets closed because the peer was silent or took no byte
	Closed     map[notify.CloseCode]uint64
}

type stats struct {
	delivered, absent, duplicates, repairs, repaired, gaps, shed, dead atomic.Uint64

	closed [len(closeCodes)]atomic.Uint64
}

// closeCodes are the codes with a counter each; others are not counted.
var closeCodes = [...]notify.CloseCode{
	notify.CloseNormal, notify.CloseProtocol, notify.CloseUnsupported, notify.CloseNotUTF8, notify.CloseTooBig,
	notify.CloseExpired, notify.CloseRevoked, notify.CloseMisuse, notify.CloseTooManyConns,
	notify.CloseDraining, notify.CloseTooSlow, notify.CloseOverloaded,
}

func (s *stats) close(code notify.CloseCode) {
	for i, c := range closeCodes {
		if c == code {
			s.closed[i].Add(1)
		}
	}
}

// Stats returns the counts so far.
func (h *Hub) Stats() Stats {
	closed := make(map[notify.CloseCode]uint64, len(closeCodes))
	for i, c := range closeCodes {
		closed[c] = h.stats.closed[i].Load()
	}
	return Stats{
		Delivered: h.stats.delivered.Load(), Absent: h.stats.absent.Load(), Duplicates: h.stats.duplicates.Load(),
		Repairs: h.stats.repairs.Load(), Repaired: h.stats.repaired.Load(), Gaps: h.stats.gaps.Load(),
		Shed: h.stats.shed.Load(), Dead: h.stats.dead.Load(), Closed: closed,
	}
}
