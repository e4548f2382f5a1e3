package main

import (
	"os"
	"path/filepath"
	"testing"

	"herald/internal/redisinfo"
)

func TestExamineMachine(t *testing.T) {
	for name, tt := range map[string]struct {
		found redisinfo.Finding
		want  redisinfo.Level
	}{
		"files":                       {examineFiles(20_000, 0), redisinfo.OK},
		"few files":                   {examineFiles(1024, 0), redisinfo.Warn},
		"few files, as configured":    {examineFiles(1024, 500), redisinfo.OK},
		"fewer files than configured": {examineFiles(20_000, 19_745), redisinfo.Fail},
		"backlog":                     {examineBacklog(4096), redisinfo.OK},
		"short backlog":               {examineBacklog(128), redisinfo.Warn},
		"ports":                       {examinePorts(28_232, 0), redisinfo.OK},
		"few ports":                   {examinePorts(5_000, 0), redisinfo.Warn},
		"fewer ports than configured": {examinePorts(28_232, 50_000), redisinfo.Warn},
		"overcommit":                  {examineOvercommit(1), redisinfo.OK},
		"no overcommit":               {examineOvercommit(0), redisinfo.Warn},
		"huge pages on demand":        {examineHugePages("always [madvise] never\n"), redisinfo.OK},
		"huge pages always":           {examineHugePages("[always] madvise never\n"), redisinfo.Warn},
	} {
		if f := tt.found; f.Level != tt.want || (f.Level == redisinfo.OK) != (f.Advice == "") || f.Text == "" {
			t.Errorf("%s: %+v, want %s", name, f, tt.want)
		}
	}
}

func TestKernelNumbers(t *testing.T) {
	name := filepath.Join(t.TempDir(), "numbers")
	for text, want := range map[string]bool{"32768\t60999\n": true, "4096\n": false, "a b": false, "": false} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, ok := kernelNumbers(name, 2); ok != want || ok && (n[0] != 32768 || n[1] != 60999) {
			t.Errorf("%q: %v %t", text, n, ok)
		}
	}
	if _, ok := kernelNumbers(name+"x", 1); ok {
		t.Error("a file that is not there was read")
	}
}

func TestHere(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:6379": true, "[::1]:6379": true, "localhost:6379": true, "/run/redis.sock": true, "192.0.2.1:6379": false,
	} {
		if here(addr) != want {
			t.Errorf("%s: want %t", addr, want)
		}
	}
}
