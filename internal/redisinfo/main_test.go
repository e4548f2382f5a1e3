package redisinfo

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal keeps what is logged.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) log() *slog.Logger { return slog.New(slog.NewJSONHandler(j, nil)) }

type line map[string]any

// lines are those whose message begins so.
func (j *journal) lines(t *testing.T, prefix string) (found []line) {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	for text := range strings.Lines(j.b.String()) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		if msg, _ := l["msg"].(string); strings.HasPrefix(msg, prefix) {
			found = append(found, l)
		}
	}
	return found
}

// level is the level of the finding of that name.
func level(t *testing.T, found []Finding, name string) Level {
	t.Helper()
	for _, f := range found {
		if f.Name == name {
			if (f.Level == OK) != (f.Advice == "") {
				t.Errorf("%+v: advice goes with what is not well", f)
			}
			return f.Level
		}
	}
	t.Fatalf("nothing was found about %s in %+v", name, found)
	return OK
}
