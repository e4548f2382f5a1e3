package main

import (
	"runtime/debug"
	"testing"
)

func TestVersionTellsTagOrCommit(t *testing.T) {
	settings := func(kv ...string) (list []debug.BuildSetting) {
		for i := 0; i < len(kv); i += 2 {
			list = append(list, debug.BuildSetting{Key: kv[i], Value: kv[i+1]})
		}
		return list
	}
	commit := settings("vcs", "git", "vcs.revision", "0123456789abcdef0123", "vcs.modified", "false")
	dirty := settings("vcs.modified", "true", "vcs.revision", "0123456789abcdef0123")
	for name, tt := range map[string]struct {
		linked, module string
		settings       []debug.BuildSetting
		want           string
	}{
		"linked":                  {"v1.2.3", "v1.2.2", commit, "v1.2.3"},
		"tag":                     {"", "v1.2.3", commit, "v1.2.3"},
		"after a tag":             {"", "v1.2.4-0.20261201000000-0123456789ab+dirty", dirty, "v1.2.4-0.20261201000000-0123456789ab+dirty"},
		"commit":                  {"", "(devel)", commit, "0123456789ab"},
		"commit, without version": {"", "", commit, "0123456789ab"},
		"changed since a commit":  {"", "(devel)", dirty, "0123456789ab-dirty"},
		"short commit":            {"", "", settings("vcs.revision", "01234"), "01234"},
		"changed without commit":  {"", "(devel)", settings("vcs.modified", "true"), "dev"},
		"nothing":                 {"", "", nil, "dev"},
	} {
		info := &debug.BuildInfo{Settings: tt.settings}
		info.Main.Version = tt.module
		if got := versionOf(tt.linked, info); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
