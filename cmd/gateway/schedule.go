package main

import (
	"context"
	"time"

	"herald/broker"
	"herald/internal/schedule"
	"herald/notify"
	"herald/patterns/idempotent"
)

func (g *gateway) newSchedule(node string) *schedule.Scheduler {
	return schedule.New(g.commands, node, g.deliverDue, schedule.Options{
		Budget: g.budget, WaitReplicas: g.cfg.WaitReplicas, WaitTimeout: g.cfg.WaitTimeout, Log: g.log,
	})
}

// deliverDue publishes what is due, as it would be if it were sent now: whatever
// depends on its recipient or its kind is decided here, not when it was
// scheduled. An entry is its own ticket.
func (g *gateway) deliverDue(ctx context.Context, due []schedule.Due) (published int, err error) {
	drafts := make([]notify.Draft, len(due))
	tickets := make([]broker.Ticket, len(due))
	for i, d := range due {
		drafts[i] = d.Draft
		tickets[i] = broker.Ticket{Key: d.Key, Field: d.Field}
	}
	if wants := g.remote.recipients(); wants != nil {
		wants.Mark(ctx, drafts)
	}
	receipts, err := g.broker.PublishTickets(ctx, drafts, tickets)
	for _, r := range receipts {
		if !r.LeftOut {
			published++
		}
	}
	return published, err
}

const (
	onceLease = 5 * time.Second // of a request that died: until it may be repeated
	onceKeep  = 24 * time.Hour  // as the broker keeps its own keys
)

// once is for requests of a client that take more than one script.
func (g *gateway) once(client string) *idempotent.Processor {
	return idempotent.New(g.commands, client, idempotent.Options{Lease: onceLease, Keep: onceKeep, Budget: g.budget})
}
