package limiter

import (
	"iter"
	"strconv"
	"time"
)

// Decision is the result of one Allow.
type Decision struct {
	Allowed    bool
	FailedOpen bool // allowed because Redis gave no answer in time
	TooCostly  bool // the cost is above the limit itself and will never be admitted

	Scope      string
	Limit      Limit         // zero: nothing is limited, and the fields below mean nothing
	Remaining  int           // cost that could still be admitted after this request
	ResetAfter time.Duration // until the window's oldest entry leaves it; 0: it is empty
	RetryAfter time.Duration // until this very cost could be admitted; 0 when allowed, Limit.Per when TooCostly

	// Now is Redis's clock at the decision. If Redis did not answer it is this node's clock,
	// which only the reset header uses; it decides nothing.
	Now time.Time

	cause error // of FailedOpen
}

// RetrySeconds is RetryAfter for a Retry-After header (RFC 9110, 10.2.3): whole
// seconds, rounded up, at least 1 when denied; 0 when allowed.
func (d Decision) RetrySeconds() int {
	if d.Allowed {
		return 0
	}
	return max(1, int(ceilSeconds(d.RetryAfter)))
}

func ceilSeconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}

// Headers yields the headers for the answer to a limited request: X-RateLimit-*, those of
// draft-ietf-httpapi-ratelimit-headers, and Retry-After if it was denied. It yields nothing
// if nothing is limited. It allocates once.
func (d Decision) Headers() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		if !d.Limit.Off() {
			d.yieldHeaders(yield)
		}
	}
}

// headerNames in the order in which appendValues writes their values.
var headerNames = [...]string{
	"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
	"RateLimit-Policy", "RateLimit", "Retry-After",
}

func (d Decision) yieldHeaders(yield func(name, value string) bool) {
	var room [192]byte
	var ends [len(headerNames)]int
	values := string(d.appendValues(room[:0], &ends))
	start := 0
	for i, end := range ends {
		if end > start && !yield(headerNames[i], values[start:end]) {
			return
		}
		start = end
	}
}

// appendValues appends the values and stores the end of each in ends. The value of a header
// that is not sent is empty.
func (d Decision) appendValues(b []byte, ends *[len(headerNames)]int) []byte {
	b = strconv.AppendInt(b, int64(d.Limit.N), 10)
	ends[0] = len(b)
	b = strconv.AppendInt(b, int64(d.Remaining), 10)
	ends[1] = len(b)
	b = strconv.AppendInt(b, d.resetUnix(), 10)
	ends[2] = len(b)
	b = d.appendItem(b, ";q=", int64(d.Limit.N), ";w=", ceilSeconds(d.Limit.Per))
	ends[3] = len(b)
	b = d.appendItem(b, ";r=", int64(d.Remaining), ";t=", ceilSeconds(d.ResetAfter))
	ends[4] = len(b)
	if !d.Allowed {
		b = strconv.AppendInt(b, int64(d.RetrySeconds()), 10)
	}
	ends[5] = len(b)
	return b
}

// resetUnix returns the time of the reset in Unix seconds, rounded up.
func (d Decision) resetUnix() int64 {
	const second = int64(time.Second / time.Microsecond)
	return (d.Now.Add(d.ResetAfter).UnixMicro() + second - 1) / second
}

// appendItem appends one structured-field item (RFC 9651, 3.3) named after the scope. New
// refuses scopes with quotes or backslashes.
func (d Decision) appendItem(b []byte, p1 string, v1 int64, p2 string, v2 int64) []byte {
	b = append(append(append(b, '"'), d.Scope...), '"')
	b = strconv.AppendInt(append(b, p1...), v1, 10)
	return strconv.AppendInt(append(b, p2...), v2, 10)
}
