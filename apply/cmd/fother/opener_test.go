package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/apply/fleet"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// sleeper starts a process that does nothing, and returns its id.
func sleeper(t *testing.T) int {
	t.Helper()
	testenv.Needs(t, "sleep")
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		testenv.Skip(t, "sleep is not installed")
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// impatient runs the tool with bounds of 50 ms.
func impatient(t *testing.T, o *opener, do func(*tool) int) (string, int) {
	t.Helper()
	var out bytes.Buffer
	code := runAs("fother", &out, &out, func(tool *tool) int {
		o.reading = fleet.Bound{Limit: 50 * time.Millisecond}
		o.patching = func(wait) fleet.Bound { return o.reading }
		tool.opener = o
		return do(tool)
	})
	return out.String(), code
}

// TestSilentProcessIsTold has a process that blocks who opens it.
func TestSilentProcessIsTold(t *testing.T) {
	pid, file := sleeper(t), filepath.Join(t.TempDir(), "fix.kpatch")
	write(t, file, fixture(t).patch(t, "default", 1))
	block := make(chan struct{})
	defer close(block)
	for _, args := range []string{"info", "info -p all", "unpatch -p all", "unpatch -p all --json", "patch -p all " + file} {
		o := newOpener()
		o.ids = func(p int) ([]specs.BuildID, error) {
			if p == pid {
				<-block
			}
			return nil, apply.ErrPermission
		}
		o.summary = func(p int) (*apply.Summary, error) {
			if p == pid {
				<-block
			}
			return nil, apply.ErrPermission
		}
		o.open = func(p int) (*apply.Process, error) {
			if p == pid {
				<-block
			}
			return nil, apply.ErrPermission
		}
		out, code := impatient(t, o, func(tool *tool) int { return tool.run(t.Context(), strings.Fields(args)) })
		if code != 1 || !strings.Contains(out, "does not answer for 50ms") {
			t.Errorf("%s: exit %d, %s", args, code, out)
		}
	}
}

// TestProcessThatFallsSilent has a process that blocks who works on it.
func TestProcessThatFallsSilent(t *testing.T) {
	pid, file := strconv.Itoa(sleeper(t)), filepath.Join(t.TempDir(), "fix.kpatch")
	write(t, file, fixture(t).patch(t, "default", 1))
	block := make(chan struct{})
	defer close(block)
	for _, args := range [][]string{
		{"patch", "-p", pid, file}, {"patch", "-p", pid, "--dry-run", file}, {"unpatch", "-p", pid}, {"libcare", "patch", "-p", pid, file},
	} {
		o := newOpener()
		o.prepare = func(context.Context, int, []*kpack.Patch) (*apply.Plan, error) { <-block; return nil, nil }
		o.apply = func(context.Context, int, []*kpack.Patch, apply.Options) (*apply.Result, error) {
			<-block
			return nil, nil
		}
		o.revert = func(context.Context, int, []apply.Selector, apply.Options) (*apply.Result, error) {
			<-block
			return nil, nil
		}
		out, code := impatient(t, o, func(tool *tool) int {
			if args[0] == "libcare" {
				return (&libcare{tool}).run(t.Context(), args[1:])
			}
			return tool.run(t.Context(), args)
		})
		if code != 1 || !strings.Contains(out, "does not answer for 50ms") || !strings.Contains(out, "hint: it is stuck") {
			t.Errorf("%q: exit %d, %s", args, code, out)
		}
	}
}
