package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

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

// heard is what a client's bytes came to.
type heard struct {
	messages []string
	pongs    []string
	end      piece // pieceNone if nothing ended it
}

// hear cuts what comes in segments and parses it with a parser that other
// clients use too.
func hear(t *testing.T, ps *parsers, segments ...[]byte) heard {
	t.Helper()
	var h heard
	var c cutter
	for _, segment := range segments {
		p := append(c.rest, segment...)
		for more := true; more; {
			kind, raw, left := c.cut(p)
			p = left
			switch kind {
			case pieceNone:
				c.keep(left)
				more = false
			case pieceMessage:
				_, data, err := ps.parse(raw, nil)
				if err != nil {
					h.end = pieceOdd
					return h
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

// cutAtRandom cuts data into segments.
func cutAtRandom(r *rand.Rand, data []byte) (segments [][]byte) {
	for len(data) > 0 {
		n := 1 + r.IntN(min(len(data), 1+r.IntN(200)))
		segments = append(segments, bytes.Clone(data[:n]))
		data = data[n:]
	}
	return segments
}

func TestCutsAtWholeMessages(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	ps := &parsers{}
	for range 500 {
		var want heard
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
		got := hear(t, ps, cutAtRandom(r, data)...)
		if strings.Join(got.messages, "|") != strings.Join(want.messages, "|") || strings.Join(got.pongs, "|") != strings.Join(want.pongs, "|") || got.end != pieceNone {
			t.Fatalf("got %d messages, %d pongs, %d; want %d, %d", len(got.messages), len(got.pongs), got.end, len(want.messages), len(want.pongs))
		}
	}
	if len(ps.idle) != 1 {
		t.Errorf("%d parsers for messages that came one at a time", len(ps.idle))
	}
}

func TestCutRefuses(t *testing.T) {
	unmasked := []byte{finBit | opText, 1, 'x'}
	for _, row := range []struct {
		name string
		data []byte
		end  piece
	}{
		{"unmasked", unmasked, pieceOdd},
		{"reserved bit", clientFrame(finBit|0x40|opText, "x"), pieceOdd},
		{"reserved opcode", clientFrame(finBit|0x3, "x"), pieceOdd},
		{"fragmented ping", clientFrame(opPing, "x"), pieceOdd},
		{"ping of 126 bytes", clientFrame(finBit|opPing, strings.Repeat("x", 126)), pieceOdd},
		{"continuation of nothing", clientFrame(finBit|opContinuation, "x"), pieceOdd},
		{"text inside a message", append(clientFrame(opText, "x"), clientFrame(finBit|opText, "y")...), pieceOdd},
		{"2^63 bytes", []byte{finBit | opText, maskBit | 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, pieceTooBig},
		{"2^40 bytes of close", []byte{finBit | opClose, maskBit | 127, 0, 0, 1, 0, 0, 0, 0, 0, 1, 2, 3, 4}, pieceOdd},
		{"4,097 bytes", clientFrame(finBit|opText, strings.Repeat("x", 4097)), pieceTooBig},
		{"4,097 bytes in two frames", append(clientFrame(opText, strings.Repeat("x", 4000)), clientFrame(finBit|opContinuation, strings.Repeat("x", 97))...), pieceTooBig},
		{"close", clientFrame(finBit|opClose, "\x03\xe8"), pieceClose},
		{"close inside a message", append(clientFrame(opText, "x"), clientFrame(finBit|opClose, "")...), pieceClose},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := hear(t, &parsers{}, row.data); got.end != row.end || len(got.messages) > 0 {
				t.Errorf("ended by %d after %q, want %d", got.end, got.messages, row.end)
			}
		})
	}
}

func TestRefusalsAreTheLibrarys(t *testing.T) {
	for name, row := range map[string]struct {
		raw  []byte
		code notify.CloseCode
	}{
		"reserved bit":  {clientFrame(finBit|0x40|opText, ""), notify.CloseProtocol},
		"close 1000":    {clientFrame(finBit|opClose, "\x03\xe8"), notify.CloseNormal},
		"close 999":     {clientFrame(finBit|opClose, "\x03\xe7"), notify.CloseProtocol},
		"after a piece": {append(clientFrame(opText, "x"), clientFrame(finBit|opClose, "\x03\xe8")...), notify.CloseNormal},
	} {
		var said [][]byte
		refuse(row.raw, func(frame []byte) { said = append(said, frame) })
		if len(said) != 1 || closeCode(said[0]) != row.code {
			t.Errorf("%s: answered with %x", name, said)
		}
	}
}

// A parser that is given more than a message must not serve anybody again: what
// is left in it would reach the next client.
func TestParserThatHoldsSomethingIsThrownAway(t *testing.T) {
	ps := &parsers{}
	two := append(clientFrame(finBit|opText, "mine"), clientFrame(finBit|opText, "yours")...)
	if _, _, err := ps.parse(two, nil); err == nil {
		t.Error("two messages passed for one")
	}
	if _, _, err := ps.parse(clientFrame(opText, "half"), nil); err == nil {
		t.Error("half a message passed for one")
	}
	if len(ps.idle) != 0 {
		t.Fatal("a parser that holds something was kept")
	}
	if _, data, err := ps.parse(clientFrame(finBit|opText, "whole"), nil); err != nil || string(data) != "whole" {
		t.Errorf("%q, %v", data, err)
	}
}

// FuzzCut compares what the cutter and the shared parser make of any bytes, in
// any segments, with what a library connection of the client's own does.
func FuzzCut(f *testing.F) {
	f.Add(append(clientFrame(opText, "a"), clientFrame(finBit|opContinuation, "b")...), uint64(1))
	f.Add(append(clientFrame(opText, "a"), clientFrame(finBit|opPing, "b")...), uint64(2))
	f.Add(append(clientFrame(finBit|opText, "a"), clientFrame(finBit|opClose, "\x03\xe8")...), uint64(3))
	f.Add(clientFrame(finBit|0x10|opText, "a"), uint64(4))
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		want := hearAlone(t, data)
		got := hear(t, &parsers{}, cutAtRandom(rand.New(rand.NewPCG(seed, 0)), data)...)
		if strings.Join(got.messages, "|") != strings.Join(want, "|") || len(got.messages) != len(want) {
			t.Fatalf("cut %q, alone %q", got.messages, want)
		}
	})
}

// hearAlone reads whole messages from a library connection of one client.
func hearAlone(t *testing.T, data []byte) (messages []string) {
	t.Helper()
	p, err := newParser()
	if err != nil {
		t.Fatal(err)
	}
	p.in, p.say = data, func([]byte) {}
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
	var c cutter
	b.ReportAllocs()
	for b.Loop() {
		kind, raw, _ := c.cut(frame)
		if kind != pieceMessage {
			b.Fatal(kind)
		}
		if _, _, err := ps.parse(raw, nil); err != nil {
			b.Fatal(err)
		}
	}
}
