package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"herald/internal/testing/gatewaytest"
)

func TestInbox(t *testing.T) {
	a, b, _ := twoNodes(t)
	auth := bearer("alice")
	var ids []int64
	for i := range 5 {
		ids = append(ids, a.Publish("alice", fmt.Sprintf(`{ "n":%d }`, i)).ID)
	}
	a.PublishBody(`{"userId":"alice","message":"gone","ephemeral":true}`)
	s, hello := connect(t, b, dialOptions{header: []string{auth}})
	if hello.Last != ids[4] || hello.Read != 0 || hello.Unread != 5 {
		t.Errorf("hello %s", hello.raw)
	}
	checkInbox(t, b.Do("GET", "/inbox", "", auth), ids, 0, 5)
	checkInbox(t, b.Do("GET", "/inbox?after="+itoa(ids[1]), "", auth), ids[2:], 0, 5)
	page := checkInbox(t, b.Do("GET", "/inbox?limit=2", "", auth), ids[:2], 0, 5)
	checkInbox(t, b.Do("GET", "/inbox?limit=100&after="+string(page.Next), "", auth), ids[2:], 0, 5)

	read := func(upTo int64) gatewaytest.Answer {
		return a.Do("POST", "/inbox/read", `{"upTo":`+itoa(upTo)+`}`, auth)
	}
	for _, step := range []struct{ upTo, read, unread int64 }{
		{ids[2], ids[2], 2}, {ids[0], ids[2], 2}, {ids[2], ids[2], 2}, {ids[4], ids[4], 0},
	} {
		var state struct{ Read, Unread int64 }
		if read(step.upTo).Decode(t, &state); state.Read != step.read || state.Unread != step.unread {
			t.Errorf("read up to %d: %+v, want %d and %d", step.upTo, state, step.read, step.unread)
		}
	}
	for _, want := range []struct{ upTo, unread int64 }{{ids[2], 2}, {ids[4], 0}} {
		if m := s.expect(t, "read"); m.UpTo != want.upTo || int64(m.Unread) != want.unread {
			t.Errorf("got %s, want %+v", m.raw, want)
		}
	}
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "after=x", "after=-1", "after=9007199254740993"} {
		checkProblem(t, a.Do("GET", "/inbox?"+query, "", auth), 400)
	}
	for _, body := range []string{`{}`, `{"upTo":-1}`, `{"upTo":"1"}`, `{"upTo":1.5}`, `{"upTo":1,"upTo":2}`, `{"upto":1}`} {
		checkProblem(t, a.Do("POST", "/inbox/read", body, auth), 400)
	}
	session := a.CreateSession("alice")
	checkProblem(t, a.Do("POST", "/inbox/read", `{"upTo":1}`, session.Cookie()), 403)
	checkProblem(t, a.Do("GET", "/inbox", ""), 401)
	checkInbox(t, a.Do("GET", "/inbox", "", bearer("bob")), nil, 0, 0)
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

type inboxPage struct {
	Items              []message
	Last, Read, Unread int64
	Next               json.RawMessage
}

func checkInbox(t *testing.T, a gatewaytest.Answer, ids []int64, read, unread int64) (page inboxPage) {
	t.Helper()
	if a.Decode(t, &page); a.Status != 200 || len(page.Items) != len(ids) || page.Read != read || page.Unread != unread {
		t.Fatalf("%d %s, want %d items, read %d, unread %d", a.Status, a.Body, len(ids), read, unread)
	}
	for i, m := range page.Items {
		if m.ID != ids[i] || !strings.HasPrefix(string(m.Message), `{ "n":`) {
			t.Errorf("item %d: id %d %s, want %d", i, m.ID, m.Message, ids[i])
		}
	}
	return page
}

func TestReadFrames(t *testing.T) {
	a, b, _ := twoNodes(t)
	one, two, bob := connectAs(t, a, "alice"), connectAs(t, b, "alice"), connectAs(t, b, "bob")
	id := a.Publish("alice", "1").ID
	one.expect(t, "notification")
	two.expect(t, "notification")
	if err := one.text(`{"type":"read","upTo":` + itoa(id) + `}`); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*socket{one, two} {
		if m := s.expect(t, "read"); m.UpTo != id || m.Unread != 0 {
			t.Errorf("got %s", m.raw)
		}
	}
	if got := bob.alive(t); len(got) > 0 {
		t.Errorf("another user got %s", rawOf(got))
	}
	if err := one.text(`{"type":"read","upTo":` + itoa(id+1_000_000) + `}`); err != nil {
		t.Fatal(err)
	}
	if m := one.expect(t, "read"); m.UpTo != id {
		t.Errorf("read up to the future: %s, want %d", m.raw, id)
	}
}

func TestResume(t *testing.T) {
	a, b, _ := twoNodes(t, "HERALD_LOG_LENGTH=5")
	var ids []int64
	for range 8 {
		ids = append(ids, a.Publish("alice", "1").ID)
	}
	for name, row := range map[string]struct {
		path   string
		header string
		gap    *[2]int64 // after, next
		want   []int64
	}{
		"from within":          {"/ws?since=" + itoa(ids[5]), "", nil, ids[6:]},
		"from the newest":      {"/ws?since=" + itoa(ids[7]), "", nil, nil},
		"from just before":     {"/ws?since=" + itoa(ids[2]), "", nil, ids[3:]},
		"from what is trimmed": {"/ws?since=" + itoa(ids[0]), "", &[2]int64{ids[0], ids[3]}, ids[3:]},
		"from nothing":         {"/ws?since=0", "", &[2]int64{0, ids[3]}, ids[3:]},
		"from the future":      {"/ws?since=" + itoa(ids[7]+1_000_000), "", &[2]int64{ids[7] + 1_000_000, 0}, nil},
		"live only":            {"/ws", "", nil, nil},
		"by lastEventId":       {"/ws?lastEventId=" + itoa(ids[5]), "", nil, ids[6:]},
		"by Last-Event-ID":     {"/ws", "Last-Event-ID: " + itoa(ids[5]), nil, ids[6:]},
	} {
		t.Run(name, func(t *testing.T) {
			a := a.For(t)
			header := []string{bearer("alice")}
			if row.header != "" {
				header = append(header, row.header)
			}
			s, hello := connect(t, b, dialOptions{path: row.path, header: header})
			if hello.Last != ids[7] {
				t.Errorf("hello %s, want last %d", hello.raw, ids[7])
			}
			if row.gap != nil {
				if m := s.expect(t, "gap"); m.After != row.gap[0] || m.Next != row.gap[1] {
					t.Errorf("got %s, want after %d, next %d", m.raw, row.gap[0], row.gap[1])
				}
			}
			for _, id := range row.want {
				if m := s.expect(t, "notification"); m.ID != id {
					t.Errorf("got %s, want id %d", m.raw, id)
				}
			}
			if got := s.alive(t); len(got) > 0 {
				t.Errorf("too much: %s", rawOf(got))
			}
			live := a.PublishBody(`{"userId":"alice","message":"live","ephemeral":true}`)
			if m := s.expect(t, "notification"); string(m.Message) != `"live"` {
				t.Errorf("live: %+v, %s", live, m.raw)
			}
		})
	}
}

// TestTTL: a notification past its ttl is neither counted nor resumed.
func TestTTL(t *testing.T) {
	t.Parallel()
	g, _ := node(t)
	g.PublishBody(`{"userId":"alice","message":"short","ttl":1}`)
	long := g.PublishBody(`{"userId":"alice","message":"long","ttl":3600}`).ID
	eventually(t, "the ttl is over", func() bool {
		var page inboxPage
		g.Do("GET", "/inbox", "", bearer("alice")).Decode(t, &page)
		return page.Unread == 1 && len(page.Items) == 1 && page.Items[0].ID == long
	})
	s, hello := connect(t, g, dialOptions{path: "/ws?since=0", header: []string{bearer("alice")}})
	if m := s.expect(t, "notification"); hello.Unread != 1 || m.ID != long {
		t.Errorf("hello %s, then %s", hello.raw, m.raw)
	}
	s.alive(t)
}
