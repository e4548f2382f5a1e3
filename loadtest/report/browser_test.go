package report

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"herald/internal/testing/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// look replaces the page by JSON: for each chart the number of coloured pixels and the
// legend for the last point.
const look = `<script>
document.documentElement.textContent = 'LOOK' + JSON.stringify([...document.querySelectorAll('.plot')].map((plot) => {
  const canvas = plot.querySelector('canvas');
  const dots = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let ink = 0;
  for (let i = 0; i < dots.length; i += 4) {
    const rgb = [dots[i], dots[i + 1], dots[i + 2]];
    if (dots[i + 3] > 0 && Math.max(...rgb) - Math.min(...rgb) > 60) ink++;
  }
  const over = plot.querySelector('.u-over');
  const box = over.getBoundingClientRect();
  over.dispatchEvent(new MouseEvent('mousemove', { clientX: box.right - 1, clientY: box.top + 5 }));
  return { ink, legend: plot.querySelector('.u-legend').textContent };
})) + 'KOOL';
</script>`

// A browser draws every chart in both colour schemes, and the legend shows the value
// at the pointer.
func TestPageInABrowser(t *testing.T) {
	chromium := redistest.Require(t, "chromium")
	for scheme, flag := range map[string]string{"light": "1", "dark": "0"} {
		dir := t.TempDir()
		page := filepath.Join(dir, "page.html")
		if err := os.WriteFile(page, []byte(render(t, example())+look), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--user-data-dir="+dir,
			"--disable-background-networking", "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
			"--window-size=1240,1600", "--blink-settings=preferredColorScheme="+flag, "--virtual-time-budget=2000", "--dump-dom", "file://"+page)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", scheme, err)
		}
		_, text, _ := strings.Cut(string(out), "LOOK")
		text, _, _ = strings.Cut(text, "KOOL")
		var charts []struct {
			Ink    int
			Legend string
		}
		if err := json.Unmarshal([]byte(text), &charts); err != nil {
			t.Fatalf("%s: %v: %.2000s", scheme, err, out)
		}
		wanted := []string{"at99.96 %A999 µs", "at19.0 sA11", "at19.0 sA0.5", "at1,900A191 MiB"}
		if len(charts) != len(wanted) {
			t.Fatalf("%s: %+v", scheme, charts)
		}
		for i, want := range wanted {
			if charts[i].Ink < 500 || !strings.HasPrefix(charts[i].Legend, want) {
				t.Errorf("%s: %+v, want %q", scheme, charts[i], want)
			}
		}
	}
}
