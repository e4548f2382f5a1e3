// Package web embeds the files for browsers: herald.js, the client library for any page,
// the demo page that uses it, and the operators' dashboard. All work under `default-src
// 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'`: nothing is inline,
// and nothing is loaded from other sites.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"path"
)

//go:embed index.html herald.js demo.css demo.js favicon.svg dashboard.html dashboard.css dashboard.js
//go:embed vendor/uplot/uPlot.iife.min.js vendor/uplot/uPlot.min.css vendor/uplot/LICENSE
var files embed.FS

// Served at /assets/<name>, the client also at /herald.js. The page names them
// by absolute path, since it is itself served at / and /demo/as/<user>/.
var assets = load("herald.js", "demo.css", "demo.js", "favicon.svg")

// dashboardAssets are served at /assets/<name> of the admin listener, and there only.
var dashboardAssets = load("dashboard.css", "dashboard.js", "favicon.svg",
	"vendor/uplot/uPlot.iife.min.js", "vendor/uplot/uPlot.min.css")

var dashboard = mustRead("dashboard.html")

var pageOn, pageOff = pages()

type asset struct {
	body        []byte
	contentType string
	etag        string
}

// CSP is the Content-Security-Policy of all pages: they load nothing from other sites and
// run nothing inline.
const CSP = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"

// Page is the demo page, text/html in UTF-8: with demo the log-in card, without
// it a form that connects with a JWT. The bytes are shared: the caller must not
// change them.
func Page(demo bool) []byte {
	if demo {
		return pageOn
	}
	return pageOff
}

// Asset returns a file by its bare name, its Content-Type and its strong ETag,
// quotes included (RFC 9110, 8.8.3); ok is false for any name that is not one of
// them. The ETag changes with the bytes only, so it holds across restarts and
// nodes. The body is shared: the caller must not change it.
func Asset(name string) (body []byte, contentType, etag string, ok bool) {
	a, ok := assets[name]
	return a.body, a.contentType, a.etag, ok
}

// Dashboard is the operators' page, text/html in UTF-8. It polls /stats.json
// beside it. The bytes are shared.
func Dashboard() []byte { return dashboard }

// DashboardAsset is Asset for the dashboard's files.
func DashboardAsset(name string) (body []byte, contentType, etag string, ok bool) {
	a, ok := dashboardAssets[name]
	return a.body, a.contentType, a.etag, ok
}

func load(names ...string) map[string]asset {
	loaded := make(map[string]asset, len(names))
	for _, name := range names {
		body := mustRead(name)
		sum := sha256.Sum256(body)
		loaded[path.Base(name)] = asset{body, contentTypes[path.Ext(name)], `"` + hex.EncodeToString(sum[:16]) + `"`}
	}
	return loaded
}

// Not from package mime, whose answers depend on the system's tables.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

func pages() (on, off []byte) {
	on = mustRead("index.html")
	marker := []byte(`data-demo="on"`)
	if bytes.Count(on, marker) != 1 {
		panic("web: index.html must say data-demo=\"on\" once")
	}
	return on, bytes.Replace(on, marker, []byte(`data-demo="off"`), 1)
}

func mustRead(name string) []byte {
	body, err := files.ReadFile(name)
	if err != nil {
		panic(fmt.Sprintf("web: embedded %s: %v", name, err))
	}
	return body
}
