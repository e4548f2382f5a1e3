package server

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/broker"
	"herald/internal/schedule"
	"herald/notify"
	"herald/patterns/idempotent"
)

// Publishes with deliverAt or delay, and what becomes of them until they are due.

// placed is the answer for a notification that is delivered later.
func placed(p schedule.Placed) receipt {
	return receipt{OK: true, Scheduled: p.ID, DeliverAt: timeText(p.At)}
}

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// scheduleOne is POST /notify for later.
func (s *Server) scheduleOne(c *fiber.Ctx, r notify.Request, all []notify.Draft, idem broker.Idempotency) error {
	items := make([]schedule.Item, len(all))
	for i := range all {
		items[i] = schedule.Item{Draft: all[i], When: r.When}
	}
	return s.once(c, idem, func(ctx context.Context, f schedule.Fence) ([]byte, error) {
		list, err := s.Schedule.Add(ctx, items, f)
		if err != nil {
			return nil, err
		}
		if !r.Many {
			return json.Marshal(placed(list[0]))
		}
		outcomes := make([]receipt, len(list))
		for i := range list {
			outcomes[i] = placed(list[i])
		}
		return json.Marshal(receipt{OK: true, Users: userReceipts(r.Users, outcomes)})
	})
}

// checkAhead gives the items of a batch that are too far ahead their error. The
// node's own clock decides this, and nothing else.
func checkAhead(items []notify.BatchItem) {
	for i := range items {
		if items[i].Err == nil {
			items[i].Err = items[i].When.CheckAhead(time.Now(), i)
		}
	}
}

// batchWhens are the times of a batch's drafts, nil if all of them are for now.
func batchWhens(items []notify.BatchItem) (whens []notify.When) {
	later := false
	for _, item := range items {
		if item.Err == nil {
			later = later || item.When.Scheduled()
			for range item.Users {
				whens = append(whens, item.When)
			}
		}
	}
	if !later {
		return nil
	}
	return whens
}

// scheduleBatch is POST /notify/batch if some of it is for later: what is for
// later is scheduled first, then the rest published, so that nothing has been
// announced if either fails. If that is the second, and there is no idempotency
// key by which a repetition would go on from there, what was scheduled is
// cancelled.
func (s *Server) scheduleBatch(c *fiber.Ctx, items []notify.BatchItem, all []notify.Draft, whens []notify.When, idem broker.Idempotency) error {
	var later []schedule.Item
	var now []notify.Draft
	for i := range all {
		if whens[i].Scheduled() {
			later = append(later, schedule.Item{Draft: all[i], When: whens[i]})
		} else {
			now = append(now, all[i])
		}
	}
	return s.once(c, idem, func(ctx context.Context, f schedule.Fence) ([]byte, error) {
		list, err := s.Schedule.Add(ctx, later, f)
		if err != nil {
			return nil, err
		}
		receipts, err := s.publishRest(ctx, now, idem)
		if err != nil {
			if idem.Key == "" {
				s.takeBack(list)
			}
			return nil, err
		}
		outcomes := make([]receipt, len(all))
		for i := range outcomes {
			if whens[i].Scheduled() {
				outcomes[i], list = placed(list[0]), list[1:]
			} else {
				outcomes[i], receipts = published(receipts[0]), receipts[1:]
			}
		}
		return json.Marshal(batchAnswer{true, batchReceipts(items, outcomes)})
	})
}

// publishRest publishes under a key of its own beside the request's: no client's
// holds a control character.
func (s *Server) publishRest(ctx context.Context, now []notify.Draft, idem broker.Idempotency) ([]broker.Receipt, error) {
	if len(now) == 0 {
		return nil, nil
	}
	if idem.Key != "" {
		idem.Key += "\x00now"
	}
	receipts, _, err := s.Broker.Publish(ctx, now, idem)
	return receipts, err
}

func (s *Server) takeBack(list []schedule.Placed) {
	for _, p := range list {
		if err := s.Schedule.Cancel(s.ctx, p.ID); err != nil && !errors.Is(err, schedule.ErrNotFound) {
			return // Redis is away: so would be the next
		}
	}
}

// once does the work of a request and sends its answer: with an idempotency key
// once, and the recorded answer from then on. Both halves of the work are exact
// under its fence and key, so that an attempt which died is simply repeated.
func (s *Server) once(c *fiber.Ctx, idem broker.Idempotency, work func(context.Context, schedule.Fence) ([]byte, error)) error {
	if idem.Key == "" {
		body, err := work(s.ctx, schedule.Fence{})
		if err != nil {
			return err
		}
		return sendJSON(c, body)
	}
	body, replayed, err := s.Once(idem.Client).Do(s.ctx, idem.Key, idem.Print, func(ctx context.Context, a idempotent.Attempt) ([]byte, error) {
		return work(ctx, schedule.Fence{Key: a.Key, Token: a.Token})
	})
	// What is not recorded is done all the same: a repetition finds it so.
	if err != nil && !errors.Is(err, idempotent.ErrNotRecorded) {
		return err
	}
	if replayed {
		c.Set("Idempotency-Replay", "true")
	}
	return sendJSON(c, body)
}

// cancelScheduled is DELETE /scheduled/<id>.
func (s *Server) cancelScheduled(c *fiber.Ctx) error {
	id, err := param(c, "id")
	if err != nil {
		return err
	}
	if err := s.Schedule.Cancel(s.ctx, id); err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, struct {
		Cancelled int `json:"cancelled"`
	}{1})
}

// Limits on a page of scheduled notifications.
const (
	defaultScheduled = 50
	maxScheduled     = 100
)

// listScheduled is GET /users/<id>/scheduled.
func (s *Server) listScheduled(c *fiber.Ctx) error {
	userID, err := userParam(c)
	if err != nil {
		return err
	}
	after, limit, err := scheduledQuery(c, userID)
	if err != nil {
		return err
	}
	list, more, err := s.Schedule.List(s.ctx, userID, after, limit)
	if err != nil {
		return err
	}
	b := append([]byte(`{"userId":"`+userID+`","scheduled":[`), appendScheduled(list)...)
	b = append(b, `],"next":`...)
	if !more {
		return sendJSON(c, append(b, "null}"...))
	}
	return sendJSON(c, append(strconv.AppendQuote(b, list[len(list)-1].ID), '}')) // an id needs no escapes
}

func scheduledQuery(c *fiber.Ctx, userID string) (after string, limit int, err error) {
	if v := queryValues(c, "after"); len(v) > 0 {
		after = v[0]
		if _, user, ok := schedule.ParseID(after); !ok || user != userID {
			return "", 0, &notify.FieldError{Field: "after", Problem: "must be the id of a scheduled notification of this user"}
		}
	}
	limit = defaultScheduled
	if v := queryValues(c, "limit"); len(v) > 0 {
		if limit, err = strconv.Atoi(v[0]); err != nil || limit < 1 || limit > maxScheduled {
			return "", 0, &notify.FieldError{Field: "limit", Problem: "must be a number from 1 to 100"}
		}
	}
	return after, limit, nil
}

// scheduledBody is a scheduled notification as the API shows it, but for its
// message, which is shown byte for byte as sent.
type scheduledBody struct {
	ID        string `json:"id"`
	DeliverAt string `json:"deliverAt"`
	Kind      string `json:"type,omitempty"`
	TTL       int64  `json:"ttl,omitempty"` // seconds
	Ephemeral bool   `json:"ephemeral,omitempty"`
}

func appendScheduled(list []schedule.Entry) (b []byte) {
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		d := &e.Draft
		head, _ := json.Marshal(scheduledBody{e.ID, timeText(e.At), d.Kind, int64(d.TTL / time.Second), d.Ephemeral}) // cannot fail
		b = append(b, head[:len(head)-1]...)
		b = append(append(append(b, `,"message":`...), d.Message...), '}')
	}
	return b
}
