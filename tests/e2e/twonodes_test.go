package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

const (
	clusterUsers      = 500
	clusterMessages   = 10_000
	clusterPublishers = 8
)

// oddMessages are JSON texts that decoding and encoding would change. %d is replaced by a
// number that makes each message unique.
var oddMessages = []string{
	`{"n":%d}`,
	`{ "n" :%d , "a" : [ 1 ,2,  3 ] }`,
	"{\n\t\"n\": %d,\r\n\t\"nothing\": null\n}",
	`[%d,1e400,-0,0.10,1E+2,123456789012345678901234567890,0.000000000000000000001]`,
	`{"n":%d,"a":1,"a":2,"A":3,"":4,"":5}`,
	`{"n":%d,"lone":"\ud800","pair":"\ud83d\ude00","reversed":"\udc00\ud800"}`,
	`{"n":%d,"escapes":"\u0041\/\"\\\b\f\n\r\t\u0000\u001f\u2028\u2029"}`,
	`{"n":%d,"html":"<script>&amp;</script>","plain":"\u003c"}`,
	`{"n":%d,"unicode":"grüße, 世界 🌍 é` + "\u2028\u2029\ufeff\u007f\u0080\U0010ffff" + `"}`,
	`"%d just a string"`,
	`%d`,
	`%d.50`,
	`{"n":%d,"deep":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{}]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}`,
	`{"n":%d,"type":"hello","id":1,"message":{"type":"bye"},"prev":7}`,
	`{"n":%d,"__proto__":{"x":1},"constructor":null,"looks like a frame":"\u0081\u007e"}`,
}

// sent is one notification that was accepted.
type sent struct {
	id      int64
	message string
}

func TestTwoNodesDeliverEverythingOnceInOrderByteForByte(t *testing.T) {
	a, b, _ := twoNodes(t)
	nodes := []*gatewaytest.Gateway{a, b}
	sockets := connectUsers(t, nodes)
	accepted := publishAll(t, nodes)
	received := receiveAll(t, sockets, accepted)
	for user := range sockets {
		for i, got := range received[user] {
			compare(t, fmt.Sprintf("socket %d of %s", i, clusterUser(user)), got, accepted[user])
		}
	}
}

func clusterUser(i int) string { return "user-" + strconv.Itoa(i) + "@example.com" }

// connectUsers opens two sockets for each user, spread over the nodes so that
// some users are on both and some on either.
func connectUsers(t *testing.T, nodes []*gatewaytest.Gateway) [][2]*socket {
	t.Helper()
	sockets := make([][2]*socket, clusterUsers)
	for i := range sockets {
		for j := range sockets[i] {
			g := nodes[(i>>(2*j))&1]
			sockets[i][j] = connectAs(t, g, clusterUser(i))
		}
	}
	return sockets
}

// publishAll returns what was accepted for each user, in order of ids.
func publishAll(t *testing.T, nodes []*gatewaytest.Gateway) [][]sent {
	t.Helper()
	accepted := make([][]sent, clusterUsers)
	var mu sync.Mutex // guards accepted
	var publishers sync.WaitGroup
	for p := range clusterPublishers {
		publishers.Go(func() {
			for i := p; i < clusterMessages; i += clusterPublishers {
				user := rand.IntN(clusterUsers)
				message := strings.ReplaceAll(oddMessages[i%len(oddMessages)], "%d", strconv.Itoa(i+1))
				id, err := publishOnce(nodes[(i/clusterPublishers)%len(nodes)], i, clusterUser(user), message)
				if err != nil {
					t.Errorf("message %d: %v", i, err)
					return
				}
				mu.Lock()
				accepted[user] = append(accepted[user], sent{id, message})
				mu.Unlock()
			}
		})
	}
	publishers.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, list := range accepted {
		slices.SortFunc(list, func(x, y sent) int { return int(x.id - y.id) })
	}
	return accepted
}

// publishOnce publishes the i-th notification. On a busy machine it may take several
// attempts, which the key makes count as one.
func publishOnce(g *gatewaytest.Gateway, i int, userID, message string) (id int64, err error) {
	// The spaces around the message belong to the envelope.
	body := `{"userId":"` + userID + `","message": ` + message + ` }`
	for range 20 {
		a, err := g.Try("POST", "/notify", body, gatewaytest.BearerKey, "Idempotency-Key: "+strconv.Itoa(i))
		switch {
		case err != nil:
			return 0, err
		case a.Status == 200:
			text, _, _ := strings.Cut(strings.TrimPrefix(a.Body, `{"ok":true,"id":`), ",")
			return strconv.ParseInt(text, 10, 64)
		case a.Status != 503:
			return 0, fmt.Errorf("%d %s", a.Status, a.Body)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return 0, errors.New("Redis was never available")
}

// receiveAll reads each socket until it has as many notifications as were
// accepted, and then until a pong, so that one too many is noticed.
func receiveAll(t *testing.T, sockets [][2]*socket, accepted [][]sent) [][2][]message {
	t.Helper()
	received := make([][2][]message, len(sockets))
	var readers sync.WaitGroup
	for user := range sockets {
		for i, s := range sockets[user] {
			readers.Go(func() {
				got, err := receive(s, len(accepted[user]))
				if err != nil {
					t.Errorf("socket %d of %s after %d of %d: %v", i, clusterUser(user), len(got), len(accepted[user]), err)
				}
				received[user][i] = got
			})
		}
	}
	readers.Wait()
	return received
}

func receive(s *socket, want int) (got []message, err error) {
	for len(got) < want {
		m, err := s.next()
		if err != nil {
			return got, err
		}
		got = append(got, m)
	}
	if err := s.text(`{"type":"ping"}`); err != nil {
		return got, err
	}
	for {
		m, err := s.next()
		if err != nil {
			return got, errors.Join(errors.New("waiting for pong"), err)
		}
		if m.Type == "pong" {
			return got, nil
		}
		got = append(got, m)
	}
}

func compare(t *testing.T, who string, got []message, want []sent) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d frames, want %d", who, len(got), len(want))
		return
	}
	prev := int64(0)
	for i, m := range got {
		switch {
		case m.Type != "notification":
			t.Errorf("%s: frame %d is %s", who, i, m.raw)
		case m.ID != want[i].id:
			t.Errorf("%s: frame %d has id %d, want %d", who, i, m.ID, want[i].id)
		case m.Prev != prev:
			t.Errorf("%s: frame %d has prev %d, want %d", who, i, m.Prev, prev)
		case string(m.Message) != want[i].message:
			t.Errorf("%s: message changed\n got %q\nsent %q", who, m.Message, want[i].message)
		default:
			prev = m.ID
			continue
		}
		return
	}
}
