//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"herald/loadtest/measure"
	"herald/loadtest/report"
	"herald/loadtest/target"
)

// runner is a child process of this program that runs one scenario once, with its
// own server.
type runner struct {
	kind  target.Kind
	child *target.Child
	file  string // the JSON results
}

func (c *comparison) startRunner(kind target.Kind, scenario string, args ...string) (*runner, error) {
	r := &runner{kind: kind, file: filepath.Join(c.dir, scenario+"-"+string(kind)+".json")}
	args = append([]string{
		scenario, "--quiet", "--runs=1", "--start=" + string(kind), "--program=" + c.gateway, "--json=" + r.file,
	}, args...)
	var err error
	r.child, err = target.StartChild(fmt.Sprintf("the %s scenario of %s", scenario, kind.Title()), c.program, args...)
	return r, err
}

// result waits for the child to exit and returns its run.
func (r *runner) result(ctx context.Context, within time.Duration) (*measure.Run, error) {
	if err := r.child.Wait(ctx, within); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(r.file)
	if err != nil {
		return nil, err
	}
	var rep report.Report
	if err := json.Unmarshal(b, &rep); err != nil {
		return nil, err
	}
	if len(rep.Results) != 1 || len(rep.Results[0].Runs) != 1 {
		return nil, errors.New("the child wrote no result")
	}
	return rep.Results[0].Runs[0], nil
}
