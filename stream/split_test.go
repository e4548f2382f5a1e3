package stream

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"herald/notify"
)

// clientFrame is one frame as a client sends it.
func clientFrame(first byte, payload string) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, maskBit|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
	key := [4]byte{0x12, 0x34, byte(len(payload)), 0x78}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i&3])
	}
	return b
}

// received is what a client's bytes amount to.
type received struct {
	messages []string
	pongs    []string
	end      piece // pieceIncomplete if nothing ended it
}

// receive splits what arrives in segments, and parses it with shared parsers.
func receive(t *testing.T, ps *parsers, segments ...[]byte) received {
	t.Helper()
	var h received
	var c splitter
	for _, segment := range segments {
		p := append(c.rest, segment...)
		for more := true; more; {
			kind, raw, left := c.next(p)
			p = left
			switch kind {
			case pieceIncomplete:
				c.keep(left)
				more = false
			case pieceMessage:
				_, data, err := ps.parse(raw)
				if err != nil {
					t.Fatalf("the library refuses %x: %v", raw, err)
				}
				h.messages = append(h.messages, string(data))
			case piecePing:
				h.pongs = append(h.pongs, string(pong(raw)[2:]))
			case piecePong:
			default:
				h.end = kind
				return h
			}
		}
	}
	return h
}

// segmentsOf splits data into segments of random length.
func segmentsOf(r *rand.Rand, data []byte) (segments [][]byte) {
	for len(data) > 0 {
		n := 1 + r.IntN(min(len(data), 1+r.IntN(200)))
		segments = append(segments, bytes.Clone(data[:n]))
		data = data[n:]
	}
	return segments
}

func TestSplitsIntoWholeMessages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ps := &parsers{}
	for range 500 {
		var want received
		var data []byte
		for range r.IntN(8) {
			text := strings.Repeat(string(rune('a'+r.IntN(26))), r.IntN(notify.MaxClientFrame+1))
			want.messages = append(want.messages, text)
			op, rest := byte(opText), text
			for more := true; more; {
				n := r.IntN(len(rest) + 1)
				if r.IntN(3) == 0 {
					n = len(rest)
				}
				fin := byte(0)
				if n == len(rest) && r.IntN(2) == 0 {
					fin, more = finBit, false
				}
				data = append(data, clientFrame(fin|op, rest[:n])...)
				op, rest = opContinuation, rest[n:]
				if more && r.IntN(3) == 0 {
					ping := strings.Repeat("p", r.IntN(maxControl+1))
					want.pongs = append(want.pongs, ping)
					data = append(data, clientFrame(finBit|opPing, ping)...)
					data = append(data, clientFrame(finBit|opPong, "unasked")...)
				}
			}
		}
		got := receive(t, ps, segmentsOf(r, data)...)
		if strings.Join(got.messages, "|") != strings.Join(want.messages, "|") || strings.Join(got.pongs, "|") != strings.Join(want.pongs, "|") || got.end != pieceIncomplete {
			t.Fatalf("got %d messages, %d pongs, %d; want %d, %d", len(got.messages), len(got.pongs), got.end, len(want.messages), len(want.pongs))
		}
	}
	if len(ps.idle) != 1 {
		t.Errorf("%d parsers for messages that came one at a time", len(ps.idle))
	}
}

func TestSplitterRefusesInvalidFrames(t *testing.T) {
	unmasked := []byte{finBit | opText, 1, 'x'}
	for _, row := range []struct {
		name string
		data []byte
		end  piece
	}{
		{"unmasked", unmasked, pieceInvalid},
		{"reserved bit", clientFrame(finBit|0x40|opText, "x"), pieceInvalid},
		{"reserved opcode", clientFrame(finBit|0x3, "x"), pieceInvalid},
		{"fragmented ping", clientFrame(opPing, "x"), pieceInvalid},
		{"ping of 126 bytes", clientFrame(finBit|opPing, strings.Repeat("x", 126)), pieceInvalid},
		{"continuation of nothing", clientFrame(finBit|opContinuation, "x"), pieceInvalid},
		{"text inside a message", append(clientFrame(opText, "x"), clientFrame(finBit|opText, "y")...), pieceInvalid},
		{"2^63 bytes", []byte{finBit | opText, maskBit | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, pieceTooBig},
		{"2^40 bytes of close", []byte{finBit | opClose, maskBit | 127, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4}, pieceInvalid},
		{"4,097 bytes", clientFrame(finBit|opText, strings.Repeat("x", 4097)), pieceTooBig},
		{"4,097 bytes in two frames", append(clientFrame(opText, strings.Repeat("x", 4000)), clientFrame(finBit|opContinuation, strings.Repeat("x", 97))...), pieceTooBig},
		{"close", clientFrame(finBit|opClose, "\x03\xe8"), pieceClose},
		{"close inside a message", append(clientFrame(opText, "x"), clientFrame(finBit|opClose, "")...), pieceClose},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := receive(t, &parsers{}, row.data); got.end != row.end || len(got.messages) > 0 {
				t.Errorf("ended by %d after %q, want %d", got.end, got.messages, row.end)
			}
		})
	}
}

func TestCloseFramesAreAnswered(t *testing.T) {
	for name, row := range map[string]struct {
		payload string
		code    notify.CloseCode // CloseNormal: the payload is echoed
	}{
		"without a code":         {"", notify.CloseNormal},
		"1000":                   {"\x03\xe8", notify.CloseNormal},
		"1001 with a reason":     {"\x03\xe9leaving · naviguer", notify.CloseNormal},
		"3000":                   {"\x0b\xb8", notify.CloseNormal},
		"4999 and 123 bytes":     {"\x13\x87" + strings.Repeat("x", 123), notify.CloseNormal},
		"half a code":            {"\x03", notify.CloseProtocol},
		"999":                    {"\x03\xe7", notify.CloseProtocol},
		"1005, never on a wire":  {"\x03\xed", notify.CloseProtocol},
		"1015, never on a wire":  {"\x03\xf7", notify.CloseProtocol},
		"2999":                   {"\x0b\xb7", notify.CloseProtocol},
		"5000":                   {"\x13\x88", notify.CloseProtocol},
		"a reason in Latin-1":    {"\x03\xe8\xe9", notify.CloseNotUTF8},
		"a reason cut in a rune": {"\x03\xe8\xc3", notify.CloseNotUTF8},
	} {
		answer, code := closeAnswer(clientFrame(finBit|opClose, row.payload))
		want := ""
		if row.code == notify.CloseNormal {
			want = string([]byte{finBit | opClose, byte(len(row.payload))}) + row.payload
		}
		if code != row.code || string(answer) != want {
			t.Errorf("%s: %d with %q, want %d with %q", name, code, answer, row.code, want)
		}
	}
}

// Of the codes that a close frame may carry, the library accepts the same.
func TestCloseCodesAreTheLibrarys(t *testing.T) {
	for code := range 5100 {
		p, err := newParser()
		if err != nil {
			t.Fatal(err)
		}
		p.in = clientFrame(finBit|opClose, string([]byte{byte(code >> 8), byte(code)}))
		_, _, err = p.lib.Reader(t.Context())
		if want := websocket.CloseStatus(err) == websocket.StatusCode(code); validCloseCode(uint16(code)) != want {
			t.Errorf("%d: valid is %t, the library's answer %v", code, !want, err)
		}
	}
}

// Bytes that are left in a parser would reach the next client.
func TestAParserWithUnreadBytesIsNotUsedAgain(t *testing.T) {
	ps := &parsers{}
	two := append(clientFrame(finBit|opText, "mine"), clientFrame(finBit|opText, "yours")...)
	if _, _, err := ps.parse(two); err == nil {
		t.Error("two messages passed for one")
	}
	if _, _, err := ps.parse(clientFrame(opText, "half")); err == nil {
		t.Error("half a message passed for one")
	}
	if len(ps.idle) != 0 {
		t.Fatal("a parser with unread bytes was kept")
	}
	if _, data, err := ps.parse(clientFrame(finBit|opText, "whole")); err != nil || string(data) != "whole" {
		t.Errorf("%q, %v", data, err)
	}
}

// FuzzSplit compares the splitter and a shared parser, for any bytes in any segments,
// with a library connection that only this client uses.
func FuzzSplit(f *testing.F) {
	f.Add(append(clientFrame(opText, "a"), clientFrame(finBit|opContinuation, "b")...), uint64(1))
	f.Add(append(clientFrame(opText, "a"), clientFrame(finBit|opPing, "b")...), uint64(2))
	f.Add(append(clientFrame(finBit|opText, "a"), clientFrame(finBit|opClose, "\x03\xe8")...), uint64(3))
	f.Add(clientFrame(finBit|0x10|opText, "a"), uint64(4))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		want := receiveAlone(t, data)
		got := receive(t, &parsers{}, segmentsOf(rand.New(rand.NewPCG(seed, 0)), data)...)
		if strings.Join(got.messages, "|") != strings.Join(want, "|") || len(got.messages) != len(want) {
			t.Fatalf("split %q, alone %q", got.messages, want)
		}
	})
}

// receiveAlone reads whole messages from a library connection of one client.
func receiveAlone(t *testing.T, data []byte) (messages []string) {
	t.Helper()
	p, err := newParser()
	if err != nil {
		t.Fatal(err)
	}
	p.in = data
	for {
		_, r, err := p.lib.Reader(context.Background())
		if err != nil {
			return messages
		}
		text, err := io.ReadAll(r)
		if err != nil {
			return messages
		}
		messages = append(messages, string(text))
	}
}

func BenchmarkReadMessage(b *testing.B) {
	ps, frame := &parsers{}, clientFrame(finBit|opText, `{"type":"read","upTo":1764000000018}`)
	var c splitter
	b.ReportAllocs()
	for b.Loop() {
		kind, raw, _ := c.next(frame)
		if kind != pieceMessage {
			b.Fatal(kind)
		}
		if _, _, err := ps.parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
