package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// scheduleMany schedules the messages 0 to n-1, message i for the i mod users-th
// user and due at when(i), a thousand in a request.
func scheduleMany(t *testing.T, nodes []*gatewaytest.Gateway, n, users int, when func(i int) time.Time) {
	t.Helper()
	for from := 0; from < n; from += 1000 {
		var items []string
		for i := from; i < min(from+1000, n); i++ {
			items = append(items, fmt.Sprintf(`{"userId":"user-%d","message":%d,"deliverAt":"%s"}`, i%users, i, when(i).UTC().Format(time.RFC3339Nano)))
		}
		body, key := `{"notifications":[`+strings.Join(items, ",")+`]}`, fmt.Sprint("Idempotency-Key: ", from)
		for try := 0; ; try++ { // a busy machine may answer 503
			answer := nodes[(from/1000+try)%len(nodes)].Backend("POST", "/notify/batch", body, key)
			if answer.Status == 200 && !strings.Contains(answer.Body, `"ok":false`) {
				break
			}
			if answer.Status == 200 || try == 20 {
				t.Fatalf("schedule: %d %.500s", answer.Status, answer.Body)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// logged returns a user's inbox, oldest first.
func logged(t *testing.T, g *gatewaytest.Gateway, user string) (all []message) {
	t.Helper()
	for after := int64(0); ; {
		var page struct {
			Items []message
			Next  *int64
		}
		g.Do("GET", fmt.Sprintf("/inbox?limit=100&after=%d", after), "", bearer(user)).Decode(t, &page)
		all = append(all, page.Items...)
		if page.Next == nil {
			return all
		}
		after = *page.Next
	}
}

// checkLogged checks that each of the messages that scheduleMany scheduled is
// there once, in the order of their times, and returns how late each was.
func checkLogged(t *testing.T, g *gatewaytest.Gateway, n, users int, when func(i int) time.Time) (late []time.Duration) {
	t.Helper()
	seen := make([]int, n)
	for u := range users {
		last := time.Time{}
		for _, m := range logged(t, g, fmt.Sprint("user-", u)) {
			var i int
			if err := json.Unmarshal(m.Message, &i); err != nil || i%users != u {
				t.Fatalf("user-%d has %s", u, m.Message)
			}
			seen[i]++
			if when(i).Before(last) {
				t.Errorf("user-%d: message %d comes after one that is due later", u, i)
			}
			last = when(i)
			late = append(late, time.UnixMilli(m.TS).Sub(when(i).Truncate(time.Millisecond)))
		}
	}
	lost, twice := 0, 0
	for _, times := range seen {
		switch {
		case times == 0:
			lost++
		case times > 1:
			twice++
		}
	}
	if lost > 0 || twice > 0 {
		t.Errorf("of %d scheduled %d were lost and %d came more than once", n, lost, twice)
	}
	slices.Sort(late)
	if len(late) > 0 && late[0] < 0 {
		t.Errorf("one came %v early", -late[0])
	}
	return late
}

func awaitAllDelivered(t *testing.T, r *redistest.Server) {
	t.Helper()
	rdb := r.Client()
	eventually(t, "everything that is scheduled to be delivered", func() bool {
		keys, err := rdb.Keys(t.Context(), "*sched*").Result()
		return err == nil && len(keys) == 0
	})
}

// Thousands of scheduled notifications are delivered exactly once while nodes are killed
// at random.
func TestScheduledSurvivesKills(t *testing.T) {
	r := redistest.Start(t, "--appendonly", "yes")
	start := func() *gatewaytest.Gateway { return gatewaytest.Start(t, gatewaytest.Settings(r.URL())...) }
	nodes := []*gatewaytest.Gateway{start(), start()}
	const n, users = 5000, 40
	began := r.Client().Time(t.Context()).Val().Add(2 * time.Second)
	when := func(i int) time.Time { return began.Add(time.Duration(i) * time.Millisecond) }
	scheduleMany(t, nodes, n, users, when)

	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	kills := 0
	for until := began.Add(n * time.Millisecond); r.Client().Time(t.Context()).Val().Before(until); kills++ {
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		i := random.IntN(len(nodes))
		nodes[i].Kill()
		nodes[i] = start()
	}
	awaitAllDelivered(t, r)
	late := checkLogged(t, nodes[0], n, users, when)
	t.Logf("seed %d: %d kills; late p50 %v, max %v", seed, kills, late[len(late)/2], late[len(late)-1])
}

// Nodes are killed while publishers retry scheduling with keys until 200. Each request
// counts once, also if a node died between the work and recording it, and the notification
// was delivered meanwhile.
func TestScheduledOnceThroughKills(t *testing.T) {
	r := redistest.Start(t)
	start := func() *gatewaytest.Gateway {
		return gatewaytest.Start(t, gatewaytest.Settings(r.URL(), "HERALD_LOG_LENGTH=100000")...)
	}
	var mu sync.Mutex
	nodes := []*gatewaytest.Gateway{start(), start()} // guarded by mu
	node := func(i int) *gatewaytest.Gateway {
		mu.Lock()
		defer mu.Unlock()
		return nodes[i%len(nodes)]
	}
	const publishers, kills = 8, 25
	var all sync.WaitGroup
	var enough atomic.Bool
	var retried atomic.Int64
	var requests [publishers]int
	for p := range publishers {
		all.Go(func() {
			for i := 0; !enough.Load(); i++ {
				requests[p] = i + 1
				time.Sleep(2 * time.Millisecond) // else one user may have too much scheduled
				body := fmt.Sprintf(`{"notifications":[{"userId":"user-%d","message":"now %d"},{"userId":"user-%d","message":"later %d","delay":1}]}`, p, i, p, i)
				key := fmt.Sprintf("Idempotency-Key: %d-%d", p, i)
				for try := i; ; try++ {
					answer, err := node(try).Try("POST", "/notify/batch", body, gatewaytest.BearerKey, key)
					if err == nil && answer.Status == 200 {
						break
					}
					if err == nil && answer.Status != 409 && answer.Status != 503 {
						t.Errorf("%d %s", answer.Status, answer.Body)
						return
					}
					retried.Add(1)
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	for i := range kills {
		time.Sleep(time.Duration(rand.IntN(150)) * time.Millisecond)
		node(i).Kill()
		fresh := start()
		mu.Lock()
		nodes[i%2] = fresh
		mu.Unlock()
	}
	enough.Store(true)
	all.Wait()
	awaitAllDelivered(t, r)
	for p := range publishers {
		seen := map[string]int{}
		for _, m := range logged(t, node(0), fmt.Sprint("user-", p)) {
			seen[string(m.Message)]++
		}
		for i := range requests[p] {
			for _, text := range []string{fmt.Sprintf(`"now %d"`, i), fmt.Sprintf(`"later %d"`, i)} {
				if seen[text] != 1 {
					t.Errorf("user-%d got %s %d times", p, text, seen[text])
				}
			}
		}
	}
	t.Logf("%d requests of each publisher, %d repetitions", requests, retried.Load())
}

// 10,000 that are due in the same moment are delivered within a second, while a
// tenth of their users are connected.
func TestScheduledForTheSameSecond(t *testing.T) {
	a, b, r := twoNodes(t)
	nodes := []*gatewaytest.Gateway{a, b}
	const n, users, connected = 10_000, 1000, 100
	var sockets []*socket
	for i := range connected {
		sockets = append(sockets, connectAs(t, nodes[i%2], fmt.Sprint("user-", i)))
	}
	at := r.Client().Time(t.Context()).Val().Add(4 * time.Second)
	when := func(int) time.Time { return at }
	scheduleMany(t, nodes, n, users, when)
	if ahead := at.Sub(r.Client().Time(t.Context()).Val()); ahead < 0 {
		t.Skipf("this machine is too busy: scheduling took %v too long", -ahead)
	}
	for i, s := range sockets {
		for range n / users {
			s.expect(t, "notification")
		}
		if extra := s.alive(t); len(extra) > 0 {
			t.Errorf("socket %d also got %s", i, rawOf(extra))
		}
	}
	awaitAllDelivered(t, r)
	late := checkLogged(t, a, n, users, when)
	if most := late[len(late)-1]; most > 5*time.Second {
		t.Errorf("one was %v late", most)
	}
	t.Logf("late p50 %v, p99 %v, max %v", late[len(late)/2], late[len(late)*99/100], late[len(late)-1])
}
