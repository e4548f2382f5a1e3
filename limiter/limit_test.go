package limiter

import (
	"strings"
	"testing"
	"time"
)

func TestParseLimit(t *testing.T) {
	for s, want := range map[string]struct {
		limit Limit
		text  string
	}{
		"off":           {Limit{}, "off"},
		"1000/1m":       {Limit{1000, time.Minute}, "1000/1m"},
		"1/1s":          {Limit{1, time.Second}, "1/1s"},
		"1000000000/1h": {Limit{MaxN, time.Hour}, "1000000000/1h"},
		"30/24h":        {Limit{30, 24 * time.Hour}, "30/24h"},
		"30/60s":        {Limit{30, time.Minute}, "30/1m"},
		"30/1.5s":       {Limit{30, 1500 * time.Millisecond}, "30/1.5s"},
		"30/90m":        {Limit{30, 90 * time.Minute}, "30/1h30m"},
		"7/20m":         {Limit{7, 20 * time.Minute}, "7/20m"},
		"7/20h":         {Limit{7, 20 * time.Hour}, "7/20h"},
		"7/1h0m10s":     {Limit{7, time.Hour + 10*time.Second}, "7/1h0m10s"},
	} {
		got, err := ParseLimit(s)
		if err != nil || got != want.limit || got.String() != want.text {
			t.Errorf("ParseLimit(%q) = %+v (%s), %v; want %+v (%s)", s, got, got, err, want.limit, want.text)
		}
	}
}

func TestParseLimitNamesWhatIsWrong(t *testing.T) {
	for s, part := range map[string]string{
		"":                       "n/duration",
		"1000":                   "n/duration",
		"OFF":                    "n/duration",
		"/1m":                    `"" is not a whole number`,
		"-5/1m":                  `"-5" is not a whole number`,
		"+5/1m":                  `"+5" is not a whole number`,
		" 5/1m":                  `" 5" is not a whole number`,
		"1e3/1m":                 `"1e3" is not a whole number`,
		"0/1m":                   "0 is not from 1 to 1000000000",
		"1000000001/1m":          "1000000001 is not from 1",
		"99999999999999999999/m": "is not from 1",
		"5/":                     `"" is not a duration`,
		"5/m":                    `"m" is not a duration`,
		"5/60":                   `"60" is not a duration`,
		"5/1m/2m":                `"1m/2m" is not a duration`,
		"5/999ms":                "999ms is not from 1s to 24h",
		"5/24h1s":                "24h1s is not from 1s to 24h",
		"5/-1m":                  "-1m is not from 1s to 24h",
		"5/1.0001s":              "milliseconds",
	} {
		_, err := ParseLimit(s)
		if err == nil || !strings.Contains(err.Error(), part) || !strings.Contains(err.Error(), `limit "`+s+`"`) {
			t.Errorf("ParseLimit(%q): %v, want it to say %q", s, err, part)
		}
	}
}

func FuzzParseLimit(f *testing.F) {
	for _, s := range []string{"off", "1000/1m", "1/24h", "0/1s", "5/1m30s", "9/1.5s", "/", "1000000000/1h0m1s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLimit(s)
		if err != nil {
			if l != (Limit{}) {
				t.Fatalf("%q: %+v beside %v", s, l, err)
			}
			return
		}
		if err := l.check(); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if again, err := ParseLimit(l.String()); err != nil || again != l {
			t.Fatalf("%q reads as %+v, printed %q, which reads as %+v, %v", s, l, l, again, err)
		}
	})
}
