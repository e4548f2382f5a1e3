//go:build linux

package scenario

import (
	"context"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/measure"
)

// snapshot holds the counters of a set at the start of a phase.
type snapshot struct {
	set                            *clients.Set
	patience                       time.Duration
	received, duplicates, disorder int64
}

func (st *Env) snapshot(c *clients.Set) snapshot {
	return snapshot{c, st.patience, c.Received(), c.Duplicates(), c.Disorder()}
}

// got returns the messages received since, without duplicates.
func (a snapshot) got() int64 { return a.set.Received() - a.received }

// await waits until n messages have arrived, or none has for the duration of
// patience. It returns the number that has arrived.
func (a snapshot) await(ctx context.Context, n int64) int64 {
	return a.set.AwaitReceived(ctx, a.received+n, a.patience) - a.received
}

// close adds what went wrong with the expected messages.
func (a snapshot) close(run *measure.Run, expected int64) {
	lost, duplicates := expected-a.got(), a.set.Duplicates()-a.duplicates
	run.Add(Lost, measure.Plain, float64(lost))
	if lost > 0 {
		run.Note("%d of %d accepted messages did not arrive within %v of the last one.", lost, expected, a.patience)
	}
	if lost < 0 {
		run.Note("%d more messages arrived than were accepted.", -lost)
	}
	run.Add(Duplicates, measure.Plain, float64(duplicates))
	if duplicates > 0 {
		run.Note("%d messages arrived twice on the same socket.", duplicates)
	}
	ended := 0
	for code, n := range a.set.CloseCodes() {
		run.Note("The server closed %d sockets (%d).", n, code)
		ended += n
	}
	run.Add(SocketsLost, measure.Plain, float64(ended))
}

// order adds the messages that arrived out of order on their socket.
func (a snapshot) order(run *measure.Run) {
	n := a.set.Disorder() - a.disorder
	run.Add(Disorder, measure.Plain, float64(n))
	if n > 0 {
		run.Note("%d messages arrived out of order on their socket.", n)
	}
}

// addResponses adds the latencies and failures of requests. Requests that were due
// and never sent count as errors, and in the latencies with their waiting time.
func addResponses(run *measure.Run, a clients.Answers, delivery *measure.Histogram) {
	delivery.Merge(a.Unsent)
	a.Latency.Merge(a.Unsent)
	run.Latency(Delivery, delivery)
	run.Latency(Response, a.Latency)
	failures(run, a)
	addSendDelay(run, a)
}

func failures(run *measure.Run, a clients.Answers) {
	run.Add(Errors, measure.Plain, float64(a.Failed)+float64(a.Unsent.Count()))
	if a.Failed > 0 {
		run.Note("%d of %d requests failed, the first: %v", a.Failed, a.Sent, a.Err)
	}
	unsent(run, a.Unsent.Count())
}

func unsent(run *measure.Run, n int64) {
	if n > 0 {
		run.Note("%d messages were due and never sent, because the server did not keep up: they count as errors, and in the latencies with their waiting time.", n)
	}
}
