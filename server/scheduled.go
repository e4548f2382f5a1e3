package server

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/gofiber/fiber/v2"

	"herald/internal/schedule"
	"herald/notify"
)

func timeText(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

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
	limit, err = pageLimit(c)
	return after, limit, err
}

// scheduledBody is a scheduled notification in the API, without its message, which
// appendScheduled adds byte for byte as it was sent.
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
