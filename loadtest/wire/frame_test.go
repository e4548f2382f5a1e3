package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
)

// serverFrame returns an unmasked frame; first holds FIN, RSV and opcode.
func serverFrame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

type message struct {
	op   Opcode
	text string
}

func feed(t *testing.T, c *Parser, pieces ...[]byte) (list []message, err error) {
	t.Helper()
	for _, p := range pieces {
		err := c.Feed(p, func(op Opcode, payload []byte) { list = append(list, message{op, string(payload)}) })
		if err != nil {
			return list, err
		}
	}
	return list, nil
}

func TestParserJoinsWhatWasSplitAnywhere(t *testing.T) {
	long, huge := strings.Repeat("x", 300), strings.Repeat("y", 70_000)
	stream := slices.Concat(
		serverFrame(0x81, "a"), serverFrame(0x89, "ping"), serverFrame(0x81, ""), serverFrame(0x01, "frag"),
		serverFrame(0x89, "between"), serverFrame(0x00, "men"), serverFrame(0x80, "ted"), serverFrame(0x81, long),
		serverFrame(0x82, huge), serverFrame(0x88, "\x0f\xa1gone"),
	)
	want := []message{
		{Text, "a"}, {Ping, "ping"}, {Text, ""}, {Ping, "between"}, {Text, "fragmented"}, {Text, long}, {Binary, huge}, {Close, "\x0f\xa1gone"},
	}
	for at := 0; at <= len(stream); at++ {
		if at == 400 {
			at = len(stream) - 40 // skip splits inside the payload
		}
		var c Parser
		got, err := feed(t, &c, stream[:at], stream[at:])
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("split at %d: %d messages, %v", at, len(got), err)
		}
		if c.rest != nil || c.whole != nil {
			t.Fatalf("split at %d: memory is held after the last message", at)
		}
	}
}

func TestParserByteByByte(t *testing.T) {
	var c Parser
	var got []message
	for _, b := range slices.Concat(serverFrame(0x81, "one"), serverFrame(0x01, "t"), serverFrame(0x80, "wo")) {
		list, err := feed(t, &c, []byte{b})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, list...)
	}
	if want := []message{{Text, "one"}, {Text, "two"}}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestParserRefuses(t *testing.T) {
	for name, stream := range map[string][]byte{
		"a mask":                       {0x81, 0x81, 0, 0, 0, 0, 'a'},
		"a reserved bit":               serverFrame(0xc1, "a"),
		"an unknown opcode":            serverFrame(0x83, "a"),
		"a fragmented control frame":   serverFrame(0x09, "a"),
		"a long control frame":         serverFrame(0x89, strings.Repeat("a", 126)),
		"a continuation of nothing":    serverFrame(0x80, "a"),
		"a new message inside another": slices.Concat(serverFrame(0x01, "a"), serverFrame(0x81, "b")),
		"a frame over the limit":       {0x81, 127, 0, 0, 0, 0, 0xff, 0, 0, 0},
		"a negative length":            {0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0},
	} {
		var c Parser
		if _, err := feed(t, &c, stream); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParserBoundsFragments(t *testing.T) {
	var c Parser
	piece := serverFrame(0x00, strings.Repeat("a", MaxFrame/4))
	_, err := feed(t, &c, serverFrame(0x01, "a"), piece, piece, piece, piece)
	if !errors.Is(err, ErrFrame) {
		t.Errorf("got %v", err)
	}
}

func TestAppendFrameIsMaskedWithZeros(t *testing.T) {
	for _, size := range []int{0, 1, 125, 126, 4096} {
		payload := bytes.Repeat([]byte("p"), size)
		b := AppendFrame(nil, Text, payload)
		if b[0] != 0x81 || b[1]&0x80 == 0 || !bytes.HasSuffix(b, append([]byte{0, 0, 0, 0}, payload...)) {
			t.Errorf("%d bytes: % x…", size, b[:min(len(b), 12)])
		}
		// Without the mask it is the same frame.
		b[1] &^= 0x80
		head := len(b) - size - 4
		var c Parser
		got, err := feed(t, &c, append(b[:head:head], payload...))
		if err != nil || len(got) != 1 || got[0].text != string(payload) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestCloseCode(t *testing.T) {
	for payload, want := range map[string]int{"": 1005, "\x0f": 1005, "\x0f\xa1": 4001, "\x10\x06slow": 4102} {
		if got := CloseCode([]byte(payload)); got != want {
			t.Errorf("%q: %d", payload, got)
		}
	}
}

// FuzzParser checks that messages do not depend on how the bytes are split, and that
// none exceeds the limit.
func FuzzParser(f *testing.F) {
	f.Add(serverFrame(0x81, "text"), uint16(3))
	f.Add(slices.Concat(serverFrame(0x01, "a"), serverFrame(0x89, ""), serverFrame(0x80, "b")), uint16(4))
	f.Add([]byte{0x81, 127, 0, 0, 0, 0, 0xff, 0, 0, 0}, uint16(1))
	f.Fuzz(func(t *testing.T, stream []byte, at uint16) {
		i := int(at) % (len(stream) + 1)
		var whole, split Parser
		want, err1 := feed(t, &whole, stream)
		got, err2 := feed(t, &split, stream[:i], stream[i:])
		if !slices.Equal(got, want) || (err1 == nil) != (err2 == nil) {
			t.Fatalf("whole: %q, %v; split at %d: %q, %v", want, err1, i, got, err2)
		}
		for _, m := range got {
			if len(m.text) > MaxFrame {
				t.Fatalf("message of %d bytes", len(m.text))
			}
		}
	})
}

func BenchmarkCutter(b *testing.B) {
	frame := serverFrame(0x81, string(Message(200)))
	var c Parser
	b.ReportAllocs()
	for b.Loop() {
		if err := c.Feed(frame, func(_ Opcode, payload []byte) {
			if _, ok := FindStamp(payload); !ok {
				b.Fatal("no stamp")
			}
		}); err != nil {
			b.Fatal(err)
		}
	}
}
