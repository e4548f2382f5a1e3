package server

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gofiber/fiber/v2"
)

func TestAllowListsTheMethodsThatAPathHas(t *testing.T) {
	h := newTestServer(t, withRoutes(func(s *Server) { s.demo() }))
	paths := map[string]bool{}
	for _, r := range h.app.GetRoutes(true) {
		paths[r.Path] = true
	}
	if len(paths) < 20 {
		t.Fatalf("only %d paths", len(paths))
	}
	for path := range paths {
		ask := func(method string) *http.Response {
			r, _ := http.NewRequestWithContext(t.Context(), method, "http://herald.test"+path, nil)
			resp, err := h.app.Test(r, -1)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			return resp
		}
		allow := strings.Split(ask("PUT").Header.Get("Allow"), ", ")
		for _, method := range []string{fiber.MethodGet, fiber.MethodHead, fiber.MethodPost, fiber.MethodPatch, fiber.MethodDelete, fiber.MethodOptions} {
			resp := ask(method)
			if refused := resp.StatusCode == 405; refused == slices.Contains(allow, method) {
				t.Errorf("%s %s: %d, Allow %v", method, path, resp.StatusCode, allow)
			} else if refused && resp.Header.Get("Allow") == "" {
				t.Errorf("%s %s: 405 without Allow", method, path)
			}
		}
	}
}
