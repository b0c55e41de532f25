package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fother/fother/apply"
)

// TestSilentProcesses holds that processes that block their readers cost a
// bounded time, and that others are told all the same.
func TestSilentProcesses(t *testing.T) {
	block := make(chan struct{})
	defer close(block)
	o := newOpener()
	o.limit = 10 * time.Millisecond
	var calls atomic.Int32
	o.open = func(int) (*apply.Process, error) {
		calls.Add(1)
		<-block
		return nil, apply.ErrGone
	}
	var silent *silentError
	for range maxSilent {
		if _, err := o.Open(t.Context(), os.Getpid()); !errors.As(err, &silent) {
			t.Fatal(err)
		}
	}
	if _, err := o.Open(t.Context(), os.Getpid()); !errors.Is(err, errLeftOut) || calls.Load() != maxSilent || o.left != 1 {
		t.Errorf("%v after %d calls, %d left out", err, calls.Load(), o.left)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o = newOpener()
	o.open = func(int) (*apply.Process, error) { <-block; return nil, apply.ErrGone }
	if _, err := o.Open(ctx, os.Getpid()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := newOpener().Open(t.Context(), 4194303); !errors.Is(err, apply.ErrGone) {
		t.Error(err)
	}
}

// TestSilentProcessIsTold goes through the commands.
func TestSilentProcessIsTold(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		need(t, "sleep is not installed")
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	block := make(chan struct{})
	defer close(block)
	do := func(args ...string) (string, int) {
		var out bytes.Buffer
		code := runAs("fother", &out, &out, func(tool *tool) int {
			tool.opener.limit = 50 * time.Millisecond
			tool.opener.open = func(pid int) (*apply.Process, error) {
				if pid == cmd.Process.Pid {
					<-block
				}
				return nil, apply.ErrPermission
			}
			return tool.run(t.Context(), args)
		})
		return out.String(), code
	}
	for _, args := range []string{"info", "info -p all", "unpatch -p all", "unpatch -p all --json"} {
		if out, code := do(strings.Fields(args)...); code != 1 || !strings.Contains(out, "reading it takes more than 50ms") {
			t.Errorf("%s: exit %d, %s", args, code, out)
		}
	}
}
