// Package publishing takes a notification from a publisher to its receipt, in the same
// order for every entrance: the publisher's limit, the recipients' preferences, then the
// schedule or the broker. It does not depend on HTTP.
//
// A request is accepted as a whole or refused as a whole. After redisx.ErrUnavailable
// nothing of it is delivered, unless Redis's reply was lost or too few replicas
// acknowledged in time.
package publishing

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"

	"herald/broker"
	"herald/internal/schedule"
	"herald/limiter"
	"herald/notify"
	"herald/patterns/idempotent"
)

// ErrDenied means that the publisher's limit refused the request. Outcome.Decision says
// when to retry.
var ErrDenied = errors.New("publishing: the publisher's limit refused this")

// Recipients sets Skip and Quiet of drafts as their recipients want. It returns within a
// time limit, and leaves a draft unchanged if the preferences are not known by then.
type Recipients interface {
	Mark(ctx context.Context, drafts []notify.Draft)
}

// Schedule stores notifications until they are due (schedule.Scheduler).
type Schedule interface {
	Add(ctx context.Context, items []schedule.Item, f schedule.Fence) ([]schedule.Placed, error)
	AddPending(ctx context.Context, items []schedule.Item, f schedule.Fence, commit string) ([]schedule.Placed, error)
	Confirm(ctx context.Context, list []schedule.Placed, commit string)
}

// Publisher publishes the requests of all clients. Every field is required, except
// Recipients: nil means that every recipient wants everything.
type Publisher struct {
	Broker      *broker.Broker
	Limit       *limiter.Limiter // by client; 1 for each recipient of each notification
	Recipients  Recipients
	Schedule    Schedule
	Idempotency func(client string) *idempotent.Processor // for requests that take more than one script
}

// Receipt is the result for one recipient of one notification.
type Receipt struct {
	broker.Receipt
	Scheduled *schedule.Placed // not nil: it is delivered later, and the rest is zero
}

// Outcome is the result of a publish.
type Outcome struct {
	Decision limiter.Decision // of the limit; set also if the request was refused
	Body     []byte           // what Request.Render returned, for this request or the one that it repeats
	Replayed bool             // an earlier request with the same idempotency key was answered
}

// Publish publishes a request of the client, or schedules it, or both. The request must
// have been checked (Request.Check); one with Refused set costs nothing and returns
// that error, with the limit's state in Outcome.Decision.
//
// Its errors are Refused, ErrDenied and those of the broker, the schedule and the
// idempotency records.
func (p *Publisher) Publish(ctx context.Context, client string, r *Request) (Outcome, error) {
	out, err := p.publish(ctx, client, r)
	if err == nil {
		p.Limit.CountFailedOpen(out.Decision)
	}
	return out, err
}

func (p *Publisher) publish(ctx context.Context, client string, r *Request) (Outcome, error) {
	if p.oneRoundTrip(r) {
		return p.publishAdmitted(ctx, client, r)
	}
	cost := len(r.drafts)
	if r.Refused != nil {
		cost = 0
	}
	out := Outcome{Decision: p.Limit.Ask(ctx, client, cost)}
	switch {
	case !out.Decision.Allowed:
		return out, ErrDenied
	case r.Refused != nil:
		return out, r.Refused
	}
	var err error
	if r.scheduled == 0 {
		var receipts []Receipt
		if receipts, out.Replayed, err = p.publishNow(ctx, r.drafts, r.Idempotency); err == nil {
			out.Body, err = r.Render(receipts)
		}
		return out, err
	}
	out.Body, out.Replayed, err = p.runKeyed(ctx, r, func(ctx context.Context, f schedule.Fence) ([]byte, error) {
		receipts, err := p.schedule(ctx, r, f)
		if err != nil {
			return nil, err
		}
		return r.Render(receipts)
	})
	return out, err
}

// oneRoundTrip reports whether one script can do everything: most requests are like that.
func (p *Publisher) oneRoundTrip(r *Request) bool {
	return r.Refused == nil && len(r.drafts) == 1 && !r.Batch && !r.Items[0].Many && r.Idempotency.Key == "" && r.scheduled == 0 &&
		p.Recipients == nil && p.Broker.Admits()
}

var errUnasked = errors.New("the window's script failed")

// publishAdmitted asks the limit and publishes in one script.
func (p *Publisher) publishAdmitted(ctx context.Context, client string, r *Request) (Outcome, error) {
	receipt, a, err := p.Broker.PublishAdmitted(ctx, &r.drafts[0], p.Limit.Key(client))
	var unasked error
	if !a.Asked {
		unasked = cmp.Or(err, errUnasked)
	}
	out := Outcome{Decision: p.Limit.Decide(1, a.Clock, a.Numbers, unasked)}
	if !out.Decision.Allowed {
		return out, ErrDenied
	}
	if err == nil {
		out.Body, err = r.Render([]Receipt{{Receipt: receipt}})
	}
	return out, err
}

// publishNow marks and publishes drafts. Those that a recipient does not want go to the
// broker too: their receipts belong to the answer that the idempotency key stands for.
func (p *Publisher) publishNow(ctx context.Context, drafts []notify.Draft, idem broker.Idempotency) ([]Receipt, bool, error) {
	if len(drafts) == 0 {
		return nil, false, nil
	}
	p.mark(ctx, drafts)
	published, replayed, err := p.Broker.Publish(ctx, drafts, idem)
	receipts := make([]Receipt, len(published))
	for i := range published {
		receipts[i].Receipt = published[i]
	}
	return receipts, replayed, err
}

func (p *Publisher) mark(ctx context.Context, drafts []notify.Draft) {
	if p.Recipients != nil {
		p.Recipients.Mark(ctx, drafts)
	}
}

// runKeyed runs the work of a request. With an idempotency key it runs it once, and a
// repetition gets the recorded body. The work takes effect once under its fence and key,
// so an attempt that died is repeated.
func (p *Publisher) runKeyed(ctx context.Context, r *Request, work func(context.Context, schedule.Fence) ([]byte, error)) ([]byte, bool, error) {
	idem := r.Idempotency
	if idem.Key == "" {
		body, err := work(ctx, schedule.Fence{})
		return body, false, err
	}
	body, replayed, err := p.Idempotency(idem.Client).Do(ctx, idem.Key, idem.Print, func(ctx context.Context, a idempotent.Attempt) ([]byte, error) {
		return work(ctx, schedule.Fence{Key: a.Key, Token: a.Token})
	})
	if errors.Is(err, idempotent.ErrNotRecorded) {
		err = nil // the work is done, and a repetition finds it done
	}
	return body, replayed, err
}

// schedule schedules what is for later and publishes the rest. Preferences apply when a
// notification is delivered, so the scheduled ones are marked when they are due.
//
// Neither half may take effect without the other. So the later half is first stored as
// pending, under a commit key that the publish of the other half creates in the step
// that announces it. A pending entry is delivered only if its commit key exists:
//   - Redis or this node fails before the publish: the key never exists, and the worker of
//     any node removes the entries.
//   - They fail after the publish: the key exists, and the worker keeps the entries.
//
// Confirm resolves the entries without that wait, also after a failed publish. It is not
// called after a failed publish with an idempotency key: a repetition goes on from there.
func (p *Publisher) schedule(ctx context.Context, r *Request, f schedule.Fence) ([]Receipt, error) {
	later, now := r.split()
	if len(now) == 0 {
		list, err := p.Schedule.Add(ctx, later, f)
		return merge(r, list, nil), err
	}
	idem := r.Idempotency
	idem.Key += "\x00now" // no key of a client holds a control character
	if r.Idempotency.Key == "" {
		idem = broker.Idempotency{Client: r.Idempotency.Client, Key: "\x00" + rand.Text(), Print: "-"}
	}
	list, err := p.Schedule.AddPending(ctx, later, f, idem.RecordKey())
	if err != nil {
		return nil, err
	}
	receipts, _, err := p.publishNow(ctx, now, idem)
	if err == nil || r.Idempotency.Key == "" {
		p.Schedule.Confirm(ctx, list, idem.RecordKey())
	}
	if err != nil {
		return nil, err
	}
	return merge(r, list, receipts), nil
}

// Due publishes scheduled notifications as if they were sent now: their recipients'
// preferences apply now. It publishes each once, however often it is called, because the
// entry in the schedule is the ticket of its publish. It is a schedule.Deliver.
func (p *Publisher) Due(ctx context.Context, due []schedule.Due) (published int, err error) {
	drafts := make([]notify.Draft, len(due))
	tickets := make([]broker.Ticket, len(due))
	for i, d := range due {
		drafts[i] = d.Draft
		tickets[i] = broker.Ticket{Key: d.Key, Field: d.Field}
	}
	p.mark(ctx, drafts)
	receipts, err := p.Broker.PublishTickets(ctx, drafts, tickets)
	for _, r := range receipts {
		if !r.LeftOut {
			published++
		}
	}
	return published, err
}
