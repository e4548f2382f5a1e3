package server

import (
	"cmp"
	"errors"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/broker"
	"herald/notify"
	"herald/patterns/idempotent"
)

// receipt is the answer for one notification of several.
type receipt struct {
	UserID string    `json:"userId,omitempty"`
	OK     bool      `json:"ok"`
	ID     notify.ID `json:"id,omitempty"` // none: ephemeral
	Nodes  *int      `json:"nodes,omitempty"`

	Skipped   string `json:"skipped,omitempty"`   // why the recipient does not get it; neither ID nor Nodes then
	Scheduled string `json:"scheduled,omitempty"` // with DeliverAt instead of ID and Nodes
	DeliverAt string `json:"deliverAt,omitempty"`

	Error string    `json:"error,omitempty"`
	Users []receipt `json:"results,omitempty"` // of a batch's item with userIds
}

// notifyOne is POST /notify: one notification for one or many users.
func (s *Server) notifyOne(c *fiber.Ctx) error {
	var r notify.Request
	var all []notify.Draft
	idem, err := readPublish(c, func(body []byte) (err error) {
		if r, err = notify.ParseRequest(body); err == nil {
			r.TraceParent = traceParent(c)
			all = drafts(nil, r)
			if err = r.When.CheckAhead(time.Now(), -1); err == nil {
				err = notify.CheckVolume(all)
			}
		}
		return err
	})
	if err == nil && !r.Many && idem.Key == "" && !r.When.Scheduled() && s.Recipients == nil && s.Broker.Admits() {
		r, err := s.publishLimited(c, &all[0])
		if err != nil {
			return err
		}
		return answerReceipt(c, r)
	}
	if err := s.spend(c, len(all), err); err != nil {
		return err
	}
	if r.When.Scheduled() {
		return s.scheduleOne(c, r, all, idem)
	}
	receipts, err := s.publish(c, all, idem)
	if err != nil {
		return err
	}
	if r.Many {
		return answerJSON(c, fiber.StatusOK, receipt{OK: true, Users: userReceipts(r.Users, allPublished(receipts))})
	}
	return answerReceipt(c, receipts[0])
}

// readPublish reads what a publish consists of; parse is given the body.
func readPublish(c *fiber.Ctx, parse func(body []byte) error) (broker.Idempotency, error) {
	body, err := jsonBody(c)
	if err != nil {
		return broker.Idempotency{}, err
	}
	if err := parse(body); err != nil {
		return broker.Idempotency{}, err
	}
	return idempotency(c, body)
}

// spend takes the cost of a publish from its client's limit. A request that is
// refused with bad costs nothing, but its answer tells how things stand.
func (s *Server) spend(c *fiber.Ctx, cost int, bad error) error {
	if bad != nil {
		cost = 0
	}
	if err := s.limit(c, s.Publish, client(c), cost); err != nil {
		return err
	}
	return bad
}

// publish publishes what its recipients want and marks the answer if it is an
// earlier one's. What they don't want goes to the broker too, because it is part of
// the answer that an idempotency key stands for.
func (s *Server) publish(c *fiber.Ctx, all []notify.Draft, idem broker.Idempotency) ([]broker.Receipt, error) {
	if len(all) == 0 {
		return nil, nil
	}
	if s.Recipients != nil {
		s.Recipients.Mark(s.ctx, all)
	}
	receipts, replayed, err := s.Broker.Publish(s.ctx, all, idem)
	if replayed {
		c.Set("Idempotency-Replay", "true")
	}
	return receipts, err
}

// publishLimited takes the cost of one notification from its client's limit and
// publishes it, in one step: what most requests are takes one round trip.
func (s *Server) publishLimited(c *fiber.Ctx, d *notify.Draft) (broker.Receipt, error) {
	r, a, err := s.Broker.PublishAdmitted(s.ctx, d, s.Publish.Key(client(c)))
	var unasked error
	if !a.Asked {
		unasked = cmp.Or(err, errUnasked)
	}
	if err := s.limited(c, s.Publish.Decide(1, a.Clock, a.Numbers, unasked)); err != nil {
		return r, err
	}
	return r, err
}

var errUnasked = errors.New("the window's script failed")

// answerReceipt writes {"ok":true,"id":…,"nodes":…} without reflection: it is
// the answer to nearly every request.
func answerReceipt(c *fiber.Ctx, r broker.Receipt) error {
	if r.Skip != 0 {
		return answerJSON(c, fiber.StatusOK, published(r))
	}
	b := make([]byte, 0, 64)
	b = append(b, `{"ok":true`...)
	if r.ID != 0 {
		b = append(b, `,"id":`...)
		b = strconv.AppendInt(b, int64(r.ID), 10)
	}
	b = append(b, `,"nodes":`...)
	b = strconv.AppendInt(b, int64(r.Nodes), 10)
	b = append(b, '}')
	return sendJSON(c, b)
}

// notifyBatch is POST /notify/batch: a bad item is answered in its place and
// does not fail the others. What is good is stored together or not at all.
func (s *Server) notifyBatch(c *fiber.Ctx) error {
	var items []notify.BatchItem
	var all []notify.Draft
	idem, err := readPublish(c, func(body []byte) (err error) {
		if items, err = notify.ParseBatch(body); err == nil {
			checkAhead(items)
			all, err = batchDrafts(items, traceParent(c))
		}
		return err
	})
	if err := s.spend(c, len(all), err); err != nil {
		return err
	}
	if whens := batchWhens(items); whens != nil {
		return s.scheduleBatch(c, items, all, whens, idem)
	}
	receipts, err := s.publish(c, all, idem)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, batchAnswer{true, batchReceipts(items, allPublished(receipts))})
}

type batchAnswer struct {
	OK      bool      `json:"ok"`
	Results []receipt `json:"results"`
}

// batchDrafts are the drafts of a batch's good items.
func batchDrafts(items []notify.BatchItem, trace string) (all []notify.Draft, err error) {
	for _, item := range items {
		if item.Err == nil {
			item.TraceParent = trace
			all = drafts(all, item.Request)
		}
	}
	if len(all) > notify.MaxRecipients {
		return nil, &notify.FieldError{Field: "notifications", Problem: "are for more than 1000 users together"}
	}
	return all, notify.CheckVolume(all)
}

// drafts appends one draft for each recipient of r.
func drafts(list []notify.Draft, r notify.Request) []notify.Draft {
	for _, user := range r.Users {
		d := r.Draft
		d.UserID = user
		list = append(list, d)
	}
	return list
}

// published is the answer for a notification that was delivered at once, or that
// its recipient does not want.
func published(r broker.Receipt) receipt {
	if r.Skip != 0 {
		return receipt{OK: true, Skipped: r.Skip.String()}
	}
	return receipt{OK: true, ID: r.ID, Nodes: &r.Nodes}
}

func allPublished(receipts []broker.Receipt) []receipt {
	list := make([]receipt, len(receipts))
	for i := range receipts {
		list[i] = published(receipts[i])
	}
	return list
}

// userReceipts adds to outcomes, one for each user, whose they are.
func userReceipts(users []string, outcomes []receipt) []receipt {
	for i, user := range users {
		outcomes[i].UserID = user
	}
	return outcomes
}

// batchReceipts puts outcomes, one for each draft, in the places of their items.
func batchReceipts(items []notify.BatchItem, outcomes []receipt) []receipt {
	list := make([]receipt, len(items))
	for i, item := range items {
		n := len(item.Users)
		switch {
		case item.Err != nil:
			list[i] = receipt{Error: item.Err.Error()}
		case item.Many:
			list[i] = receipt{OK: true, Users: userReceipts(item.Users, outcomes[:n])}
		default:
			list[i] = outcomes[0]
		}
		if item.Err == nil {
			outcomes = outcomes[n:]
		}
	}
	return list
}

// client names who publishes, as the limiter and the idempotency keys know them:
// an API key by its name; a token by its subject, marked so that no key's name
// is the same.
func client(c *fiber.Ctx) string {
	p := principal(c)
	if p.Method == auth.MethodAPIKey {
		return p.Name
	}
	return string(p.Method) + "@" + p.Name
}

// idempotency reads the Idempotency-Key header. The fingerprint covers the path
// and the body.
func idempotency(c *fiber.Ctx, body []byte) (broker.Idempotency, error) {
	v := values(c, "Idempotency-Key")
	if len(v) == 0 {
		return broker.Idempotency{}, nil
	}
	if len(v) > 1 {
		return broker.Idempotency{}, badRequest("there are several Idempotency-Key headers")
	}
	key, err := idempotent.ParseKey(v[0])
	if err != nil {
		return broker.Idempotency{}, badRequest("Idempotency-Key " + err.Error())
	}
	return broker.Idempotency{Client: client(c), Key: key, Print: idempotent.Fingerprint(c.Path(), body)}, nil
}

// traceParent returns the request's W3C trace context, "" if it has none that
// is valid.
func traceParent(c *fiber.Ctx) string {
	if v := c.Request().Header.Peek("Traceparent"); notify.ValidTraceParent(string(v)) {
		return string(v)
	}
	return ""
}
