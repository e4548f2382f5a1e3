package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"herald/internal/testing/gatewaytest"
	"herald/internal/testing/redistest"
)

// browser is one headless Chromium with an empty profile.
type browser struct {
	t   *testing.T
	g   *gatewaytest.Gateway
	ctx context.Context
}

func startBrowser(t *testing.T, g *gatewaytest.Gateway, more ...chromedp.ExecAllocatorOption) *browser {
	t.Helper()
	options := append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(redistest.Require(t, "chromium")),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"), // nothing leaves this machine
		chromedp.WindowSize(1100, 800),
	}, more...)
	allocator, release := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // waits for the browser's end
		cancel()
		release()
	})
	// No deadline: Chromium exits when the context of its first call ends.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return &browser{t: t, g: g, ctx: ctx}
}

// tab is one page of a browser.
type tab struct {
	*browser
	ctx context.Context
}

func (b *browser) open(path string) *tab {
	b.t.Helper()
	return b.openAt(b.g.URL + path)
}

func (b *browser) openAt(url string) *tab {
	b.t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	b.t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		b.t.Fatalf("open a tab: %v", err)
	}
	p := &tab{b, ctx}
	p.do(chromedp.Navigate(url))
	return p
}

type action = chromedp.Action[chromedp.Void]

func (p *tab) do(actions ...action) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("%v\npage: %s", err, p.describe())
	}
}

func click(id string) action { return chromedp.Click(chromedp.CSS("#" + id)) }

// fill replaces the text of a field.
func fill(id, value string) action {
	return chromedp.Steps(
		chromedp.Evaluate[chromedp.Void](`document.getElementById("`+id+`").select()`),
		chromedp.SendKeys(chromedp.CSS("#"+id), value),
	)
}

// await waits until a JavaScript expression is true, across navigations.
func (p *tab) await(what, expression string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		ctx, cancel := context.WithDeadline(p.ctx, deadline)
		ok, _ := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		cancel()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("waited %v for %s: %s\npage: %s", patience, what, expression, p.describe())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (p *tab) describe() string {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + "\n" + document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return text
}

// textOf is a JavaScript expression for what an element of the page says.
func textOf(id string) string { return `document.getElementById("` + id + `").textContent.trim()` }

// item is a JavaScript expression for the notification with that text.
func item(text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll("#notifications li[data-id]")].filter((li) => li.textContent.includes(%q))`, text)
}

func (p *tab) awaitLive(user string) {
	p.t.Helper()
	p.await("log-in as "+user, fmt.Sprintf(`location.pathname === "/demo/as/%s/"`, user))
	p.await("live", `document.getElementById("state")?.dataset.state === "open" && `+textOf("user")+` === "`+user+`"`)
}

// gate is a JavaScript expression: the log-in form is shown.
const gate = `document.getElementById("login-user")?.checkVisibility() === true`

func (p *tab) logIn(user string) {
	p.t.Helper()
	p.await("the log-in form", gate)
	p.do(fill("login-user", user), click("login-submit"))
	p.awaitLive(user)
}

func (p *tab) send(to, text string) {
	p.t.Helper()
	p.do(fill("send-to", to), fill("send-text", text), click("send-submit"))
	p.await("the result of sending", textOf("send-result")+` !== ""`)
}

func (p *tab) awaitItem(text string) {
	p.t.Helper()
	p.await("notification "+text, item(text)+`.length === 1`)
}

// picture saves a screenshot to artefacts/.
func (p *tab) picture(name string) {
	p.t.Helper()
	p.await("the end of animations", `document.getAnimations().every((a) => a.playState !== "running")`)
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	dir := filepath.Join("../..", "artefacts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// TestDemoInABrowser follows the README's first steps in a browser.
func TestDemoInABrowser(t *testing.T) {
	g := gatewaytest.Start(t) // no configuration at all
	b := startBrowser(t, g)
	alice, bob := b.open("/"), b.open("/")
	alice.logIn("alice")
	bob.logIn("bob") // in the same browser: the cookies must not mix
	alice.awaitLive("alice")

	bob.send("alice", "Hello <b>from</b> Bob")
	alice.awaitItem("Hello <b>from</b> Bob") // as text, not as markup
	alice.await("the badge", textOf("unread")+` === "1"`)
	alice.send("alice", "note to self")
	alice.awaitItem("note to self")
	alice.await("the badge", textOf("unread")+` === "2"`)
	if list := ids(alice); len(list) != 2 || list[0] <= list[1] {
		t.Errorf("ids in the list: %v, want two, newest first", list)
	}

	publishFromTheBanner(t, g)
	alice.awaitItem("Hello, Alice")
	alice.picture("demo-alice.png")
	bob.await("an empty list", item("")+`.length === 0`)
	bob.picture("demo-bob.png")

	secondTab := b.open("/demo/as/alice/")
	secondTab.awaitLive("alice")
	secondTab.awaitItem("note to self") // from the log
	secondTab.await("the badge", textOf("unread")+` === "3"`)
	secondTab.do(click("mark-read"))
	for _, p := range []*tab{secondTab, alice} {
		p.await("nothing unread", textOf("unread")+` === "0"`)
	}

	secondTab.do(click("logout-all"))
	for _, p := range []*tab{secondTab, alice} {
		p.await("the log-in form again", gate)
	}
	bob.send("bob", "still here")
	bob.awaitItem("still here")
	alice.do(chromedp.Reload())
	alice.await("the log-in form after a reload", gate)
	alice.picture("demo-logged-out.png")
}

func ids(p *tab) []float64 {
	p.t.Helper()
	list, err := chromedp.Run(p.ctx, chromedp.Evaluate[[]float64](`[...document.querySelectorAll("#notifications li[data-id]")].map((li) => Number(li.dataset.id))`))
	if err != nil {
		p.t.Fatal(err)
	}
	return list
}

// publishFromTheBanner runs the curl command that the gateway prints at start, unchanged.
func publishFromTheBanner(t *testing.T, g *gatewaytest.Gateway) {
	t.Helper()
	redistest.Require(t, "curl")
	command := ""
	for line := range strings.Lines(g.Stdout()) {
		if strings.HasPrefix(strings.TrimSpace(line), "curl ") || command != "" && strings.HasSuffix(command, "\\\n") {
			command += line
		}
	}
	if command == "" {
		t.Fatalf("the banner has no curl:\n%s", g.Stdout())
	}
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"ok":true`) {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// TestLogOutInABrowser: after a log-out a reload shows the log-in form, and a new log-in
// shows the earlier notifications.
func TestLogOutInABrowser(t *testing.T) {
	g := gatewaytest.Start(t)
	alice := startBrowser(t, g).open("/")
	alice.logIn("alice")
	alice.send("alice", "one")
	alice.awaitItem("one")
	alice.do(click("logout"))
	alice.await("the log-in form", gate)
	alice.do(chromedp.Reload())
	alice.await("the log-in form after a reload", gate)
	alice.do(chromedp.Navigate(g.URL + "/"))
	alice.logIn("alice")
	alice.awaitItem("one")
}
