package main

import (
	"time"

	"herald/internal/schedule"
	"herald/limiter"
	"herald/patterns/idempotent"
	"herald/publishing"
)

const (
	idempotencyLease = 5 * time.Second // after which a request whose node died may be repeated
	idempotencyKeep  = 24 * time.Hour  // as the broker keeps its own keys
)

// newPublisher returns the publisher and the scheduler, which need each other.
func (g *gateway) newPublisher(limit *limiter.Limiter) (*publishing.Publisher, *schedule.Scheduler) {
	p := &publishing.Publisher{Broker: g.broker, Limit: limit, Idempotency: func(client string) *idempotent.Processor {
		return idempotent.New(g.commands, client, idempotent.Options{Lease: idempotencyLease, Keep: idempotencyKeep, Budget: g.budget})
	}}
	if g.remote.directory != nil { // never an interface that holds nil
		p.Recipients = g.remote.directory
	}
	s := schedule.New(g.commands, g.node, p.Due, schedule.Options{
		Budget: g.budget, WaitReplicas: g.cfg.WaitReplicas, WaitTimeout: g.cfg.WaitTimeout, Log: g.log,
	})
	p.Schedule = s
	return p, s
}
