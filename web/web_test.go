package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"herald/internal/testing/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAsset(t *testing.T) {
	for _, tt := range []struct{ name, contentType string }{
		{"herald.js", "text/javascript; charset=utf-8"},
		{"demo.js", "text/javascript; charset=utf-8"},
		{"demo.css", "text/css; charset=utf-8"},
		{"favicon.svg", "image/svg+xml"},
	} {
		body, contentType, etag, ok := Asset(tt.name)
		if !ok || len(body) == 0 || contentType != tt.contentType {
			t.Errorf("Asset(%q) = %d bytes, %q, %v", tt.name, len(body), contentType, ok)
		}
		sum := sha256.Sum256(body)
		if want := `"` + hex.EncodeToString(sum[:16]) + `"`; etag != want {
			t.Errorf("Asset(%q) etag %s, want %s of its bytes", tt.name, etag, want)
		}
	}
}

func TestAssetRefusesOtherNames(t *testing.T) {
	for _, name := range []string{"", "index.html", "web.go", "herald.test.mjs", "package.json", "../web/herald.js", "/herald.js", "Herald.js", "demo.css "} {
		if body, _, _, ok := Asset(name); ok || body != nil {
			t.Errorf("Asset(%q) is served", name)
		}
	}
}

// The dashboard and the pages for everyone do not serve each other's assets.
func TestDashboardAsset(t *testing.T) {
	for _, name := range []string{"dashboard.js", "dashboard.css", "uPlot.iife.min.js", "uPlot.min.css", "favicon.svg"} {
		body, contentType, etag, ok := DashboardAsset(name)
		if !ok || len(body) == 0 || contentType == "" || etag == "" {
			t.Errorf("DashboardAsset(%q) = %d bytes, %q, %s, %v", name, len(body), contentType, etag, ok)
		}
		if _, _, _, ok := Asset(name); ok && name != "favicon.svg" {
			t.Errorf("Asset(%q) is served", name)
		}
	}
	for _, name := range []string{"", "LICENSE", "vendor/uplot/uPlot.min.css", "dashboard.html", "demo.js", "herald.js"} {
		if _, _, _, ok := DashboardAsset(name); ok {
			t.Errorf("DashboardAsset(%q) is served", name)
		}
	}
}

// An MIT licence goes along with what it covers.
func TestVendoredLibraryHasItsLicence(t *testing.T) {
	if licence := mustRead("vendor/uplot/LICENSE"); !bytes.Contains(licence, []byte("MIT License")) {
		t.Errorf("%s", licence)
	}
}

func TestPageSaysWhetherThereIsADemo(t *testing.T) {
	on, off := Page(true), Page(false)
	if !bytes.Contains(on, []byte(`<body data-demo="on">`)) || !bytes.Contains(off, []byte(`<body data-demo="off">`)) {
		t.Fatal("the body does not carry data-demo")
	}
	if got := bytes.Replace(off, []byte(`data-demo="off"`), []byte(`data-demo="on"`), 1); !bytes.Equal(got, on) {
		t.Error("the two pages differ in more than data-demo")
	}
}

// The hooks that tests in a browser hold on to.
func TestPageKeepsItsHooks(t *testing.T) {
	for _, id := range strings.Fields(`login-user login-submit login-error state user unread notifications
		send-to send-text send-kind send-ephemeral send-submit send-result mark-read logout logout-all`) {
		if n := bytes.Count(Page(true), []byte(`id="`+id+`"`)); n != 1 {
			t.Errorf("#%s occurs %d times", id, n)
		}
	}
}

// Every id that the dashboard's script asks for is in its document.
func TestDashboardAndScriptAgreeOnIDs(t *testing.T) {
	script, _, _, _ := DashboardAsset("dashboard.js")
	asked := regexp.MustCompile(`(?:\$|rows)\('([\w-]+)'|'([\w-]+-charts)': \[`).FindAllSubmatch(script, -1)
	if len(asked) < 12 {
		t.Fatalf("found only %d ids in dashboard.js", len(asked))
	}
	for _, m := range asked {
		if id := string(m[1]) + string(m[2]); !bytes.Contains(Dashboard(), []byte(`id="`+id+`"`)) {
			t.Errorf("dashboard.js asks for #%s, which dashboard.html lacks", id)
		}
	}
}

// Every id that the script asks for is in the document, where a slip would be a
// null only met by clicking there.
func TestScriptAndPageAgreeOnIDs(t *testing.T) {
	script, _, _, _ := Asset("demo.js")
	asked := regexp.MustCompile(`(?:\$|busy|leave|onSubmit|refuseGate|tell)\('([\w-]+)'`).FindAllSubmatch(script, -1)
	if len(asked) < 20 {
		t.Fatalf("found only %d ids in demo.js", len(asked))
	}
	for _, m := range asked {
		if !bytes.Contains(Page(true), []byte(`id="`+string(m[1])+`"`)) {
			t.Errorf("demo.js asks for #%s, which index.html lacks", m[1])
		}
	}
}

var (
	tag       = regexp.MustCompile(`<([a-zA-Z][\w-]*)((?:\s+[\w:-]+(?:="[^"]*")?)*)\s*/?>`)
	attribute = regexp.MustCompile(`([\w:-]+)(?:="([^"]*)")?`)
)

// inlineIn lists what `default-src 'self'; form-action 'self'` would block in an HTML text.
func inlineIn(html string) (found []string) {
	if n := strings.Count(html, "<") - strings.Count(html, "</") - strings.Count(html, "<!"); n != len(tag.FindAllString(html, -1)) {
		found = append(found, "a tag this test cannot read")
	}
	for _, m := range tag.FindAllStringSubmatch(html, -1) {
		name, attributes := strings.ToLower(m[1]), map[string]string{}
		for _, a := range attribute.FindAllStringSubmatch(m[2], -1) {
			attributes[strings.ToLower(a[1])] = a[2]
		}
		found = append(found, blockedIn(name, attributes)...)
	}
	return found
}

func blockedIn(name string, attributes map[string]string) (found []string) {
	if _, external := attributes["src"]; name == "style" || name == "base" || (name == "script" && !external) {
		found = append(found, "<"+name+">")
	}
	for key, value := range attributes {
		if key == "style" || strings.HasPrefix(key, "on") || key == "srcdoc" {
			found = append(found, name+" "+key)
		}
		if slices.Contains([]string{"src", "href", "action"}, key) && !strings.HasPrefix(value, "/") || strings.HasPrefix(value, "//") {
			found = append(found, name+" "+key+"="+value)
		}
	}
	return found
}

func TestPageWorksUnderTheContentSecurityPolicy(t *testing.T) {
	for _, page := range [][]byte{Page(true), Page(false), Dashboard()} {
		if found := inlineIn(string(page)); len(found) > 0 {
			t.Errorf("blocked, or from elsewhere: %v", found)
		}
	}
}

func TestInlineInFindsWhatIsBlocked(t *testing.T) {
	for _, html := range []string{
		`<script>x()</script>`, `<script type="module">x()</script>`, `<style>p{}</style>`, `<p style="color:red">`,
		`<p class="a" onclick="x()">`, `<base href="/x">`, `<script src="https://cdn.test/x.js"></script>`, `<img src="//cdn.test/x.png">`,
		`<img src="data:image/png;base64,AA==">`, `<link href="assets/relative.css">`, `<p onclick='x()'>`, `<iframe srcdoc="x">`,
	} {
		if len(inlineIn(html)) == 0 {
			t.Errorf("%s passes", html)
		}
	}
}

// Nothing turns data into markup or code, and nothing is fetched from elsewhere.
func TestAssetsWorkUnderTheContentSecurityPolicy(t *testing.T) {
	forbidden := map[string]*regexp.Regexp{
		".js": regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|setHTML|DOMParser` +
			`|\beval\b|new Function|cssText|'style'|javascript:|https?://|localStorage|sessionStorage|document\.cookie`),
		".css": regexp.MustCompile(`@import|url\(|https?:|expression\(`),
		".svg": regexp.MustCompile(`<script|<style|style=|\son\w+=|href=|<foreignObject`),
	}
	all := maps.Clone(assets)
	maps.Copy(all, dashboardAssets)
	for name, a := range all {
		if strings.HasPrefix(name, "uPlot") {
			continue // not ours; the dashboard's test in a browser runs it under the policy
		}
		body := a.body
		ext := name[strings.LastIndex(name, "."):]
		if found := forbidden[ext].FindAll(body, -1); len(found) > 0 {
			t.Errorf("%s: %q", name, found)
		}
	}
}

func TestPageNamesOnlyWhatIsServed(t *testing.T) {
	names := regexp.MustCompile(`(?:src|href)="(?:/assets/|/)([\w.]+)"`).FindAllSubmatch(Page(true), -1)
	if len(names) < 4 {
		t.Fatalf("the page names %d assets", len(names))
	}
	for _, m := range names {
		if _, _, _, ok := Asset(string(m[1])); !ok {
			t.Errorf("the page asks for %s, which is not served", m[1])
		}
	}
}

func TestFaviconIsXML(t *testing.T) {
	body, _, _, _ := Asset("favicon.svg")
	d := xml.NewDecoder(bytes.NewReader(body))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestClientInNode(t *testing.T) {
	node := redistest.Require(t, "node")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "--test", "herald.test.mjs")
	// node runs each file in a child, which a kill of node alone would leave behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("node --test: %v\n%s", err, out)
	}
	if !regexp.MustCompile(`(?m)^\W*pass [1-9]\d+$`).Match(out) {
		t.Fatalf("node ran hardly any test:\n%s", out)
	}
}
