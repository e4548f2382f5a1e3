package notify

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestValidUserID(t *testing.T) {
	for id, want := range map[string]bool{
		"42": true, "a.b_c-d@e": true, strings.Repeat("x", 128): true,
		"": false, strings.Repeat("x", 129): false, "a:b": false, "*": false, "a b": false,
		"a{b": false, "é": false, "a\n": false, "a\x00": false, "a/b": false, "?": false, "[": false,
	} {
		if ValidUserID(id) != want {
			t.Errorf("ValidUserID(%q) = %v", id, !want)
		}
	}
}

func TestParseID(t *testing.T) {
	for text, want := range map[string]ID{"0": 0, "1": 1, "9007199254740992": MaxID} {
		if got, err := ParseID(text); err != nil || got != want {
			t.Errorf("ParseID(%q) = %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1", "+1", "01", "1.0", "1e3", "9007199254740993", "99999999999999999999", " 1", "1\n", "x"} {
		if got, err := ParseID(text); !errors.Is(err, ErrID) {
			t.Errorf("ParseID(%q) = %d, %v; want ErrID", text, got, err)
		}
	}
}

func TestParseRequest(t *testing.T) {
	r, err := ParseRequest([]byte(` {"userId":"4\u0032", "message" : {"a": [1, 2 ], "a":"\ud800"} , "type":"order.shipped","ttl":60,"ephemeral":false}`))
	if err != nil {
		t.Fatal(err)
	}
	if r.UserID != "42" || string(r.Message) != `{"a": [1, 2 ], "a":"\ud800"}` || r.Kind != "order.shipped" || r.TTL != time.Minute || r.Ephemeral {
		t.Errorf("read %+v with message %s", r, r.Message)
	}
	many, err := ParseRequest([]byte(`{"userIds":["a","b"],"message":null}`))
	if err != nil || !many.Many || len(many.Users) != 2 || string(many.Message) != "null" {
		t.Errorf("read %+v, %v", many, err)
	}
}

// nested returns n nested arrays.
func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestParseRequestRefuses(t *testing.T) {
	user := func(rest string) string { return `{"userId":"42",` + rest + `}` }
	for name, c := range map[string]struct {
		body, field, problem string
		size                 bool
	}{
		"empty":             {body: ``, problem: "not valid JSON"},
		"array":             {body: `[]`, problem: "must be a JSON object"},
		"trailing comma":    {body: `{"userId":"42",}`, problem: "not valid JSON"},
		"two texts":         {body: user(`"message":1`) + `{}`, problem: "not valid JSON"},
		"not UTF-8":         {body: user("\"message\":\"\xff\""), problem: "not valid UTF-8"},
		"no user":           {body: `{"message":1}`, field: "userId", problem: "is required"},
		"no message":        {body: `{"userId":"42"}`, field: "message", problem: "is required"},
		"numeric user":      {body: `{"userId":42,"message":1}`, field: "userId", problem: "must be a string"},
		"bad user":          {body: `{"userId":"a:b","message":1}`, field: "userId", problem: "1 to 128"},
		"escaped bad user":  {body: `{"userId":"a\u003ab","message":1}`, field: "userId", problem: "1 to 128"},
		"both users":        {body: user(`"userIds":["1"],"message":1`), field: "userIds", problem: "beside"},
		"no users":          {body: `{"userIds":[],"message":1}`, field: "userIds", problem: "1 to 1000"},
		"users no array":    {body: `{"userIds":"1","message":1}`, field: "userIds", problem: "array"},
		"user twice":        {body: `{"userIds":["1","2","1"],"message":1}`, field: "userIds[2]", problem: "repeats userIds[0]"},
		"bad one of many":   {body: `{"userIds":["1","*"],"message":1}`, field: "userIds[1]", problem: "1 to 128"},
		"unknown":           {body: user(`"message":1,"x":1`), field: "x", problem: "not a known field"},
		"repeated":          {body: user(`"message":1,"message":2`), field: "message", problem: "twice"},
		"repeated escaped":  {body: user(`"message":1,"m\u0065ssage":2`), field: "message", problem: "twice"},
		"another case":      {body: user(`"Message":1`), field: "Message", problem: "spelled message"},
		"type number":       {body: user(`"message":1,"type":5`), field: "type", problem: "must be a string"},
		"type empty":        {body: user(`"message":1,"type":""`), field: "type", problem: "1 to 128"},
		"type control":      {body: user(`"message":1,"type":"a\nb"`), field: "type", problem: "control"},
		"ttl zero":          {body: user(`"message":1,"ttl":0`), field: "ttl", problem: "whole number"},
		"ttl fraction":      {body: user(`"message":1,"ttl":1.5`), field: "ttl", problem: "whole number"},
		"ttl text":          {body: user(`"message":1,"ttl":"60"`), field: "ttl", problem: "whole number"},
		"ephemeral text":    {body: user(`"message":1,"ephemeral":"true"`), field: "ephemeral", problem: "true or false"},
		"urgency":           {body: user(`"message":1,"urgency":"very-low"`), field: "urgency", problem: `"low", "normal" or "high"`},
		"urgency twice":     {body: user(`"message":1,"urgency":"low","urgency":"low"`), field: "urgency", problem: "twice"},
		"ephemeral null":    {body: user(`"message":1,"ephemeral":null`), field: "ephemeral", problem: "true or false"},
		"deep":              {body: user(`"message":` + nested(33)), field: "message", problem: "deeper than 32"},
		"bad number":        {body: user(`"message":01`), problem: "not valid JSON"},
		"bad literal":       {body: user(`"message":nul`), field: "", problem: "not valid JSON"},
		"bad escape":        {body: user(`"message":"\x"`), problem: "not valid JSON"},
		"control in string": {body: user("\"message\":\"a\nb\""), problem: "not valid JSON"},
		"large":             {body: user(`"message":"` + strings.Repeat("x", MaxMessageBytes) + `"`), field: "message", problem: "65536", size: true},
		"unprintable field": {body: user(`"message":1,"\u0007":1`), field: `"\a"`, problem: "not a known field"},
	} {
		_, err := ParseRequest([]byte(c.body))
		var fe *FieldError
		if !errors.As(err, &fe) {
			t.Errorf("%s: error %v, want a FieldError", name, err)
			continue
		}
		if fe.Field != c.field || !strings.Contains(fe.Problem, c.problem) || fe.Size != c.size {
			t.Errorf("%s: %+v, want field %q and problem %q", name, fe, c.field, c.problem)
		}
	}
	for name, body := range map[string]string{
		"deep enough":  user(`"message":` + nested(32)),
		"large enough": user(`"message":"` + strings.Repeat("x", MaxMessageBytes-2) + `"`),
	} {
		if _, err := ParseRequest([]byte(body)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseBatch(t *testing.T) {
	items, err := ParseBatch([]byte(`{"notifications":[{"userId":"1","message":1},{"userId":"*","message":1},{"userIds":["2","3"],"message":2}]}`))
	if err != nil || len(items) != 3 || items[0].Err != nil || items[2].Err != nil {
		t.Fatalf("read %+v, %v", items, err)
	}
	var fe *FieldError
	if !errors.As(items[1].Err, &fe) || fe.Field != "notifications[1].userId" {
		t.Errorf("second item: %v", items[1].Err)
	}
	for _, body := range []string{`{}`, `{"notifications":[]}`, `{"notifications":1}`, `{"x":[]}`, `{"notifications":[1],"notifications":[1]}`, `{"notifications":[{]}`} {
		if _, err := ParseBatch([]byte(body)); !errors.As(err, &fe) {
			t.Errorf("ParseBatch(%s): %v", body, err)
		}
	}
	if _, err := ParseBatch([]byte(`{"notifications":[` + strings.Repeat(`1,`, MaxRecipients) + `1]}`)); err == nil {
		t.Error("1001 items were accepted")
	}
}

func TestStoredFrame(t *testing.T) {
	d := Draft{Message: []byte(`{"a" : 1}`), Kind: "q\"", TraceParent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	frame := StoredHead + `17,"prev":16,"ts":99,` + string(AppendTail(nil, &d))
	id, prev, ok := ParseStored(frame)
	if !ok || id != 17 || prev != 16 {
		t.Errorf("ParseStored(%s) = %d, %d, %v", frame, id, prev, ok)
	}
	if !json.Valid([]byte(frame)) || !strings.Contains(frame, `"kind":"q\""`) || !strings.HasSuffix(frame, `"message":{"a" : 1}}`) {
		t.Errorf("frame %s", frame)
	}
	for _, foreign := range []string{
		``, `{}`, `{"type":"notification"}`, StoredHead, StoredHead + `17}`, StoredHead + `17,"prev":17,"ts":1,"m":1}`,
		StoredHead + `0,"prev":0,"ts":1,"m":1}`, StoredHead + `17,"prev":16,"ts":1}`, StoredHead + `17,"prev":16,"ts":1,"message":`,
		StoredHead + `99999999999999999,"prev":16,"ts":1,"m":1}`, StoredHead + ` 17,"prev":16,"ts":1,"m":1}`,
	} {
		if _, _, ok := ParseStored(foreign); ok {
			t.Errorf("ParseStored accepted %s", foreign)
		}
	}
	ephemeral := string(AppendEphemeral(nil, &d, 99))
	if !IsEphemeral(ephemeral) || !json.Valid([]byte(ephemeral)) || IsEphemeral(frame) || IsEphemeral(`{"type":"notification","ts":5,"x":1}`) {
		t.Errorf("ephemeral frame %s", ephemeral)
	}
}

func TestOwnFramesAreJSON(t *testing.T) {
	for _, frame := range [][]byte{
		Hello{UserID: "42"}.Frame(), GapFrame(1, 2), ReadFrame(3, 4), PongFrame(), ErrorFrame("a \"quoted\"\n\u2028 <b> thing"),
		ByeFrame(CloseDraining, 3120), ByeFrame(CloseRevoked, 0),
	} {
		if !json.Valid(frame) || !utf8.Valid(frame) {
			t.Errorf("not JSON: %s", frame)
		}
	}
	if got := string(ByeFrame(CloseDraining, 3120)); got != `{"type":"bye","code":4101,"reason":"draining","retryAfterMs":3120}` {
		t.Error(got)
	}
	for code := CloseNormal; code <= CloseOverloaded; code++ {
		if len(code.Reason()) > 123 {
			t.Errorf("close code %d: a reason over 123 bytes sends no close frame", code)
		}
	}
}

func TestParseClientFrame(t *testing.T) {
	for text, want := range map[string]ClientFrame{
		`{"type":"ping"}`:                  {Kind: ClientPing},
		`{"type":"ping","more":{"x":[]}}`:  {Kind: ClientPing},
		`{"upTo":17,"type":"read"}`:        {Kind: ClientRead, UpTo: 17},
		`{"type":"token","token":"a.b.c"}`: {Kind: ClientToken, Token: "a.b.c"},
	} {
		if got, err := ParseClientFrame([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		``, `1`, `{}`, `[]`, `{"type":"x"}`, `{"type":"read"}`, `{"type":"read","upTo":-1}`, `{"type":"read","upTo":"1"}`,
		`{"type":"token"}`, `{"type":"ping","type":"ping"}`, `{"type":"ping"`, `{"type":1}`, `{"type":"ping"}x`,
	} {
		if got, err := ParseClientFrame([]byte(text)); err == nil {
			t.Errorf("%s was parsed as %+v", text, got)
		}
	}
}

func TestValidTraceParent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if !ValidTraceParent(good) {
		t.Error("refused", good)
	}
	for _, bad := range []string{"", good[1:], "01" + good[2:], strings.ToUpper(good), good + "0",
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"} {
		if ValidTraceParent(bad) {
			t.Error("accepted", bad)
		}
	}
}

func FuzzCheckJSON(f *testing.F) {
	for _, seed := range []string{`{"a":[1,-0.5e+7,"\u00e9\n",true,false,null]}`, `[]`, ` "x" `, `{"a":1,}`, `01`, nested(40), "\"\xff\"", `"\ud800"`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ours := CheckJSON(data)
		if errors.Is(ours, errDepth) {
			return
		}
		if theirs := json.Valid(data) && utf8.Valid(data); (ours == nil) != theirs {
			t.Errorf("CheckJSON = %v, encoding/json says %v", ours, theirs)
		}
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"userId":"42","message":{"a":1},"type":"t","ttl":5,"ephemeral":true,"urgency":"high"}`))
	f.Add([]byte(`{"userIds":["1","2"],"message":[[]]}`))
	f.Add([]byte(`{"notifications":[{"userId":"1","message":1},{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := ParseRequest(data); err == nil {
			checkRequest(t, data, r)
		}
		items, err := ParseBatch(data)
		for _, item := range items {
			if err == nil && item.Err == nil {
				checkRequest(t, data, item.Request)
			}
		}
	})
}

// checkRequest asserts the properties that other packages rely on in a request.
func checkRequest(t *testing.T, data []byte, r Request) {
	t.Helper()
	if !json.Valid(data) {
		t.Errorf("accepted invalid JSON: %q", data)
	}
	if CheckJSON(r.Message) != nil || len(r.Message) > MaxMessageBytes || len(r.Users) == 0 || len(r.Users) > MaxRecipients {
		t.Errorf("accepted %+v", r)
	}
	for _, user := range r.Users {
		if !ValidUserID(user) {
			t.Errorf("accepted user %q", user)
		}
	}
	if frame := AppendEphemeral(nil, &r.Draft, 1); !json.Valid(frame) {
		t.Errorf("frame %s", frame)
	}
}

func FuzzParseClientFrame(f *testing.F) {
	for _, seed := range []string{`{"type":"ping"}`, `{"type":"read","upTo":17}`, `{"type":"token","token":"x"}`, `{"a":[{}]}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := ParseClientFrame(data)
		if err == nil && (frame.Kind == 0 || frame.UpTo < 0 || frame.UpTo > MaxID) {
			t.Errorf("accepted %+v", frame)
		}
		if err != nil && !json.Valid(ErrorFrame(err.Error())) {
			t.Errorf("error frame for %v is not JSON", err)
		}
	})
}

func FuzzParseStored(f *testing.F) {
	f.Add(StoredHead + `17,"prev":16,"ts":99,"message":1}`)
	f.Add(`{"type":"notification","ephemeral":true,"ts":9,"message":1}`)
	f.Fuzz(func(t *testing.T, frame string) {
		if id, prev, ok := ParseStored(frame); ok && (id <= prev || id > MaxID || prev < 0) {
			t.Errorf("parsed %d, %d from %q", id, prev, frame)
		}
		if _, _, stored := ParseStored(frame); stored && IsEphemeral(frame) {
			t.Errorf("both stored and ephemeral: %q", frame)
		}
	})
}

func FuzzParseSessionRequest(f *testing.F) {
	f.Add([]byte(`{"userId":"42","data":{"a":{"b":[1]},"c":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseSessionRequest(data)
		if err != nil {
			return
		}
		if r.UserID != "" && !ValidUserID(r.UserID) {
			t.Errorf("accepted user %q", r.UserID)
		}
		for name, v := range r.Data {
			if !json.Valid(v) {
				t.Errorf("member %q is %s", name, v)
			}
		}
	})
}

func BenchmarkParseRequest(b *testing.B) {
	body := []byte(`{"userId":"42","message":{"text":"` + strings.Repeat("x", 170) + `"},"type":"order.shipped"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRequest(body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFrame measures how the publishing node builds a frame and how each node
// parses it.
func BenchmarkFrame(b *testing.B) {
	d := Draft{UserID: "42", Kind: "order.shipped", Message: []byte(`{"text":"` + strings.Repeat("x", 190) + `"}`)}
	dst := make([]byte, 0, 512)
	b.Run("tail", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			dst = AppendTail(dst[:0], &d)
		}
	})
	b.Run("ephemeral", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			dst = AppendEphemeral(dst[:0], &d, 1764000001234)
		}
	})
	b.Run("hello", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Hello{UserID: "42", ConnectionID: "c", Last: 1764000000017, Ping: 25}.Frame()
		}
	})
	frame := StoredHead + `1764000000018,"prev":1764000000017,"ts":1764000001234,` + string(AppendTail(nil, &d))
	b.Run("parse stored", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, ok := ParseStored(frame); !ok {
				b.Fatal(frame)
			}
		}
	})
}

func TestUrgency(t *testing.T) {
	for text, want := range map[string]Urgency{`"low"`: UrgencyLow, `"normal"`: UrgencyNormal, `"high"`: UrgencyHigh} {
		r, err := ParseRequest([]byte(`{"userId":"42","message":1,"urgency":` + text + `}`))
		if err != nil || r.Urgency != want {
			t.Errorf("%s: %v, %v", text, r.Urgency, err)
		}
	}
	if SkipMuted.String() != "muted" || SkipQuiet.String() != "quiet" || Skip(0).String() != "" {
		t.Error("Skip.String returns other words")
	}
}
