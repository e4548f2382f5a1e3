//go:build linux

package measure

import "time"

// Processes holds the pids to measure; empty for processes on other machines.
type Processes struct {
	Server, Redis []int
	Others        []int // that belong to the measurement too
}

// Usage is the CPU time used between two points in time.
type Usage struct {
	Wall               time.Duration
	Server, Redis, Own CPU
	OtherPrograms      time.Duration // CPU time of unrelated programs
}

// Start starts to measure; stop returns the usage since then.
func (p Processes) Start() (stop func() (Usage, error), err error) {
	began, err := p.now()
	if err != nil {
		return nil, err
	}
	return func() (Usage, error) {
		ended, err := p.now()
		if err != nil {
			return Usage{}, err
		}
		return ended.since(began), nil
	}, nil
}

// moment holds all clocks at one point in time.
type moment struct {
	at                         time.Time
	server, redis, own, others CPU
	machine                    time.Duration
}

func (p Processes) now() (m moment, err error) {
	if m.server, err = CPUOf(p.Server); err != nil {
		return m, err
	}
	if m.redis, err = CPUOf(p.Redis); err != nil {
		return m, err
	}
	if m.others, err = CPUOf(p.Others); err != nil {
		return m, err
	}
	m.at, m.own, m.machine = time.Now(), ownCPU(), machineCPU()
	return m, nil
}

func (m moment) since(o moment) Usage {
	u := Usage{Wall: m.at.Sub(o.at), Server: m.server.minus(o.server), Redis: m.redis.minus(o.redis), Own: m.own.minus(o.own)}
	ours := u.Server.Total + u.Redis.Total + u.Own.Total + m.others.minus(o.others).Total
	u.OtherPrograms = max(0, m.machine-o.machine-ours)
	return u
}

// Counts are the counters of the scenario for a sample.
type Counts struct {
	Sent, Received, Connections, Goroutines int64
}

// Watch takes a sample at every interval until stop is called, which returns the
// samples.
func (p Processes) Watch(interval time.Duration, counts func() Counts) (stop func() []Sample) {
	quit, done := make(chan struct{}), make(chan []Sample)
	go func() {
		var samples []Sample
		t := time.NewTicker(interval)
		defer t.Stop()
		began, _ := p.now()
		last, before := began, counts()
		for {
			select {
			case <-quit:
				done <- samples
				return
			case <-t.C:
			}
			now, err := p.now()
			if err != nil {
				continue // the process has exited; the run reports it
			}
			c := counts()
			samples = append(samples, p.sample(began, last, now, before, c))
			last, before = now, c
		}
	}()
	return func() []Sample { close(quit); return <-done }
}

func (p Processes) sample(began, last, now moment, before, c Counts) Sample {
	u := now.since(last)
	s := u.Wall.Seconds()
	rss, _ := RSSOf(p.Server)
	return Sample{
		At: now.at.Sub(began.at).Seconds(), Sent: float64(c.Sent-before.Sent) / s, Received: float64(c.Received-before.Received) / s,
		ServerCPU: u.Server.Total.Seconds() / s, RedisCPU: u.Redis.Total.Seconds() / s, OwnCPU: u.Own.Total.Seconds() / s,
		RSS: float64(rss), Files: float64(FilesOf(p.Server)), Goroutines: float64(c.Goroutines), Connections: float64(c.Connections),
	}
}
