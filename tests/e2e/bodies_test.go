package e2e

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"herald/internal/testing/gatewaytest"
)

// nested returns JSON with that many levels of arrays and objects.
func nested(levels int) string {
	var b strings.Builder
	for i := range levels {
		if i%2 == 0 {
			b.WriteString(`[`)
		} else {
			b.WriteString(`{"a":`)
		}
	}
	b.WriteString(`1`)
	for i := levels - 1; i >= 0; i-- {
		b.WriteString(map[bool]string{true: `]`, false: `}`}[i%2 == 0])
	}
	return b.String()
}

// text returns a JSON string of that many bytes, quotes included.
func text(bytes int) string { return `"` + strings.Repeat("x", bytes-2) + `"` }

func TestBodiesOfNotify(t *testing.T) {
	g, _ := node(t)
	to := func(message string) string { return `{"userId":"bob","message":` + message + `}` }
	many := func(n int) string {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = `"u` + strconv.Itoa(i) + `"`
		}
		return `{"userIds":[` + strings.Join(ids, ",") + `],"message":1}`
	}
	table := []struct {
		name  string
		body  string
		want  int
		field string // that the answer must name; "" for none
	}{
		{"smallest", to(`null`), 200, ""},
		{"all fields", `{"userId":"bob","message":{},"type":"a.b","ttl":86400,"ephemeral":false}`, 200, ""},
		{"space around", " \r\n\t" + to(`1`) + " \n", 200, ""},
		{"32 levels", to(nested(32)), 200, ""},
		{"64 KiB", to(text(64 << 10)), 200, ""},
		{"1000 users", many(1000), 200, ""},
		{"name of a field escaped", `{"user\u0049d":"bob","message":1}`, 200, ""},

		{"33 levels", to(nested(33)), 400, "message"},
		{"100,000 levels", to(nested(100_000)), 400, "nested"},
		{"more than 64 KiB", to(text(64<<10 + 1)), 413, "message"},
		{"more than 64 KiB of spaces inside", to("[" + strings.Repeat(" ", 64<<10) + "]"), 413, "message"},
		{"unknown field", `{"userId":"bob","message":1,"priority":1}`, 400, "priority"},
		{"unknown field first", `{"__proto__":{},"userId":"bob","message":1}`, 400, "__proto__"},
		{"repeated field", `{"userId":"bob","message":1,"message":2}`, 400, "message"},
		{"repeated field, equal", `{"userId":"bob","userId":"bob","message":1}`, 400, "userId"},
		{"repeated field, escaped", `{"userId":"bob","message":1,"m\u0065ssage":2}`, 400, "message"},
		{"another case", `{"userId":"bob","Message":1}`, 400, "Message"},
		{"another case beside", `{"userId":"bob","message":1,"userid":"eve"}`, 400, "userid"},
		{"no message", `{"userId":"bob"}`, 400, "message"},
		{"no user", `{"message":1}`, 400, "userId"},
		{"both kinds of users", `{"userId":"bob","userIds":["bob"],"message":1}`, 400, "userIds"},
		{"no users", `{"userIds":[],"message":1}`, 400, "userIds"},
		{"1001 users", many(1001), 400, "userIds"},
		{"users as text", `{"userIds":"bob","message":1}`, 400, "userIds"},
		{"user as number", `{"userId":42,"message":1}`, 400, "userId"},
		{"user null", `{"userId":null,"message":1}`, 400, "userId"},
		{"type as number", `{"userId":"bob","message":1,"type":1}`, 400, "type"},
		{"ttl as text", `{"userId":"bob","message":1,"ttl":"60"}`, 400, "ttl"},
		{"ttl negative", `{"userId":"bob","message":1,"ttl":-1}`, 400, "ttl"},
		{"ttl fraction", `{"userId":"bob","message":1,"ttl":1.5}`, 400, "ttl"},
		{"ttl endless", `{"userId":"bob","message":1,"ttl":99999999999999999999}`, 400, "ttl"},
		{"ephemeral as text", `{"userId":"bob","message":1,"ephemeral":"true"}`, 400, "ephemeral"},

		{"nothing", ``, 400, ""},
		{"not JSON", `userId=bob&message=1`, 400, ""},
		{"an array", `[` + to(`1`) + `]`, 400, ""},
		{"null", `null`, 400, ""},
		{"two texts", to(`1`) + to(`2`), 400, ""},
		{"cut off", `{"userId":"bob","message":1`, 400, ""},
		{"comma at the end", `{"userId":"bob","message":1,}`, 400, ""},
		{"comment", `{"userId":"bob","message":1/**/}`, 400, ""},
		{"byte order mark", "\ufeff" + to(`1`), 400, ""},
		{"NaN", to(`NaN`), 400, ""},
		{"leading zero", to(`01`), 400, ""},
		{"single quotes", to(`'x'`), 400, ""},
		{"control character in a string", to("\"a\nb\""), 400, ""},
		{"bad escape", to(`"\x41"`), 400, ""},
		{"half an escape", to(`"\u12"`), 400, ""},
		{"invalid UTF-8", to("\"\xff\""), 400, ""},
		{"overlong UTF-8", to("\"\xc0\xaf\""), 400, ""},
		{"surrogate in UTF-8", to("\"\xed\xa0\x80\""), 400, ""},
		{"invalid UTF-8 in a name", "{\"userId\":\"bob\",\"message\":{\"\xff\":1}}", 400, ""},
	}
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			g := g.For(t)
			a := g.Backend("POST", "/notify", row.body, "Content-Type: application/json")
			if row.want == http.StatusOK {
				if a.Status != 200 {
					t.Errorf("%d %.300s", a.Status, a.Body)
				}
				return
			}
			if p := checkProblem(t, a, row.want); !strings.Contains(p.Detail, row.field) {
				t.Errorf("%q does not name %s", p.Detail, row.field)
			}
		})
	}
}

func TestKindsOfBodies(t *testing.T) {
	g, _ := node(t)
	const body = `{"userId":"bob","message":1}`
	for _, row := range []struct {
		header string
		want   int
	}{
		{"Content-Type: application/json", 200},
		{"Content-Type: application/json; charset=utf-8", 200},
		{"Content-Type: Application/JSON", 200},
		{"Content-Type: text/plain", 415},
		{"Content-Type: application/x-www-form-urlencoded", 415},
		{"Content-Type: multipart/form-data; boundary=x", 415},
		{"Content-Type: application/jsonp", 415},
		{"Content-Type: application/json, text/plain", 415},
		{"Content-Type:", 415},
		{"Content-Encoding: gzip", 415},
		{"Content-Encoding: deflate", 415},
		{"Content-Encoding: br", 415},
		{"Content-Encoding: identity", 415},
		{"Content-Encoding: unheard-of", 415},
	} {
		t.Run(row.header, func(t *testing.T) {
			g := g.For(t)
			for _, request := range [][3]string{
				{"POST", "/notify", body},
				{"POST", "/notify/batch", `{"notifications":[` + body + `]}`},
			} {
				a := g.Backend(request[0], request[1], request[2], row.header)
				if row.want != 200 {
					checkProblem(t, a, row.want)
				} else if a.Status != 200 {
					t.Errorf("%s: %d %s", request[1], a.Status, a.Body)
				}
			}
			if row.want != 200 {
				checkProblem(t, g.Backend("POST", "/sessions", `{"userId":"bob"}`, row.header), row.want)
			}
		})
	}
}

func TestBodiesAboveOneMiB(t *testing.T) {
	g, _ := node(t)
	item := `{"userId":"bob","message":` + text(60<<10) + `}`
	batch := `{"notifications":[` + strings.Repeat(item+",", 16) + item + `]}`
	fits := batch + strings.Repeat(" ", 1<<20-len(batch))
	if a := g.Backend("POST", "/notify/batch", fits); a.Status != 200 {
		t.Errorf("exactly 1 MiB: %d %.300s", a.Status, a.Body)
	}
	head := "POST /notify/batch HTTP/1.1\r\nHost: x\r\n" + gatewaytest.BearerKey + "\r\nContent-Type: application/json\r\n"
	for name, request := range map[string]string{
		"announced":          head + fmt.Sprintf("Content-Length: %d\r\n\r\n", len(fits)+1),
		"announced and sent": head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s ", len(fits)+1, fits),
		"in chunks":          head + "Transfer-Encoding: chunked\r\n\r\n" + fmt.Sprintf("%x\r\n%s \r\n0\r\n\r\n", len(fits)+1, fits),
		"gigabytes":          head + "Content-Length: 9999999999\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c := converse(t, g, request)
			checkProblem(t, c.only(t), http.StatusRequestEntityTooLarge)
			if c.open {
				t.Error("the connection stays open, with the rest of the body to come")
			}
		})
	}
}
