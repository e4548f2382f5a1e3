package broker

import (
	"context"
	"fmt"

	"herald/notify"
)

// Ticket admits one notification once: a field of a Redis hash, which a publish
// takes away in the step that stores and announces. The hash belongs to whoever
// wrote it; Field must not hold spaces.
type Ticket struct{ Key, Field string }

// PublishTickets publishes, as Publish does, the drafts whose ticket still exists, and
// removes the ticket in the same step: however often a call is repeated, a ticket
// publishes once. Each draft needs a ticket. A draft without one has a receipt with
// LeftOut set.
//
// After redisx.ErrUnavailable the call may be repeated, whole or in parts. It never
// waits for replicas: a replica that takes over without the publish still has the ticket.
func (b *Broker) PublishTickets(ctx context.Context, drafts []notify.Draft, tickets []Ticket) ([]Receipt, error) {
	if len(tickets) != len(drafts) {
		return nil, fmt.Errorf("publish: %d tickets for %d notifications", len(tickets), len(drafts))
	}
	receipts, _, err := b.publishAll(ctx, drafts, Idempotency{}, tickets)
	return receipts, err
}
