package server

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/auth"
	"herald/broker"
	"herald/notify"
	"herald/patterns/idempotent"
	"herald/publishing"
)

// receipt is a result as the API shows it: of a recipient, or of a batch's item.
type receipt struct {
	UserID string    `json:"userId,omitempty"`
	OK     bool      `json:"ok"`
	ID     notify.ID `json:"id,omitempty"` // absent if ephemeral
	Nodes  *int      `json:"nodes,omitempty"`

	Skipped   string `json:"skipped,omitempty"`   // why the recipient does not get it; without ID and Nodes
	Scheduled string `json:"scheduled,omitempty"` // with DeliverAt instead of ID and Nodes
	DeliverAt string `json:"deliverAt,omitempty"`

	Error string    `json:"error,omitempty"`
	Users []receipt `json:"results,omitempty"` // of an item with userIds
}

type batchAnswer struct {
	OK      bool      `json:"ok"`
	Results []receipt `json:"results"`
}

// notifyOne is POST /notify: one notification for one or many users.
func (s *Server) notifyOne(c *fiber.Ctx) error {
	return s.publish(c, &publishing.Request{}, func(body []byte) ([]notify.BatchItem, error) {
		r, err := notify.ParseRequest(body)
		return []notify.BatchItem{{Request: r}}, err
	})
}

// notifyBatch is POST /notify/batch. A refused item is answered in its place and does not
// fail the others. The good items are accepted together or not at all.
func (s *Server) notifyBatch(c *fiber.Ctx) error {
	return s.publish(c, &publishing.Request{Batch: true}, notify.ParseBatch)
}

// publish parses a request, publishes it and sends the answer. Every answer has the
// limit's headers, also if the request is refused.
func (s *Server) publish(c *fiber.Ctx, r *publishing.Request, parse func(body []byte) ([]notify.BatchItem, error)) error {
	r.Refused = readPublish(c, r, parse)
	r.Render = func(receipts []publishing.Receipt) ([]byte, error) { return render(r, receipts) }
	out, err := s.Publisher.Publish(s.ctx, client(c), r)
	if err := s.limited(c, out.Decision); err != nil {
		return err
	}
	if out.Replayed {
		c.Set("Idempotency-Replay", "true")
	}
	if err != nil {
		return err
	}
	return sendJSON(c, out.Body)
}

func readPublish(c *fiber.Ctx, r *publishing.Request, parse func(body []byte) ([]notify.BatchItem, error)) error {
	body, err := jsonBody(c)
	if err != nil {
		return err
	}
	if r.Items, err = parse(body); err != nil {
		return err
	}
	r.TraceParent = traceParent(c)
	if err := r.Check(time.Now()); err != nil {
		return err
	}
	r.Idempotency, err = idempotency(c, body)
	return err
}

// render encodes the answer to a request.
func render(r *publishing.Request, receipts []publishing.Receipt) ([]byte, error) {
	if r.Batch {
		return json.Marshal(batchAnswer{true, itemReceipts(r.Items, receipts)})
	}
	if one := receipts[0]; !r.Items[0].Many && one.Scheduled == nil && one.Skip == 0 {
		return appendReceipt(make([]byte, 0, 64), one.Receipt), nil
	}
	return json.Marshal(itemReceipts(r.Items, receipts)[0])
}

// appendReceipt encodes {"ok":true,"id":…,"nodes":…} without reflection: it is the
// answer to most requests.
func appendReceipt(b []byte, r broker.Receipt) []byte {
	b = append(b, `{"ok":true`...)
	if r.ID != 0 {
		b = append(b, `,"id":`...)
		b = strconv.AppendInt(b, int64(r.ID), 10)
	}
	b = append(b, `,"nodes":`...)
	b = strconv.AppendInt(b, int64(r.Nodes), 10)
	return append(b, '}')
}

func recipientReceipt(r publishing.Receipt) receipt {
	switch {
	case r.Scheduled != nil:
		return receipt{OK: true, Scheduled: r.Scheduled.ID, DeliverAt: timeText(r.Scheduled.At)}
	case r.Skip != 0:
		return receipt{OK: true, Skipped: r.Skip.String()}
	}
	return receipt{OK: true, ID: r.ID, Nodes: &r.Nodes}
}

// itemReceipts returns one receipt for each item. receipts has one for each recipient of
// each good item.
func itemReceipts(items []notify.BatchItem, receipts []publishing.Receipt) []receipt {
	list := make([]receipt, len(items))
	for i, item := range items {
		switch {
		case item.Err != nil:
			list[i] = receipt{Error: item.Err.Error()}
			continue
		case item.Many:
			list[i] = receipt{OK: true, Users: make([]receipt, len(item.Users))}
			for j, user := range item.Users {
				list[i].Users[j] = recipientReceipt(receipts[j])
				list[i].Users[j].UserID = user
			}
		default:
			list[i] = recipientReceipt(receipts[0])
		}
		receipts = receipts[len(item.Users):]
	}
	return list
}

// client names the publisher for the limiter and the idempotency keys: an API key by its
// name; a token by its method and subject, joined by a character that no key's name has.
func client(c *fiber.Ctx) string {
	p := principal(c)
	if p.Method == auth.MethodAPIKey {
		return p.Name
	}
	return string(p.Method) + "@" + p.Name
}

// idempotency reads the Idempotency-Key header. The fingerprint covers the path and the
// body. Client is set also without a key.
func idempotency(c *fiber.Ctx, body []byte) (broker.Idempotency, error) {
	idem := broker.Idempotency{Client: client(c)}
	v := values(c, "Idempotency-Key")
	if len(v) == 0 {
		return idem, nil
	}
	if len(v) > 1 {
		return idem, badRequest("there are several Idempotency-Key headers")
	}
	key, err := idempotent.ParseKey(v[0])
	if err != nil {
		return idem, badRequest("Idempotency-Key " + err.Error())
	}
	idem.Key, idem.Print = key, idempotent.Fingerprint(c.Path(), body)
	return idem, nil
}

// traceParent returns the request's W3C trace context, "" if it has none that is valid.
func traceParent(c *fiber.Ctx) string {
	if v := c.Request().Header.Peek("Traceparent"); notify.ValidTraceParent(string(v)) {
		return string(v)
	}
	return ""
}
