package server

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/broker"
	"herald/notify"
)

// receipt is the answer for one notification of several.
type receipt struct {
	UserID  string    `json:"userId,omitempty"`
	OK      bool      `json:"ok"`
	ID      notify.ID `json:"id,omitempty"` // none: ephemeral
	Nodes   *int      `json:"nodes,omitempty"`
	Skipped string    `json:"skipped,omitempty"` // why the recipient does not get it; neither id nor nodes then
	Error   string    `json:"error,omitempty"`
	Users   []receipt `json:"results,omitempty"` // of a batch's item with userIds
}

func receiptOf(userID string, r *broker.Receipt) receipt {
	if r.Skip != 0 {
		return receipt{UserID: userID, OK: true, Skipped: r.Skip.String()}
	}
	return receipt{UserID: userID, OK: true, ID: r.ID, Nodes: &r.Nodes}
}

// notifyOne is POST /notify: one notification for one or many users.
func (s *Server) notifyOne(c *fiber.Ctx) error {
	var r notify.Request
	var all []notify.Draft
	idem, err := readPublish(c, func(body []byte) (err error) {
		if r, err = notify.ParseRequest(body); err == nil {
			r.TraceParent = traceParent(c)
			all = drafts(nil, r)
			err = notify.CheckVolume(all)
		}
		return err
	})
	if err := s.spend(c, len(all), err); err != nil {
		return err
	}
	receipts, err := s.publish(c, all, idem)
	if err != nil {
		return err
	}
	if r.Many {
		return answerJSON(c, fiber.StatusOK, receipt{OK: true, Users: userReceipts(r.Users, receipts)})
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

// answerReceipt writes {"ok":true,"id":…,"nodes":…} without reflection: it is
// the answer to nearly every request.
func answerReceipt(c *fiber.Ctx, r broker.Receipt) error {
	if r.Skip != 0 {
		return answerJSON(c, fiber.StatusOK, receiptOf("", &r))
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
			all, err = batchDrafts(items, traceParent(c))
		}
		return err
	})
	if err := s.spend(c, len(all), err); err != nil {
		return err
	}
	receipts, err := s.publish(c, all, idem)
	if err != nil {
		return err
	}
	return answerJSON(c, fiber.StatusOK, struct {
		OK      bool      `json:"ok"`
		Results []receipt `json:"results"`
	}{true, batchReceipts(items, receipts)})
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

func userReceipts(users []string, receipts []broker.Receipt) []receipt {
	list := make([]receipt, len(users))
	for i, user := range users {
		list[i] = receiptOf(user, &receipts[i])
	}
	return list
}

func batchReceipts(items []notify.BatchItem, receipts []broker.Receipt) []receipt {
	list := make([]receipt, len(items))
	for i, item := range items {
		n := len(item.Users)
		switch {
		case item.Err != nil:
			list[i] = receipt{Error: item.Err.Error()}
		case item.Many:
			list[i] = receipt{OK: true, Users: userReceipts(item.Users, receipts[:n])}
		default:
			list[i] = receiptOf("", &receipts[0])
		}
		if item.Err == nil {
			receipts = receipts[n:]
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

// maxIdempotencyKey is the longest Idempotency-Key in bytes.
const maxIdempotencyKey = 255

// idempotency reads the Idempotency-Key header: a string item of RFC 8941, whose
// quotes may be left out. The fingerprint covers the path and the body.
func idempotency(c *fiber.Ctx, body []byte) (broker.Idempotency, error) {
	v := values(c, "Idempotency-Key")
	if len(v) == 0 {
		return broker.Idempotency{}, nil
	}
	if len(v) > 1 {
		return broker.Idempotency{}, badRequest("there are several Idempotency-Key headers")
	}
	key, err := parseIdempotencyKey(v[0])
	if err != nil {
		return broker.Idempotency{}, badRequest("Idempotency-Key " + err.Error())
	}
	h := sha256.New()
	h.Write([]byte(c.Path()))
	h.Write([]byte{0})
	h.Write(body)
	return broker.Idempotency{Client: client(c), Key: key, Print: hex.EncodeToString(h.Sum(nil))}, nil
}

func parseIdempotencyKey(v string) (string, error) {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		v = v[1 : len(v)-1]
	}
	if v == "" || len(v) > maxIdempotencyKey {
		return "", errors.New("must be 1 to 255 bytes long")
	}
	if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", errors.New("must not hold control characters")
	}
	return v, nil
}

// traceParent returns the request's W3C trace context, "" if it has none that
// is valid.
func traceParent(c *fiber.Ctx) string {
	if v := c.Request().Header.Peek("Traceparent"); notify.ValidTraceParent(string(v)) {
		return string(v)
	}
	return ""
}
