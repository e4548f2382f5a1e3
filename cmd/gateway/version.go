package main

import (
	"runtime/debug"
	"sync"
)

// version is set by release builds: -ldflags "-X main.version=v1.2.3". Everything else
// reads programVersion.
var version string

// programVersion returns what --version, /health, the log and the dashboard show.
var programVersion = sync.OnceValue(func() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return versionOf(version, info)
})

// versionOf prefers the linked version to the module's, which Go derives from the tag and
// commit, and that to the bare commit. It returns "dev" for a build that has none of them.
func versionOf(linked string, info *debug.BuildInfo) string {
	if linked != "" {
		return linked
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = "-dirty"
		}
	}
	if revision == "" {
		return "dev"
	}
	return revision + dirty
}
