package idempotent

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/redisx"
	"herald/internal/testing/childtest"
	"herald/internal/testing/redistest"
)

// processorAt makes the test binary run a processor on the Redis server at that address
// instead of the tests.
const processorAt = "IDEMPOTENT_PROCESSOR_AT"

func TestMain(m *testing.M) {
	if addr := os.Getenv(processorAt); addr != "" {
		process(addr)
		return
	}
	_ = flag.Set("test.parallel", "8") // most tests wait
	goleak.VerifyTestMain(m)
}

// payScript is an effect guarded as the package documentation says: it checks the token
// and keeps its outcome in the record, in one step.
var payScript = redis.NewScript(`
local r = redis.call('HMGET', KEYS[1], 'token', 'paid')
if r[1] ~= ARGV[1] then return 'fenced' end
if r[2] then return r[2] end
local receipt = 'receipt ' .. redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], 'paid', receipt)
return receipt`)

// pay has two effects: a guarded and an unguarded one.
func pay(ctx context.Context, rdb *redis.Client, a Attempt) (string, error) {
	if err := rdb.Incr(ctx, "unguarded").Err(); err != nil {
		return "", err
	}
	return payScript.Run(ctx, rdb, []string{a.Key, "guarded"}, a.Token).Text()
}

const processorLease = 500 * time.Millisecond

// process pays for order-17 once. It prints its token, waits for a line before its effect
// and for another one after it, and prints the outcome.
func process(addr string) {
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: addr}, 0))
	in := bufio.NewScanner(os.Stdin)
	p := New(rdb, "payments", Options{Lease: processorLease, Budget: patience})
	result, replayed, err := p.Do(context.Background(), "order-17", "pay 100", func(_ context.Context, a Attempt) ([]byte, error) {
		fmt.Println("token", a.Token)
		in.Scan()
		receipt, err := pay(context.Background(), rdb, a) // ignores ctx: that must be harmless
		fmt.Println("effect", receipt, err)
		in.Scan()
		return []byte(receipt), err
	})
	fmt.Printf("done %s %t %v\n", result, replayed, err)
}

func startProcessor(t *testing.T, addr string) *childtest.Process {
	t.Helper()
	return childtest.StartSelf(t, processorAt+"="+addr)
}

func token(t *testing.T, p *childtest.Process) int64 {
	t.Helper()
	n, err := strconv.ParseInt(p.Expect("token"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// payNow pays in the test process as soon as the key is free.
func payNow(t *testing.T, rdb *redis.Client) (result string, replayed bool, token int64) {
	t.Helper()
	p := New(rdb, "payments", Options{Lease: patience, Budget: patience})
	for {
		b, replayed, err := p.Do(t.Context(), "order-17", "pay 100", func(ctx context.Context, a Attempt) ([]byte, error) {
			token = a.Token
			receipt, err := pay(ctx, rdb, a)
			return []byte(receipt), err
		})
		var running *RunningError
		if !errors.As(err, &running) {
			if err != nil {
				t.Fatal(err)
			}
			return string(b), replayed, token
		}
		if running.RetryAfter <= 0 || running.RetryAfter > processorLease {
			t.Fatalf("RetryAfter is %v of a lease of %v", running.RetryAfter, processorLease)
		}
		time.Sleep(running.RetryAfter)
	}
}

func effects(t *testing.T, rdb *redis.Client) (guarded, unguarded int) {
	t.Helper()
	for key, n := range map[string]*int{"guarded": &guarded, "unguarded": &unguarded} {
		var err error
		if *n, err = rdb.Get(t.Context(), key).Int(); err != nil {
			t.Fatal(err)
		}
	}
	return guarded, unguarded
}

// A process is killed between its effect and the record, so the work is repeated. An
// unguarded effect happens twice, a guarded one once.
func TestGuardedEffectHappensOnceAfterACrash(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	rdb := r.Client()
	p := startProcessor(t, r.Addr)
	first := token(t, p)
	p.Send("")
	p.Expect("effect")
	p.Kill()

	result, replayed, token := payNow(t, rdb)
	if result != "receipt 1" || replayed || token <= first {
		t.Errorf("after the crash: %q, replayed %t, token %d after %d", result, replayed, token, first)
	}
	if guarded, unguarded := effects(t, rdb); guarded != 1 || unguarded != 2 {
		t.Errorf("%d guarded effects, %d unguarded ones; want 1 and 2", guarded, unguarded)
	}
	if result, replayed, _ := payNow(t, rdb); result != "receipt 1" || !replayed {
		t.Errorf("asked again: %q, replayed %t", result, replayed)
	}
}

// A process is stopped beyond its lease while another one does the work. Its late effect
// and its late record are refused.
func TestProcessStoppedBeyondItsLeaseIsRefused(t *testing.T) {
	t.Parallel()
	r := redistest.Start(t)
	rdb := r.Client()
	p := startProcessor(t, r.Addr)
	first := token(t, p)
	p.Stop()

	result, replayed, token := payNow(t, rdb)
	if result != "receipt 1" || replayed || token <= first {
		t.Errorf("while the first process is stopped: %q, replayed %t, token %d after %d", result, replayed, token, first)
	}
	p.Continue()
	p.Send("")
	if effect := p.Expect("effect"); effect != "fenced <nil>" {
		t.Errorf("the late effect: %s", effect)
	}
	p.Send("")
	if done := p.Expect("done"); done != "fenced false "+ErrSuperseded.Error() {
		t.Errorf("the late record: %s", done)
	}
	if guarded, _ := effects(t, rdb); guarded != 1 {
		t.Errorf("%d guarded effects", guarded)
	}
	if result, replayed, _ := payNow(t, rdb); result != "receipt 1" || !replayed {
		t.Errorf("asked again: %q, replayed %t", result, replayed)
	}
}
