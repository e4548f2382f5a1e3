package report

import (
	"fmt"
	"math"

	"herald/loadtest/measure"
)

// scale maps values of an axis to 0…1 and says where its ticks are.
type scale struct {
	at    func(float64) float64
	ticks []tick
}

type tick struct {
	Value float64
	Label string
}

// linear begins at 0 and ends at a round number at or above most.
func linear(most float64, unit measure.Unit) scale {
	step := niceStep(most, unit)
	return linearTo(math.Max(step, math.Ceil(most/step-1e-9)*step), step, unit)
}

// exact is linear, but ends at most.
func exact(most float64, unit measure.Unit) scale {
	if most <= 0 {
		most = 1
	}
	return linearTo(most, niceStep(most, unit), unit)
}

func linearTo(end, step float64, unit measure.Unit) scale {
	s := scale{at: func(v float64) float64 { return v / end }}
	for i := 0.0; i*step <= end*(1+1e-9); i++ {
		s.ticks = append(s.ticks, tick{i * step, tickLabel(i*step, unit)})
	}
	return s
}

// niceStep gives four to eight ticks at 1, 2 or 5 times a power of ten; for
// bytes, times a power of 1024.
func niceStep(most float64, unit measure.Unit) float64 {
	if most <= 0 || math.IsNaN(most) {
		return 1
	}
	base := 1.0
	if unit == measure.Bytes {
		for base*1024 <= most {
			base *= 1024
		}
	}
	raw := most / base / 5
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, m := range []float64{1, 2, 5, 10} {
		if raw <= m*power {
			return m * power * base
		}
	}
	return 10 * power * base
}

// logarithmic has a tick at each power of ten, and at 2 and 5 times it where
// there are few.
func logarithmic(least, most float64, unit measure.Unit) scale {
	low, high := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
	if high <= low {
		high = low + 1
	}
	between := []float64{1}
	if high-low <= 2 {
		between = []float64{1, 2, 5}
	}
	s := scale{at: func(v float64) float64 { return (math.Max(math.Log10(v), low) - low) / (high - low) }}
	for p := low; p <= high; p++ {
		for _, m := range between {
			if v := m * math.Pow(10, p); v <= math.Pow(10, high)*1.0001 {
				s.ticks = append(s.ticks, tick{v, tickLabel(v, unit)})
			}
		}
	}
	return s
}

// nines gives each further nine of a quantile the same room.
func nines(most float64) scale {
	end := math.Max(1, -math.Log10(1-most))
	s := scale{at: func(q float64) float64 { return -math.Log10(1-q) / end }}
	for n := 0; float64(n) <= end+1e-9; n++ {
		s.ticks = append(s.ticks, tick{1 - math.Pow(10, -float64(n)), nineLabel(n)})
		if half := 1 - 0.5*math.Pow(10, -float64(n)); n == 0 && s.at(half) <= 1 {
			s.ticks = append(s.ticks, tick{half, "50 %"})
		}
	}
	return s
}

func nineLabel(n int) string {
	switch n {
	case 0:
		return "0"
	case 1, 2:
		return fmt.Sprintf("%.0f %%", 100-math.Pow(10, 2-float64(n)))
	}
	return fmt.Sprintf("%.*f %%", n-2, 100-math.Pow(10, 2-float64(n)))
}

func tickLabel(v float64, unit measure.Unit) string {
	switch unit {
	case measure.PerSecond:
		return measure.Plain.Format(v)
	case measure.Cores:
		return fmt.Sprintf("%.3g", v)
	}
	return unit.Format(v)
}
