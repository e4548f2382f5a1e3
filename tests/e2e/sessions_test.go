package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"herald/internal/testing/gatewaytest"
)

func TestSessionsAPI(t *testing.T) {
	g, r := node(t)
	a := g.Backend("POST", "/sessions", `{"userId":"alice","data":{"theme":"dark","n":1e400,"x":[1, 2]}}`)
	var session struct {
		SessionID, Handle, UserID string
		ExpiresAt                 time.Time
	}
	if a.Decode(t, &session); a.Status != http.StatusCreated {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	if !isHex(session.SessionID, 64) || !isHex(session.Handle, 64) || session.SessionID == session.Handle || session.UserID != "alice" {
		t.Errorf("created %s", a.Body)
	}
	if life := time.Until(session.ExpiresAt); life < 23*time.Hour || life > 25*time.Hour {
		t.Errorf("it expires in %v, want 24 h", life)
	}
	if n, err := r.Client().Exists(t.Context(), "session:"+session.Handle).Result(); err != nil || n != 1 {
		t.Errorf("session:<handle> exists: %d, %v", n, err)
	}
	checkNoSecretInRedis(t, r.Client().Keys(t.Context(), "*").Val(), session.SessionID)

	cookie := "Cookie: sid=" + session.SessionID
	list := g.Backend("GET", "/users/alice/sessions", "")
	current := g.Do("GET", "/sessions/current", "", cookie)
	patched := g.Backend("PATCH", "/sessions/"+session.Handle, `{"data":{"theme":"light","new":true}}`)
	for name, answer := range map[string]gatewaytest.Answer{"list": list, "current": current, "patch": patched} {
		if answer.Status != 200 || !strings.Contains(answer.Body, session.Handle) {
			t.Errorf("%s: %d %s", name, answer.Status, answer.Body)
		}
		if strings.Contains(answer.Body, session.SessionID) {
			t.Errorf("%s shows the secret: %s", name, answer.Body)
		}
	}
	var data struct{ Data map[string]json.RawMessage }
	g.Do("GET", "/sessions/current", "", cookie).Decode(t, &data)
	for name, want := range map[string]string{"theme": `"light"`, "new": "true", "n": "1e400", "x": "[1, 2]"} {
		if got := string(data.Data[name]); got != want && strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
			t.Errorf("data.%s is %s, want %s", name, got, want)
		}
	}
	refusesBadSessionRequests(t, g, session.Handle)
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

func checkNoSecretInRedis(t *testing.T, keys []string, secret string) {
	t.Helper()
	for _, key := range keys {
		if strings.Contains(key, secret) {
			t.Errorf("Redis key %s holds a session's secret", key)
		}
	}
}

func refusesBadSessionRequests(t *testing.T, g *gatewaytest.Gateway, handle string) {
	unknown := strings.Repeat("0", 64)
	for _, row := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/sessions", `{}`, 400},
		{"POST", "/sessions", `{"userId":"alice","role":"admin"}`, 400},
		{"POST", "/sessions", `{"userId":"alice","userId":"bob"}`, 400},
		{"POST", "/sessions", `{"userId":"alice","data":[]}`, 400},
		{"POST", "/sessions", `{"userId":"alice","data":{"a":1,"a":2}}`, 400},
		{"POST", "/sessions", "{\"userId\":\"alice\",\"data\":{\"a\":\"\xff\"}}", 400},
		{"PATCH", "/sessions/" + handle, `{"userId":"mallory"}`, 400},
		{"PATCH", "/sessions/" + handle, `{}`, 400},
		{"PATCH", "/sessions/" + unknown, `{"data":{"a":1}}`, 404},
		{"DELETE", "/sessions/" + unknown, ``, 404},
		{"DELETE", "/sessions/*", ``, 400},
		{"DELETE", "/sessions/" + strings.ToUpper(handle), ``, 400},
		{"DELETE", "/sessions/" + handle + "0", ``, 400},
	} {
		t.Run(row.method+" "+row.body, func(t *testing.T) {
			g := g.For(t)
			checkProblem(t, g.Backend(row.method, row.path, row.body), row.want)
		})
	}
}
