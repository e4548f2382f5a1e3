package idempotent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"herald/internal/redisx"
	"herald/internal/testing/childtest"
	"herald/internal/testing/redistest"
)

// processorAt, if it is set, makes the test binary a processor on the Redis at
// that address instead of running tests.
const processorAt = "IDEMPOTENT_PROCESSOR_AT"

func TestMain(m *testing.M) {
	if addr := os.Getenv(processorAt); addr != "" {
		process(addr)
		return
	}
	goleak.VerifyTestMain(m)
}

// payScript is an effect guarded as the package's documentation says: it checks
// the token, and keeps its outcome in the record in the same step.
var payScript = redis.NewScript(`
local r = redis.call('HMGET', KEYS[1], 'token', 'paid')
if r[1] ~= ARGV[1] then return 'fenced' end
if r[2] then return r[2] end
local receipt = 'receipt ' .. redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], 'paid', receipt)
return receipt`)

// pay has an effect twice: guarded, and not.
func pay(ctx context.Context, rdb *redis.Client, a Attempt) (string, error) {
	if err := rdb.Incr(ctx, "unguarded").Err(); err != nil {
		return "", err
	}
	return payScript.Run(ctx, rdb, []string{a.Key, "guarded"}, a.Token).Text()
}

const processorLease = 500 * time.Millisecond

// process pays for order-17 once: it tells its token, waits for a line before
// its effect and another one after it, and tells what came of it.
func process(addr string) {
	rdb := redis.NewClient(redisx.Configure(&redis.Options{Addr: addr}, 0))
	in := bufio.NewScanner(os.Stdin)
	p := New(rdb, "payments", Options{Lease: processorLease, Budget: patience})
	result, replayed, err := p.Do(context.Background(), "order-17", "pay 100", func(_ context.Context, a Attempt) ([]byte, error) {
		fmt.Println("token", a.Token)
		in.Scan()
		receipt, err := pay(context.Background(), rdb, a) // it pays no heed to its context: that alone must be harmless
		fmt.Println("effect", receipt, err)
		in.Scan()
		return []byte(receipt), err
	})
	fmt.Printf("done %s %t %v\n", result, replayed, err)
}

// processor is such a process.
type processor struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.Writer
	lines *bufio.Scanner
}

func startProcessor(t *testing.T, addr string) *processor {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processorAt+"="+addr)
	in, lines := childtest.Start(t, cmd)
	p := &processor{t: t, cmd: cmd, in: in, lines: lines}
	t.Cleanup(p.kill)
	return p
}

func (p *processor) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func (p *processor) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func (p *processor) goOn() {
	p.t.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		p.t.Fatal(err)
	}
}

// says waits for the process's next line and returns what follows the word.
func (p *processor) says(word string) string {
	p.t.Helper()
	if !p.lines.Scan() {
		p.t.Fatalf("the processor ended before it said %q: %v", word, p.lines.Err())
	}
	rest, ok := strings.CutPrefix(p.lines.Text(), word+" ")
	if !ok {
		p.t.Fatalf("the processor says %q, want %q", p.lines.Text(), word)
	}
	return rest
}

func (p *processor) token() int64 {
	p.t.Helper()
	n, err := strconv.ParseInt(p.says("token"), 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// payNow pays in this process as soon as the key is free.
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
			t.Fatalf("the lease is said to last %v of %v", running.RetryAfter, processorLease)
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

// A processor that is killed between its effect and the record: the work is
// done again, which an effect without a guard shows and one with a guard doesn't.
func TestKilledBetweenWorkAndRecord(t *testing.T) {
	r := redistest.Start(t)
	rdb := r.Client()
	p := startProcessor(t, r.Addr)
	first := p.token()
	p.goOn()
	p.says("effect")
	p.kill()

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

// A processor that is stopped beyond its lease, while another does the work:
// its effect and its record come too late and are refused.
func TestStoppedBeyondItsLease(t *testing.T) {
	r := redistest.Start(t)
	rdb := r.Client()
	p := startProcessor(t, r.Addr)
	first := p.token()
	p.signal(syscall.SIGSTOP)

	result, replayed, token := payNow(t, rdb)
	if result != "receipt 1" || replayed || token <= first {
		t.Errorf("while it is stopped: %q, replayed %t, token %d after %d", result, replayed, token, first)
	}
	p.signal(syscall.SIGCONT)
	p.goOn()
	if effect := p.says("effect"); effect != "fenced <nil>" {
		t.Errorf("the late effect: %s", effect)
	}
	p.goOn()
	if done := p.says("done"); done != "fenced false "+ErrSuperseded.Error() {
		t.Errorf("the late record: %s", done)
	}
	if guarded, _ := effects(t, rdb); guarded != 1 {
		t.Errorf("%d guarded effects", guarded)
	}
	if result, replayed, _ := payNow(t, rdb); result != "receipt 1" || !replayed {
		t.Errorf("asked again: %q, replayed %t", result, replayed)
	}
}
