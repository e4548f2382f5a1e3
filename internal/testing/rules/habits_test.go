package rules

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var (
	target   = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
	makeCall = regexp.MustCompile(`\bmake ([a-z][a-z-]*)`)
	secret   = regexp.MustCompile(`\bsecrets\.\w+`)
)

// unknownTargets returns the targets of `make` in text that a Makefile lacks.
func unknownTargets(makefile, text string) (unknown []string) {
	targets := map[string]bool{}
	for _, m := range target.FindAllStringSubmatch(makefile, -1) {
		targets[m[1]] = true
	}
	for _, m := range makeCall.FindAllStringSubmatch(text, -1) {
		if !targets[m[1]] {
			unknown = append(unknown, m[1])
		}
	}
	return unknown
}

// A fork has none of our secrets, so a workflow may use none.
func TestWorkflowsRunInAFork(t *testing.T) {
	makefile, goVersion := document(t, "Makefile"), selectedGo(t)
	files, err := filepath.Glob(filepath.Join(top, ".github/workflows/*.yml"))
	if err != nil || len(files) < 4 {
		t.Fatalf("workflows: %q, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var w struct {
			On   any
			Jobs map[string]struct {
				RunsOn    string `yaml:"runs-on"`
				Container struct{ Image string }
				Steps     []struct{ Uses, Run string }
			}
		}
		if err := yaml.Unmarshal(text, &w); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if w.On == nil || len(w.Jobs) == 0 {
			t.Errorf("%s has no trigger or no job", file)
		}
		if s := secret.Find(text); s != nil {
			t.Errorf("%s needs %s", file, s)
		}
		for name, job := range w.Jobs {
			if job.RunsOn == "" || len(job.Steps) == 0 {
				t.Errorf("%s: job %s has no runner or no steps", file, name)
			}
			if i := job.Container.Image; i != "" && !strings.HasPrefix(i, "golang:"+goVersion+"-") {
				t.Errorf("%s: job %s runs in %s, go.mod asks for go %s", file, name, i, goVersion)
			}
			for _, step := range job.Steps {
				if (step.Uses == "") == (step.Run == "") {
					t.Errorf("%s: a step of job %s must have either uses or run", file, name)
				}
				for _, u := range unknownTargets(makefile, step.Run) {
					t.Errorf("%s: the Makefile has no target %s", file, u)
				}
			}
		}
	}
}

// selectedGo is the Go release that go.mod asks for.
func selectedGo(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(document(t, "go.mod"))
	if m == nil {
		t.Fatal("go.mod has no go line")
	}
	return m[1]
}

func TestContributingNamesWhatExists(t *testing.T) {
	text := document(t, "CONTRIBUTING.md")
	for _, u := range unknownTargets(document(t, "Makefile"), strings.Join(code.FindAllString(text, -1), "\n")) {
		t.Errorf("CONTRIBUTING.md: the Makefile has no target %s", u)
	}
	for _, p := range missingPaths(text) {
		t.Errorf("CONTRIBUTING.md: %s does not exist", p)
	}
}

var pathInCode = regexp.MustCompile("`([\\w.-]+(?:/[\\w.-]+)+|[\\w-]+\\.[a-z]+)`")

// missingPaths returns the paths in backticks that the checkout lacks.
func missingPaths(text string) (missing []string) {
	for _, m := range pathInCode.FindAllStringSubmatch(text, -1) {
		if _, err := os.Stat(filepath.Join(top, m[1])); err != nil {
			missing = append(missing, m[1])
		}
	}
	return missing
}

func TestUnknownTargetsAndMissingPaths(t *testing.T) {
	if u := unknownTargets("test: deps\n\tgo vet\nhelp:\n", "make test; make tests && make -s x"); len(u) != 1 || u[0] != "tests" {
		t.Errorf("unknown targets %q", u)
	}
	if m := missingPaths("`go.mod` `hub/hub.go` `no/such` `none.go` `make test` `CI=true`"); len(m) != 2 {
		t.Errorf("missing paths %q", m)
	}
}

func TestNoticesNameWhatTheGatewayLinks(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sh", "scripts/notices.sh")
	cmd.Dir = top
	want, err := cmd.Output()
	if err != nil {
		t.Fatalf("scripts/notices.sh: %v\n%s", err, stderr(err))
	}
	if document(t, "THIRD_PARTY_NOTICES") != string(want) {
		t.Error("THIRD_PARTY_NOTICES is out of date: run `make notices`")
	}
}
