package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"herald/internal/testing/gatewaytest"
)

// load says what publishers send.
type load struct {
	// Static while publishers run.
	users   []string
	pace    time.Duration // between the publishes of one publisher, on average
	keyless float64       // share of publishes without Idempotency-Key, which are tried once

	// Faults may change these.
	loud  atomic.Int64 // only the first n users are published to
	heavy atomic.Bool  // each publish is for many and large
}

// publish is one notification of a publisher.
type publish struct {
	name    string // unique, and part of the message
	key     string // "": tried once only, because a second attempt could be a second notification
	users   []string
	message string
}

// forms are JSON texts that decoding and encoding would change. The first %s is the
// publish's name, the second padding.
var forms = []string{
	`{"p":"%s","pad":"%s"}`,
	`{ "p" : "%s" ,"pad":"%s" , "n":[ 1 ,2.50,-0, 1E+2,12345678901234567890 ] }`,
	`["%s","%s",null,true,{"a":1,"a":2}]`,
	`{"p":"%s","pad":"%s","lone":"\ud800","text":"grüße, 世界 \u00fc\/` + "\u2028" + `"}`,
}

// Heavy publishes exceed together the output buffer that tinyBuffers leaves a subscriber.
const (
	heavyUsers = 8
	heavyBytes = 5 << 10
)

func (l *load) next(name string, r *rand.Rand) publish {
	p := publish{name: name}
	users, padding := 1, r.IntN(64)
	switch {
	case l.heavy.Load():
		users, padding = heavyUsers, heavyBytes+r.IntN(heavyBytes)
	case r.IntN(8) == 0:
		users = 2 + r.IntN(2)
	}
	loud := int(l.loud.Load())
	for _, i := range r.Perm(loud)[:min(users, loud)] {
		p.users = append(p.users, l.users[i])
	}
	p.message = fmt.Sprintf(forms[r.IntN(len(forms))], name, strings.Repeat("x", padding))
	if r.Float64() >= l.keyless {
		p.key = fmt.Sprintf("%d-%s", seed, name)
	}
	return p
}

func (p publish) body() string {
	if len(p.users) == 1 {
		return `{"userId":"` + p.users[0] + `","message":` + p.message + `}`
	}
	return `{"userIds":["` + strings.Join(p.users, `","`) + `"],"message":` + p.message + `}`
}

// publisher is a backend: it publishes one notification after another and
// repeats each, with its key, until it is acknowledged.
type publisher struct {
	name  string
	nodes []string // host:port of each
	load  *load
	h     *history
	r     *rand.Rand
	http  *http.Client
}

// attemptTimeout is the timeout of one request, six times what the gateway promises.
const attemptTimeout = 3 * time.Second

func newPublisher(name string, nodes []string, l *load, h *history, r *rand.Rand) *publisher {
	return &publisher{
		name: name, nodes: nodes, load: l, h: h, r: r,
		http: &http.Client{Transport: &http.Transport{}, Timeout: attemptTimeout},
	}
}

// run publishes until stop ends. The last publish is repeated until giveUp ends.
func (p *publisher) run(stop, giveUp context.Context) {
	defer p.http.CloseIdleConnections()
	for i := 1; stop.Err() == nil; i++ {
		p.insist(giveUp, p.load.next(p.name+"-"+strconv.Itoa(i), p.r))
		rest(stop, time.Duration(p.r.Int64N(int64(2*p.load.pace))))
	}
}

// insist makes attempts, each at another node, until an answer is final.
func (p *publisher) insist(giveUp context.Context, n publish) {
	node := p.r.IntN(len(p.nodes))
	for attempt := 1; giveUp.Err() == nil; attempt++ {
		if final := p.attempt(giveUp, n, attempt, (node+attempt)%len(p.nodes)); final || n.key == "" {
			return
		}
		rest(giveUp, time.Duration(20+p.r.IntN(60))*time.Millisecond)
	}
}

func (p *publisher) attempt(ctx context.Context, n publish, attempt, node int) (final bool) {
	p.h.add(event{
		Kind: publishSent, Publish: n.name, Attempt: attempt, Node: node, Key: n.key, Users: n.users, Message: n.message,
	})
	answer := event{Kind: publishAnswered, Publish: n.name, Attempt: attempt, Node: node}
	var err error
	if answer.Status, answer.IDs, err = p.post(ctx, n, p.nodes[node]); err != nil {
		answer.Error = err.Error()
	}
	p.h.add(answer)
	return !repeatable(answer.Status)
}

// repeatable answers promise nothing: the same request may succeed later.
func repeatable(status int) bool {
	switch status {
	case 0, http.StatusServiceUnavailable, http.StatusConflict, http.StatusTooManyRequests:
		return true
	}
	return false
}

// post returns status 0 without a complete answer.
func (p *publisher) post(ctx context.Context, n publish, addr string) (status int, ids []int64, err error) {
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+addr+"/notify", strings.NewReader(n.body()))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+gatewaytest.Key)
	req.Header.Set("Content-Type", "application/json")
	if n.key != "" {
		req.Header.Set("Idempotency-Key", `"`+n.key+`"`)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, nil, fmt.Errorf("%.200s", body)
	}
	ids, err = receipts(body)
	return resp.StatusCode, ids, err
}

// receipts reads the ids out of an answer, in the order of the recipients.
func receipts(body []byte) (ids []int64, err error) {
	var answer struct {
		ID      int64
		Results []struct{ ID int64 }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	for _, r := range answer.Results {
		ids = append(ids, r.ID)
	}
	if answer.Results == nil {
		ids = []int64{answer.ID}
	}
	return ids, nil
}

// rest waits for d, at most until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
