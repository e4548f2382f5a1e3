package redisinfo

import (
	"testing"
	"time"
)

func TestClientsGrow(t *testing.T) {
	start := time.Unix(1_764_000_000, 0)
	for name, tt := range map[string]struct {
		clients []int64 // one a minute
		want    bool
	}{
		"steady":               {[]int64{300, 300, 310, 290}, false},
		"doubled":              {[]int64{150, 200, 250, 300}, true},
		"doubled, but few":     {[]int64{20, 60, 100, 120}, false},
		"many, but not twice":  {[]int64{1000, 1200, 1900}, false},
		"slower than that":     {[]int64{150, 160, 170, 180, 190, 200, 210, 220, 230, 240, 250, 260, 270, 280, 290, 300, 310}, false},
		"grown and gone":       {[]int64{150, 400, 150}, false},
		"grown and stays":      {[]int64{150, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400}, false},
		"grown, not long past": {[]int64{150, 400, 400, 400, 400, 400}, true},
	} {
		var h history
		for i, n := range tt.clients {
			h = h.with(point{at: start.Add(time.Duration(i) * time.Minute), clients: n})
		}
		if got := h.trend().grown(tt.clients[len(tt.clients)-1]); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestRatios(t *testing.T) {
	at := time.Unix(1_764_000_000, 0)
	var h history
	add := func(minutes int, runID string, hits, misses int64) Finding {
		h = h.with(point{at: at.Add(time.Duration(minutes) * time.Minute), runID: runID, caches: map[string]lookups{"users": {hits, misses}}})
		return examineHitRatios(nil, h.trend())[0]
	}
	for i, tt := range []struct {
		minutes      int
		runID        string
		hits, misses int64
		want         Level
	}{
		{0, "a", 5000, 5000, OK},   // before the first look: not its business
		{1, "a", 5100, 5899, OK},   // bad, but 999 lookups
		{2, "a", 5100, 5900, Warn}, // 10 % of 1,000
		{3, "a", 5200, 5900, Warn},
		{12, "a", 9200, 5910, OK},  // in the last ten minutes 99 %
		{13, "a", 100, 1000, Warn}, // the counters were reset
		{14, "b", 0, 0, OK},        // another Redis
		{15, "b", 0, 900, OK},
	} {
		f := add(tt.minutes, tt.runID, tt.hits, tt.misses)
		if f.Level != tt.want || f.Name != "hit ratio of users" {
			t.Errorf("%d: %+v, want %s", i, f, tt.want)
		}
	}
}
