//go:build linux

package scenario

import (
	"context"
	"time"

	"herald/loadtest/clients"
	"herald/loadtest/measure"
)

// soakShare is the default rate of a soak, as a share of the maximum.
const soakShare = 0.6

// Soak runs Mix for a long time: memory, goroutines and descriptors must not grow.
func Soak(ctx context.Context, st *Env, o Options) (*measure.Run, error) {
	c, err := st.open(ctx, clients.Options{Ids: true}, users(o.Users))
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
		run.Note("The maximum is %s deliveries; the soak runs at %.0f %% of it.", measure.PerSecond.Format(rate.Value), soakShare*100)
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

// growth compares the last quarter of the samples with the second, skipping the
// start. ok is false for fewer than eight samples or unknown values.
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
