package redisinfo

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestDescribe(t *testing.T) {
	for args, want := range map[string]string{
		"get user:{42}:log":                          "GET user:{…}:log",
		"XRANGE user:{alice@example.com}:log - +":    "XRANGE user:{…}:log",
		"HGETALL session:5f3a":                       "HGETALL session:…",
		"EVALSHA 5f3a 2 user:{42}:log user:{42}:x 7": "EVALSHA user:{…}:log",
		"EVAL return(1) 0 alice":                     "EVAL",
		"SET alice secret":                           "SET …",
		"SET user:{alice secret":                     "SET user:…",
		"SET user:{a}:SECRET v":                      "SET user:…",
		"SET user:{a}:log:alice v":                   "SET user:…",
		"AUTH alice secret":                          "AUTH",
		"HELLO 3 AUTH alice secret":                  "HELLO",
		"CONFIG SET requirepass secret":              "CONFIG SET",
		"ACL SETUSER alice >secret":                  "ACL SETUSER",
		"SCRIPT LOAD secret":                         "SCRIPT LOAD",
		"PUBLISH user:alice:events secret":           "PUBLISH",
		"ECHO user:alice":                            "ECHO",
		"KEYS user:alice*":                           "KEYS",
		"FT.SEARCH alice:x secret":                   "FT.SEARCH",
		"DEBUG SLEEP 1":                              "DEBUG",
		"alice@secret":                               "?",
	} {
		command, key := describe(strings.Fields(args))
		if got := strings.TrimSpace(command + " " + key); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

// FuzzDescribe: whatever is asked, what is told has the shape of a command and of
// a key's pattern.
func FuzzDescribe(f *testing.F) {
	f.Add("GET", "user:{SECRET}:log", "x")
	f.Add("EVALSHA", "SECRET", "1")
	command := regexp.MustCompile(`^(\?|[A-Z][A-Z0-9_.-]{0,31})( (\?|[A-Z][A-Z0-9_.-]{0,31}))?$`)
	key := regexp.MustCompile(`^(|…|[A-Za-z][A-Za-z0-9_-]{0,31}:(…|\{…\}:[a-z][a-z-]{0,15}))$`)
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if gotCommand, gotKey := describe([]string{a, b, c, b}); !command.MatchString(gotCommand) || !key.MatchString(gotKey) {
			t.Errorf("%q %q", gotCommand, gotKey)
		}
	})
}

func TestSlowLogKeepsSlowCommandsOnly(t *testing.T) {
	l := slowLog([]redis.SlowLog{
		{ID: 9, Duration: time.Millisecond, Args: []string{"GET", "user:{42}:log"}},
		{ID: 8, Duration: SlowCommand, Args: []string{"GET", "user:{42}:log"}, ClientAddr: "127.0.0.1:1"},
		{ID: 7, Duration: time.Hour},
	})
	if len(l.Entries) != 1 || l.Entries[0].ID != 8 || l.newest != 9 {
		t.Errorf("%+v", l)
	}
}
