package broker

import (
	"context"
	"fmt"

	"herald/notify"
)

// Ticket lets one notification be published once: a field of a Redis hash, which a publish
// removes in the step that stores and announces. The hash belongs to the caller's package.
// Field must not be empty or contain spaces.
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
	c := newCall(&b.ticketsScript, b.o.Budget)
	defer c.release()
	for i := range drafts {
		c.add(&drafts[i])
	}
	for _, ticket := range tickets {
		c.keys = append(c.keys, ticket.Key)
		c.extra = append(append(c.extra, ticket.Field...), ' ')
	}
	ctx, cancel := b.budget(ctx)
	defer cancel()
	receipts, _, err := c.receipts(ctx, b, len(drafts))
	return receipts, err
}
