package chaos

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// kind says what happened.
type kind string

// The kinds of events. The comments name the fields that are set beside At.
const (
	publishSent     kind = "publish" // before an attempt: Publish, Attempt, Key, Users, Message, Node
	publishAnswered kind = "answer"  // after it: Publish, Attempt, Node, Status, IDs, Error
	streamAsked     kind = "connect" // Stream, Device, User, Node, Since
	streamRefused   kind = "refused" // Stream, Device, Status, Error
	frameReceived   kind = "frame"   // Stream, Device, User, Frame, and what the frame says
	streamClosed    kind = "close"   // Stream, Device, Own, Error
	faultBegan      kind = "fault"   // Fault, Nodes, Name; Answer, Red
	faultEnded      kind = "healed"  // Fault, Nodes, Name
	readinessMoved  kind = "ready"   // Node, Status
	logEntry        kind = "log"     // in Redis at the end: User, ID, Prev, Message, Frame, Count
	settled         kind = "settled" // publishing has stopped, and deliveries have finished
	resumed         kind = "resumed" // every device has reconnected once more since
)

// unset is a Since that was not sent.
const unset = -1

// event is one line of a history. Which fields mean something depends on Kind.
type event struct {
	At   time.Duration `json:"at"` // since the history began
	Kind kind          `json:"kind"`
	Node int           `json:"node"`

	Publish string   `json:"publish,omitempty"` // the publish's name
	Attempt int      `json:"attempt,omitzero"`
	Key     string   `json:"key,omitempty"`     // Idempotency-Key
	Users   []string `json:"users,omitempty"`   // recipients
	Message string   `json:"message,omitempty"` // JSON text
	Status  int      `json:"status,omitzero"`   // HTTP; 0: no answer came
	IDs     []int64  `json:"ids,omitempty"`     // as acknowledged, in the order of Users

	Stream int    `json:"stream,omitzero"` // one connection of one device
	Device string `json:"device,omitempty"`
	User   string `json:"user,omitempty"`
	Since  int64  `json:"since,omitzero"` // unset: live only
	Own    bool   `json:"own,omitzero"`   // the device ended the stream itself

	Frame string `json:"frame,omitempty"` // its type; of a log entry the whole text
	ID    int64  `json:"id,omitzero"`
	Prev  int64  `json:"prev,omitzero"`
	TS    int64  `json:"ts,omitzero"`
	After int64  `json:"after,omitzero"`
	Next  int64  `json:"next,omitzero"`
	Last  int64  `json:"last,omitzero"`
	Code  int    `json:"code,omitzero"`
	Count int64  `json:"count,omitzero"` // how manyeth of its user a log entry is

	Fault  int           `json:"fault,omitzero"` // numbers the faults of a run
	Nodes  []int         `json:"nodes,omitempty"`
	Name   string        `json:"name,omitempty"`
	Answer time.Duration `json:"answer,omitzero"` // a publish is promised its 503 within this
	Red    time.Duration `json:"red,omitzero"`    // readiness is promised to go within this
	Error  string        `json:"error,omitempty"`
}

// history is the events of all actors, in the order of recording.
type history struct {
	began time.Time

	mu     sync.Mutex
	events []event // guarded by mu
}

func newHistory() *history { return &history{began: time.Now()} }

func (h *history) add(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.At = time.Since(h.began)
	h.events = append(h.events, e)
}

func (h *history) all() []event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// recording is a history in a file: one line of promises, then a line for each event.
type recording struct {
	Scenario string  `json:"scenario"`
	Seed     uint64  `json:"seed"`
	Promise  promise `json:"promise"`
	events   []event
}

func (r recording) write(w io.Writer) error {
	enc := json.NewEncoder(w)
	if err := enc.Encode(r); err != nil {
		return err
	}
	for _, e := range r.events {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return nil
}

func readRecording(from io.Reader) (r recording, err error) {
	dec := json.NewDecoder(bufio.NewReader(from))
	if err := dec.Decode(&r); err != nil {
		return r, fmt.Errorf("first line: %w", err)
	}
	for {
		var e event
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return r, nil
		case err != nil:
			return r, fmt.Errorf("event %d: %w", len(r.events), err)
		}
		r.events = append(r.events, e)
	}
}

// keep writes the recording to a file that outlives the test and returns its name.
func (r recording) keep(t testing.TB) string {
	t.Helper()
	f, err := os.CreateTemp("", "herald-chaos-*.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	if err := errors.Join(r.write(w), w.Flush(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}
