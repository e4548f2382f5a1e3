package notify

import (
	"strings"
	"testing"
	"time"
)

func TestWhen(t *testing.T) {
	for fields, want := range map[string]When{
		`"type":"x"`:                                 {},
		`"deliverAt":"2026-01-31T09:30:00Z"`:         {At: time.Date(2026, 1, 31, 9, 30, 0, 0, time.UTC)},
		`"deliverAt":"2026-01-31T09:30:00.5+02:00"`:  {At: time.Date(2026, 1, 31, 7, 30, 0, 5e8, time.UTC)},
		`"deliverAt":"2026-01-31T09:30:00.0010001Z"`: {At: time.Date(2026, 1, 31, 9, 30, 0, 2e6, time.UTC)},
		`"deliverAt":"1970-01-01T00:00:00Z"`:         {At: time.Unix(0, 0).UTC()},
		`"delay":1`:                                  {Delay: time.Second},
		`"delay":31622400`:                           {Delay: 366 * 24 * time.Hour},
	} {
		r, err := ParseRequest([]byte(`{"userId":"a","message":1,` + fields + `}`))
		if err != nil || r.When != want || r.When.Scheduled() == (want == When{}) {
			t.Errorf("%s: %+v, %v", fields, r.When, err)
		}
	}
	for fields, field := range map[string]string{
		`"deliverAt":1764000000`:                                      "deliverAt",
		`"deliverAt":"1764000000000"`:                                 "deliverAt",
		`"deliverAt":""`:                                              "deliverAt",
		`"deliverAt":null`:                                            "deliverAt",
		`"deliverAt":"2026-01-31"`:                                    "deliverAt",
		`"deliverAt":"2026-01-31T09:30:00"`:                           "deliverAt",
		`"deliverAt":"2026-01-31 09:30:00Z"`:                          "deliverAt",
		`"deliverAt":"2026-01-31T9:30:00Z"`:                           "deliverAt",
		`"deliverAt":"2026-01-31T09:30:00,5Z"`:                        "deliverAt",
		`"deliverAt":"2026-02-30T09:30:00Z"`:                          "deliverAt",
		`"deliverAt":"2026-01-31T09:30:00+25:00"`:                     "deliverAt",
		`"deliverAt":"0001-01-01T00:00:00Z"`:                          "deliverAt",
		`"delay":0`:                                                   "delay",
		`"delay":-1`:                                                  "delay",
		`"delay":1.5`:                                                 "delay",
		`"delay":"1s"`:                                                "delay",
		`"delay":31622401`:                                            "delay",
		`"delay":1,"delay":1`:                                         "delay",
		`"delay":1,"deliverAt":"2026-01-31T09:30:00Z"`:                "delay",
		`"deliverat":"2026-01-31T09:30:00Z"`:                          "deliverat",
		`"deliverAt":"2026-01-31T09:30:00Z","deliverAt":"2026-01-31"`: "deliverAt",
	} {
		_, err := ParseRequest([]byte(`{"userId":"a","message":1,` + fields + `}`))
		if err == nil || !strings.HasPrefix(err.Error(), field+" ") {
			t.Errorf("%s: %v", fields, err)
		}
	}
}

func TestCheckAhead(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for ahead, ok := range map[time.Duration]bool{-time.Hour: true, 366 * 24 * time.Hour: true, 366*24*time.Hour + 1: false} {
		if err := (When{At: now.Add(ahead)}).CheckAhead(now, 3); (err == nil) != ok || err != nil && !strings.HasPrefix(err.Error(), "notifications[3].deliverAt ") {
			t.Errorf("%v ahead: %v", ahead, err)
		}
	}
	if err := (When{}).CheckAhead(now, -1); err != nil {
		t.Error(err)
	}
}
