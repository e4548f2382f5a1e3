package e2e

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"

	"herald/internal/testing/gatewaytest"
)

var pictures = flag.String("pictures", "", "folder for the README's pictures; without it they are only in artefacts/")

// TestPicturesOfThePages takes the README's two pictures, and pictures of the demo and
// the dashboard in both colour schemes, on a desktop and on a phone. Nothing on a page
// may be wider than the window.
func TestPicturesOfThePages(t *testing.T) {
	g := gatewaytest.Start(t, "HERALD_API_KEYS=demo:"+gatewaytest.Key)
	g.PublishBody(`{"userId":"alice","type":"order","message":{"text":"Your parcel is on its way"}}`)
	for scheme, setting := range map[string]string{"light": "preferredColorScheme=1", "dark": "preferredColorScheme=0"} {
		b := startBrowser(t, g, chromedp.Flag("blink-settings", setting))
		demo, dashboard := b.open("/"), b.openAt(g.AdminURL+"/")
		demo.logIn("alice")
		demo.awaitItem("Your parcel is on its way")
		dashboard.await("the first rates", `document.querySelector("#messages .now b").textContent !== "–"`)
		for size, width := range map[string]int64{"desktop": 960, "phone": 390} {
			for name, page := range map[string]*tab{"demo": demo, "dashboard": dashboard} {
				page.do(chromedp.EmulateViewport(width, 460))
				page.await("the scheme "+scheme, `matchMedia("(prefers-color-scheme: `+scheme+`)").matches`)
				page.await("no sideways scrolling on a "+size, `document.documentElement.scrollWidth <= innerWidth`)
				page.picture(name + "-" + size + "-" + scheme + ".png")
			}
		}
		if *pictures != "" {
			png, err := os.ReadFile("../../artefacts/demo-desktop-" + scheme + ".png")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(*pictures, "demo-"+scheme+".png"), png, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}
