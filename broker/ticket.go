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

// PublishHeld publishes, as Publish does, those drafts whose ticket is still
// there, and takes it away: whatever is repeated, whoever died in between, a
// ticket is never good for two. There must be a ticket for each draft. Drafts
// that were left out have a receipt with Nodes -1.
//
// After redisx.ErrUnavailable it may be repeated as it is, or in parts. It never waits
// for replicas: one that takes over without the publish has the ticket still.
func (b *Broker) PublishHeld(ctx context.Context, drafts []notify.Draft, tickets []Ticket) ([]Receipt, error) {
	if len(tickets) != len(drafts) {
		return nil, fmt.Errorf("publish: %d tickets for %d notifications", len(tickets), len(drafts))
	}
	receipts, _, err := b.publishAll(ctx, drafts, Idempotency{}, tickets)
	return receipts, err
}
