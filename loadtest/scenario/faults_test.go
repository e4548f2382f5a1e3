//go:build linux

package scenario

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"herald/loadtest/measure"
	"herald/loadtest/target"
	"herald/loadtest/wire"
	"herald/notify"
)

// fakeGateway implements the part of the gateway's protocol that scenarios use, with
// faults. Its users have one socket each.
type fakeGateway struct {
	faults
	mu       sync.Mutex
	users    map[string]*fakeUser // guarded by mu
	sessions map[string]string    // user by session; guarded by mu
	n        int                  // notifications so far; guarded by mu
}

// faults happen to every n-th notification; 0: never.
type faults struct {
	drop, twice, swap int
	busy              int           // response 503
	stall             time.Duration // delay of the response to notification stallAt
	stallAt           int
}

type fakeUser struct {
	socket  net.Conn
	last    notify.ID
	log     []string // frames
	swapped string   // a frame to send after the next one
}

func startFake(t *testing.T, f faults) *target.Server {
	t.Helper()
	g := &fakeGateway{faults: f, users: map[string]*fakeUser{}, sessions: map[string]string{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /sessions", g.session)
	mux.HandleFunc("POST /notify", g.notify)
	mux.HandleFunc("POST /notify/batch", g.batch)
	mux.HandleFunc("GET /ws", g.ws)
	h := httptest.NewServer(mux)
	t.Cleanup(func() {
		h.CloseClientConnections()
		h.Close()
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, u := range g.users {
			_ = u.socket.Close()
		}
	})
	s, err := target.Connect(target.Existing{URL: h.URL, Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (g *fakeGateway) session(w http.ResponseWriter, r *http.Request) {
	var body struct{ UserID string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	g.mu.Lock()
	defer g.mu.Unlock()
	id := "s" + strconv.Itoa(len(g.sessions))
	g.sessions[id] = body.UserID
	w.WriteHeader(http.StatusCreated)
	fmt.Fprintf(w, `{"sessionId":%q}`, id)
}

func (g *fakeGateway) ws(w http.ResponseWriter, r *http.Request) {
	cookie, _ := r.Cookie("sid")
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	name := g.sessions[cookie.Value]
	u := g.user(name)
	if u.socket != nil {
		_ = u.socket.Close()
	}
	u.socket = conn
	_, _ = conn.Write(wire.SwitchingProtocols)
	u.write(fmt.Sprintf(`{"type":"hello","userId":%q,"last":%d,"read":0}`, name, u.last))
	if since := r.URL.Query().Get("since"); since != "" {
		from, _ := strconv.ParseInt(since, 10, 64)
		for _, frame := range u.log {
			if id, _, _ := notify.ParseStored(frame); int64(id) > from {
				u.write(frame)
			}
		}
	}
}

func (g *fakeGateway) user(name string) *fakeUser {
	u := g.users[name]
	if u == nil {
		u = &fakeUser{}
		g.users[name] = u
	}
	return u
}

func (u *fakeUser) write(text string) {
	if u.socket == nil {
		return
	}
	b := []byte{0x81, 126, byte(len(text) >> 8), byte(len(text))}
	_, _ = u.socket.Write(append(b, text...))
}

type fakeNotification struct {
	UserID  string
	Message json.RawMessage
}

func (g *fakeGateway) notify(w http.ResponseWriter, r *http.Request) {
	var one fakeNotification
	_ = json.NewDecoder(r.Body).Decode(&one)
	status, stall := g.publish(one)
	time.Sleep(stall) // a slow server
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"ok":true}`)
}

func (g *fakeGateway) batch(w http.ResponseWriter, r *http.Request) {
	var body struct{ Notifications []fakeNotification }
	_ = json.NewDecoder(r.Body).Decode(&body)
	answer := bufio.NewWriter(w)
	defer answer.Flush()
	_, _ = answer.WriteString(`{"results":[`)
	for i, one := range body.Notifications {
		if i > 0 {
			_ = answer.WriteByte(',')
		}
		status, _ := g.publish(one)
		fmt.Fprintf(answer, `{"ok":%t}`, status == http.StatusOK)
	}
	_, _ = answer.WriteString(`]}`)
}

func every(n, k int) bool { return k > 0 && n%k == 0 }

func (g *fakeGateway) publish(one fakeNotification) (status int, stall time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n++
	if every(g.n, g.busy) {
		return http.StatusServiceUnavailable, 0
	}
	if g.stallAt > 0 && g.n == g.stallAt {
		stall = g.stall
	}
	u := g.user(one.UserID)
	frame := fmt.Sprintf("%s%d,\"prev\":%d,\"ts\":1,\"message\":%s}", notify.StoredHead, u.last+1, u.last, one.Message)
	u.last++
	u.log = append(u.log, frame)
	switch {
	case every(g.n, g.drop):
	case every(g.n, g.swap) && u.swapped == "":
		u.swapped = frame
		return http.StatusOK, stall
	default:
		u.write(frame)
	}
	if every(g.n, g.twice) {
		u.write(frame)
	}
	if u.swapped != "" {
		u.write(u.swapped)
		u.swapped = ""
	}
	return http.StatusOK, stall
}

func measureFake(t *testing.T, s *target.Server, scenario func(context.Context, *Env, Options) (*measure.Run, error), o Options) *measure.Run {
	t.Helper()
	st, err := NewEnv(s, 1, func(string, time.Duration) {})
	if err != nil {
		t.Fatal(err)
	}
	st.patience = 500 * time.Millisecond
	defer st.Close()
	run, err := scenario(t.Context(), st, o)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

func number(t *testing.T, run *measure.Run, name string) float64 {
	t.Helper()
	m, ok := run.Get(name)
	if !ok {
		t.Errorf("%q was not measured", name)
	}
	return m.Value
}

// Each fault of a server shows in its own metric, and in no other.
func TestFaultsAreReported(t *testing.T) {
	o := Options{Users: 10, Publishers: 4, Message: 100, WarmUp: 20 * time.Millisecond, Duration: 500 * time.Millisecond, Rate: 400, Churn: 0}
	ordered := o
	ordered.Publishers = 1
	for _, c := range []struct {
		name     string
		faults   faults
		scenario func(context.Context, *Env, Options) (*measure.Run, error)
		o        Options
		faulty   []string // metrics above zero
		checked  []string
	}{
		{"sound, publish", faults{}, Publish, o, nil, []string{Lost, Duplicates, Errors}},
		{"sound, one publisher", faults{}, Publish, ordered, nil, []string{Lost, Duplicates, Errors, Disorder}},
		{"sound, mix", faults{}, Mix, o, nil, []string{Lost, Duplicates, Errors, Disorder}},
		{"drops, publish", faults{drop: 50}, Publish, o, []string{Lost}, []string{Lost, Duplicates, Errors}},
		{"drops, mix", faults{drop: 50}, Mix, o, []string{Lost, Disorder}, []string{Lost, Duplicates, Errors, Disorder}},
		{"repeats, publish", faults{twice: 50}, Publish, o, []string{Duplicates}, []string{Lost, Duplicates, Errors}},
		{"repeats, mix", faults{twice: 50}, Mix, o, []string{Duplicates, Disorder}, []string{Lost, Duplicates, Errors, Disorder}},
		{"one lost for one repeated", faults{drop: 50, twice: 49}, Publish, o, []string{Lost, Duplicates}, []string{Lost, Duplicates, Errors}},
		{"reorders, one publisher", faults{swap: 50}, Publish, ordered, []string{Disorder}, []string{Duplicates, Errors, Disorder}},
		{"reorders, mix", faults{swap: 50}, Mix, o, []string{Disorder}, []string{Duplicates, Errors, Disorder}},
		{"refuses", faults{busy: 50}, Publish, o, []string{Errors}, []string{Lost, Duplicates, Errors}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			run := measureFake(t, startFake(t, c.faults), c.scenario, c.o)
			faulty := map[string]bool{}
			for _, name := range c.faulty {
				faulty[name] = true
			}
			for _, name := range c.checked {
				if n := number(t, run, name); (n > 0) != faulty[name] {
					t.Errorf("%s: %v", name, n)
				}
			}
			if len(run.Notes) == 0 && len(c.faulty) > 0 {
				t.Error("no note reports the fault")
			}
		})
	}
}

// A stall counts in the latency of every request that waited for it, also if the
// schedule ends during the stall.
func TestAStallCountsInTheLatencies(t *testing.T) {
	o := Options{Users: 10, Publishers: 1, Message: 100, WarmUp: 20 * time.Millisecond, Duration: 500 * time.Millisecond, Rate: 400}
	const stall = 400 * time.Millisecond
	// 160 of 200 messages are due during the stall, or wait behind one that is.
	for name, at := range map[string]int{"in the middle": 8 + 20, "at the end": 8 + 160} {
		run := measureFake(t, startFake(t, faults{stallAt: at, stall: stall}), Publish, o)
		if p90 := number(t, run, Response+" p90"); p90 < stall.Seconds()/5 {
			t.Errorf("%s: p90 %v", name, p90)
		}
		if n := number(t, run, Errors); n != 0 {
			t.Errorf("%s: %v errors", name, n)
		}
	}
}
