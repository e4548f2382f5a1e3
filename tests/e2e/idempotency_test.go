package e2e

import (
	"fmt"
	"sync"
	"testing"

	"herald/internal/testing/gatewaytest"
)

// TestConcurrentRetriesAreOnePublish: 100 concurrent retries through both nodes store one
// entry and get one answer, for a single notification and for a batch.
func TestConcurrentRetriesAreOnePublish(t *testing.T) {
	a, b, _ := twoNodes(t)
	alice, bob := connectAs(t, a, "alice"), connectAs(t, b, "bob")
	for path, body := range map[string]string{
		"/notify":       `{"userIds":["alice","bob"],"message":"one"}`,
		"/notify/batch": `{"notifications":[{"userId":"alice","message":"batch"},{"userId":"*","message":1},{"userId":"bob","message":"batch"}]}`,
	} {
		retryAtOnce(t, a, b, path, body, fmt.Sprintf("Idempotency-Key: %q", "key of "+path))
		alice.expect(t, "notification")
		bob.expect(t, "notification")
		for name, s := range map[string]*socket{"alice": alice, "bob": bob} {
			if got := s.alive(t); len(got) > 0 {
				t.Errorf("%s: %s also got %s", path, name, rawOf(got))
			}
		}
	}
}

// retryAtOnce sends the same request 100 times, through both nodes, each until it
// is accepted, and checks that all have the answer of one.
func retryAtOnce(t *testing.T, a, b *gatewaytest.Gateway, path, body, key string) {
	t.Helper()
	answers := make([]gatewaytest.Answer, 100)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			node := []*gatewaytest.Gateway{a, b}[i%2]
			for answers[i].Status != 200 { // a busy machine may answer 503; that is what the key is for
				var err error
				answers[i], err = node.Try("POST", path, body, gatewaytest.BearerKey, key)
				running := answers[i].Status == 409 && answers[i].Header.Get("Retry-After") == "1"
				if err != nil || answers[i].Status != 200 && answers[i].Status != 503 && !running {
					t.Errorf("%s: %d %s, %v", path, answers[i].Status, answers[i].Body, err)
					return
				}
			}
		})
	}
	all.Wait()
	firsts := 0
	for _, answer := range answers {
		if answer.Header.Get("Idempotency-Replay") == "" {
			firsts++
		}
		if answer.Body != answers[0].Body {
			t.Errorf("%s: answers %s and %s", path, answer.Body, answers[0].Body)
		}
	}
	if firsts > 1 {
		t.Errorf("%s: %d answers are no replay", path, firsts)
	}
}
