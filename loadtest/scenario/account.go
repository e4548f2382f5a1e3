//go:build linux

package scenario

import (
	"context"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/measure"
)

// account is what a crowd had received when a phase began.
type account struct {
	crowd                          *crowd.Crowd
	received, duplicates, disorder int64
}

func newAccount(c *crowd.Crowd) account {
	return account{c, c.Received(), c.Duplicates(), c.Disorder()}
}

// got is what has come since, each message on each socket once.
func (a account) got() int64 { return a.crowd.Received() - a.received }

// await waits until that many have come, or nothing more does, and returns how
// many have.
func (a account) await(ctx context.Context, n int64, patience time.Duration) int64 {
	return a.crowd.AwaitReceived(ctx, a.received+n, patience) - a.received
}

// close adds what went wrong with the messages, of which so many were to come.
func (a account) close(run *measure.Run, expected int64) {
	lost, duplicates := expected-a.got(), a.crowd.Duplicates()-a.duplicates
	run.Add(Lost, measure.Plain, float64(lost))
	if lost > 0 {
		run.Note("%d of %d messages that were accepted did not arrive: none came any more for a second.", lost, expected)
	}
	if lost < 0 {
		run.Note("%d messages more arrived than were accepted.", -lost)
	}
	run.Add(Duplicates, measure.Plain, float64(duplicates))
	if duplicates > 0 {
		run.Note("%d messages came twice on the same socket.", duplicates)
	}
	ended := 0
	for code, n := range a.crowd.Endings() {
		run.Note("The server ended %d sockets (%d).", n, code)
		ended += n
	}
	run.Add(SocketsLost, measure.Plain, float64(ended))
}

// order adds how many messages did not follow the one before on their socket.
func (a account) order(run *measure.Run) {
	n := a.crowd.Disorder() - a.disorder
	run.Add(Disorder, measure.Plain, float64(n))
	if n > 0 {
		run.Note("%d messages did not follow the one before on their socket.", n)
	}
}

// answered adds what became of requests. Those that were due and never sent
// count as errors, and in the latencies with the time for which they had waited.
func answered(run *measure.Run, a crowd.Answers, delivery *measure.Histogram) {
	delivery.Merge(a.Unsent)
	a.Latency.Merge(a.Unsent)
	run.Latency(Delivery, delivery)
	run.Latency(Answer, a.Latency)
	failures(run, a)
	slip(run, a)
}

func failures(run *measure.Run, a crowd.Answers) {
	run.Add(Errors, measure.Plain, float64(a.Failed)+float64(a.Unsent.Count()))
	if a.Failed > 0 {
		run.Note("%d of %d requests failed, the first: %v", a.Failed, a.Sent, a.Err)
	}
	unsent(run, a.Unsent.Count())
}

func unsent(run *measure.Run, n int64) {
	if n > 0 {
		run.Note("%d messages were due and could not be sent, as the server did not keep up: they count as errors, and in the latencies with the time for which they had waited.", n)
	}
}
