package stream

import (
	"strings"
	"testing"

	"herald/notify"
)

func TestEventStreamGoodbyeTellsWhenToRetry(t *testing.T) {
	got := string(eventStream.Goodbye(notify.CloseDraining, 3120))
	if !strings.HasPrefix(got, "event: bye\ndata: {") || !strings.HasSuffix(got, "}\nretry: 3120\n\n") {
		t.Errorf("%q", got)
	}
}

func BenchmarkTextFrame(b *testing.B) {
	m := notify.Frame{JSON: strings.Repeat("x", 270)}
	b.ReportAllocs()
	for b.Loop() {
		webSocket.Encode(m)
	}
}
