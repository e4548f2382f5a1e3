package limiter

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limit is the most cost that any window of length Per may hold. The zero Limit limits
// nothing.
type Limit struct {
	N   int           // cost, 1 to MaxN
	Per time.Duration // whole milliseconds, so that the key's expiry can follow it
}

// The range that ParseLimit accepts.
const (
	MaxN   = 1_000_000_000
	MinPer = time.Second
	MaxPer = 24 * time.Hour
)

// Off reports whether nothing is limited.
func (l Limit) Off() bool { return l == Limit{} }

// ParseLimit reads "1000/1m": N, a slash, and a Go duration. "off" is the zero Limit.
func ParseLimit(s string) (Limit, error) {
	if s == "off" {
		return Limit{}, nil
	}
	count, per, ok := strings.Cut(s, "/")
	if !ok {
		return Limit{}, fmt.Errorf("limit %q: want n/duration such as 1000/1m, or off", s)
	}
	n, err := parseCount(count)
	if err != nil {
		return Limit{}, fmt.Errorf("limit %q: %w", s, err)
	}
	d, err := parsePer(per)
	if err != nil {
		return Limit{}, fmt.Errorf("limit %q: %w", s, err)
	}
	return Limit{N: n, Per: d}, nil
}

func parseCount(s string) (int, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, fmt.Errorf("%q is not a whole number", s)
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > MaxN {
		return 0, fmt.Errorf("%s is not from 1 to %d", s, MaxN)
	}
	return n, nil
}

func parsePer(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a duration such as 1m or 10s", s)
	case d < MinPer || d > MaxPer:
		return 0, fmt.Errorf("%s is not from 1s to 24h", s)
	case d%time.Millisecond != 0:
		return 0, fmt.Errorf("%s is not a whole number of milliseconds", s)
	}
	return d, nil
}

// String returns the form that ParseLimit reads: "1000/1m" or "off".
func (l Limit) String() string {
	if l.Off() {
		return "off"
	}
	per := l.Per.String()
	if strings.HasSuffix(per, "m0s") {
		per = strings.TrimSuffix(per, "0s")
	}
	if strings.HasSuffix(per, "h0m") {
		per = strings.TrimSuffix(per, "0m")
	}
	return strconv.Itoa(l.N) + "/" + per
}

// check refuses a limit that New cannot work with. Windows shorter than MinPer work, and
// tests use them.
func (l Limit) check() error {
	if l.Off() {
		return nil
	}
	if l.N < 1 || l.N > MaxN || l.Per < time.Millisecond || l.Per > MaxPer || l.Per%time.Millisecond != 0 {
		return fmt.Errorf("limit %s out of range", l)
	}
	return nil
}
