//go:build linux

package scenario

import (
	"context"
	"time"

	"herald/loadtest/crowd"
	"herald/loadtest/measure"
)

// soakShare is how much of the highest rate a soak asks for, if it is not told.
const soakShare = 0.6

// Soak is Mix for long: memory, goroutines and descriptors must not grow.
func Soak(ctx context.Context, st *Stage, o Options) (*measure.Run, error) {
	c, err := st.open(ctx, crowd.Options{Ids: true}, users(o.Users))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	run := &measure.Run{}
	if o.Rate == 0 {
		burst := o
		burst.WarmUp, burst.Duration = 2*time.Second, 3*time.Second
		most, err := st.publish(ctx, c, burst)
		if err != nil {
			return nil, err
		}
		rate, _ := most.Get(Rate)
		// One request in batchEvery is batchSize notifications.
		perRequest := 1.0
		if st.Server.Batch(nil, nil, nil) != nil {
			perRequest += float64(batchSize-1) / batchEvery
		}
		o.Rate = rate.Value * soakShare / perRequest
		run.Note("At most %s deliveries; the soak asks for %.0f %% of that.", measure.PerSecond.Format(rate.Value), soakShare*100)
	}
	if err := st.mix(ctx, run, c, o); err != nil {
		return run, err
	}
	for _, number := range []struct {
		name string
		of   func(measure.Sample) float64
	}{
		{RSSGrowth, func(s measure.Sample) float64 { return s.RSS }},
		{FileGrowth, func(s measure.Sample) float64 { return s.Files }},
		{GoroutineRise, func(s measure.Sample) float64 { return s.Goroutines }},
	} {
		if g, ok := growth(run.Timeline, number.of); ok {
			run.Add(number.name, measure.Share, g)
		}
	}
	return run, nil
}

// growth compares the last quarter with the second one: the first is the start.
// Of a few samples, or of what is not known, nothing can be said.
func growth(samples []measure.Sample, of func(measure.Sample) float64) (share float64, ok bool) {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	n := len(values)
	if n < 8 {
		return 0, false
	}
	before := measure.Median(values[n/4 : n/2])
	if before == 0 {
		return 0, false
	}
	return measure.Median(values[n-n/4:])/before - 1, true
}
