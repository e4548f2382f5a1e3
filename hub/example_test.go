package hub_test

import (
	"fmt"
	"time"

	"herald/hub"
	"herald/notify"
)

// lines is a Framing that writes each frame as one line.
type lines struct{}

func (*lines) Encode(f notify.Frame) []byte         { return []byte(f.JSON + "\n") }
func (*lines) Ping() []byte                         { return []byte("ping\n") }
func (*lines) Goodbye(notify.CloseCode, int) []byte { return []byte("bye\n") }
func (*lines) AnswersClose() bool                   { return false }
func (*lines) AnswersPing() bool                    { return false }

// printer is a Transport that prints each write.
type printer struct{}

func (printer) Write(p []byte) (int, error)                { fmt.Printf("%q\n", p); return len(p), nil }
func (printer) Drain(func(func([]byte) (int, error)) bool) {}
func (printer) Close()                                     { fmt.Println("closed") }

// A socket joins, goes live at the log's newest id, and gets what is delivered to
// its user: two messages of one burst in one write.
func Example() {
	h := hub.New(hub.Options{})
	defer h.Close()
	s := h.NewSocket("42", "", &lines{}, printer{})
	if err := h.Join(s, time.Now()); err != nil {
		fmt.Println(err)
		return
	}
	target := h.Target("42") // the log is read after this
	s.Greet([]byte(`{"type":"hello"}`), 7)
	s.GoLive(target)

	cork := h.NewCork()
	cork.Deliver("42", notify.Frame{Event: "notification", ID: 8, Prev: 7, JSON: `{"id":8}`})
	cork.Deliver("42", notify.Frame{Event: "notification", ID: 9, Prev: 8, JSON: `{"id":9}`})
	cork.Deliver("43", notify.Frame{Event: "notification", ID: 1, JSON: `{"id":1}`}) // not connected here
	cork.Uncork()

	s.Close(notify.CloseNormal, 0)
	h.Leave(s)
	// Output:
	// "{\"type\":\"hello\"}\n"
	// "{\"id\":8}\n{\"id\":9}\n"
	// "bye\n"
	// closed
}
