package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs/testenv"
)

// TestHookToolKilled kills the tool while a hook runs. The hook comes to its end
// without it, and the next run sees what was done.
func TestHookToolKilled(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4")
	file := encoded(t, patch)
	for _, c := range []struct {
		name    string
		hook    int
		applied bool
		// left is what was seen when the next run, which reverts all, has ended.
		left string
	}{
		{"pre_apply", 1, false, "14"},
		{"post_apply", 2, false, "1234"},
		{"pre_revert", 3, true, "3234"},
		{"post_revert", 4, true, "34"},
	} {
		for _, slow := range []string{"20", "-3"} { // the second never ends by itself
			t.Run(c.name+" "+slow, func(t *testing.T) {
				r := start(t, hookedProgram(t), "work", "poll")
				before, threads := r.snapshot(), tasks(t, r.pid)
				args := toolEnv("quiet", r.pid, file)
				if c.applied {
					applyTo(t, r.pid, patch)
					r.ask("seen")
					args = toolEnv("quiet", r.pid, "")
				}
				r.ask(fmt.Sprintf("stay %d %s", c.hook, slow))
				killWhileStaying(t, r, args)
				if slow != "-3" {
					for end := time.Now().Add(10 * time.Second); tasks(t, r.pid) != threads; time.Sleep(time.Millisecond) {
						if time.Now().After(end) {
							t.Fatal("the hook does not end")
						}
					}
				}
				r.ask(fmt.Sprintf("stay %d 0", c.hook)) // the next time
				_, err := Revert(context.Background(), r.pid, nil, Options{})
				if err != nil && !errors.Is(err, ErrNotApplied) {
					t.Fatal(err)
				}
				r.expect("seen", c.left)
				r.expect("ask", "2")
				freeKept(t, r, "wipe")
				if n := tasks(t, r.pid); n != threads {
					t.Errorf("%d threads, and %d before", n, threads)
				}
				before.same(t, r.snapshot())
			})
		}
	}
}

// killWhileStaying starts a tool and kills it when a hook of its stays.
func killWhileStaying(t *testing.T, r *running, env []string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	was := r.ask("stayed")
	tool := exec.Command(exe)
	tool.Env = append(os.Environ(), env...)
	if err := tool.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); r.ask("stayed") == was; {
		if time.Now().After(end) {
			t.Fatal("no hook stays")
		}
	}
	if err := tool.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := tool.Wait(); err == nil {
		t.Fatal("the tool had ended before")
	}
}

// TestHookNeverLetGo: a thread that was created, and whose tool died before it
// began, runs nothing, and the next run ends it.
func TestHookNeverLetGo(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4")
	r := start(t, hookedProgram(t), "work")
	before, threads := r.snapshot(), tasks(t, r.pid)
	p, err := open(r.pid, true)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := makePlan(p, []*kpack.Patch{patch}, Options{})
	if err == nil {
		_, err = p.stageAll(t.Context(), plan.steps)
	}
	if err == nil {
		_, _, err = p.createHookThread(t.Context(), plan.steps[0].record, kpack.PreApply, false)
	}
	p.Close()
	if err != nil {
		t.Fatal(err)
	}
	if n := tasks(t, r.pid); n != threads+1 {
		t.Errorf("%d threads, and %d before", n, threads)
	}
	applyTo(t, r.pid, patch)
	r.expect("seen", "12") // nothing was done, and nothing is undone
	revertAll(t, r.pid)
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestHooksElsewhere: a process in a namespace of its own knows its threads by
// other numbers than the tool.
func TestHooksElsewhere(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4")
	testenv.Needs(t, "unshare")
	bin := hookedProgram(t)
	// The outer process stays outside, and is not the one with the program.
	r := start(t, "unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", bin, "work")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", r.pid, r.pid))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(children), &pid); err != nil {
		t.Fatal(err)
	}
	threads := tasks(t, pid)
	r.ask("stay 1 -3")
	var veto *HookError
	if _, err := Apply(context.Background(), pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &veto) || veto.Why != "took longer than 1s" {
		t.Error(err)
	}
	r.ask("stay 1 0")
	r.expect("seen", "14")
	applyTo(t, pid, patch)
	r.expect("seen", "12")
	revertAll(t, pid)
	r.expect("seen", "34")
	if n := tasks(t, pid); n != threads {
		t.Errorf("%d threads, and %d before", n, threads)
	}
}

// TestHooksStopped: in a process that job control has stopped no hook can run. It
// is not waited for, and what is owed runs when the process has gone on.
func TestHooksStopped(t *testing.T) {
	r := start(t, hookedProgram(t))
	before := r.snapshot()
	whileStopped := func(do func()) {
		t.Helper()
		r.cmd.Process.Signal(unix.SIGSTOP)
		for ptrace.State(r.pid, r.pid) != "T" {
			time.Sleep(time.Millisecond)
		}
		do()
		r.cmd.Process.Signal(unix.SIGCONT)
	}
	for _, c := range []struct {
		patch        *kpack.Patch
		answer, seen string
	}{
		{hookedPatch(t, 1, 42, "1", "2", "3", "4"), "2", "0"}, {hookedPatch(t, 1, 42, "2", "4"), "43", "0"},
	} {
		whileStopped(func() {
			if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{c.patch}, Options{}); !errors.Is(err, ErrStopped) {
				t.Errorf("the apply: %v", err)
			}
		})
		r.expect("ask", c.answer)
		r.expect("seen", c.seen)
		if c.answer == "2" {
			before.same(t, r.snapshot())
		}
		_, err := Apply(context.Background(), r.pid, []*kpack.Patch{c.patch}, Options{})
		if err != nil && !errors.Is(err, ErrAlreadyApplied) {
			t.Error(err)
		}
		r.expect("seen", map[string]string{"2": "12", "43": "2"}[c.answer])
		whileStopped(func() {
			if _, err := Revert(context.Background(), r.pid, nil, Options{}); !errors.Is(err, ErrStopped) {
				t.Errorf("the revert: %v", err)
			}
		})
		if _, err := Revert(context.Background(), r.pid, nil, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
			t.Error(err)
		}
		r.expect("ask", "2")
		r.expect("seen", map[string]string{"2": "34", "43": "4"}[c.answer])
		freeKept(t, r, "wipe")
		before.same(t, r.snapshot())
	}
}

// TestHooksWithoutThread: a process that can have no more threads takes no patch
// whose hooks have to be asked, and lets go of one that it has.
func TestHooksWithoutThread(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "4")
	if os.Geteuid() != 0 {
		testenv.Skip(t, "only root can become the user whose limit is reached")
	}
	r := start(t, hookedProgram(t))
	r.ask("limit 1")
	before := r.snapshot()
	var veto *HookError
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &veto) || !strings.Contains(err.Error(), "could not create a thread") {
		t.Error(err)
	}
	r.expect("seen", "0")
	before.same(t, r.snapshot())
	r.ask("limit 1000")
	applyTo(t, r.pid, patch)
	r.expect("seen", "12")
	r.ask("limit 1")
	if res := revertAll(t, r.pid); len(res.Hooks) != 1 || !strings.Contains(res.Hooks[0].Why, "could not create a thread") {
		t.Errorf("hooks of the revert: %+v", res.Hooks)
	}
	r.expect("ask", "2")
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestHooksAndSignals: signals of the process are not for the thread of the hooks,
// and the thread that creates it has its own mask again.
func TestHooksAndSignals(t *testing.T) {
	patch := hookedPatch(t, 1, 42, "1", "2", "3", "4")
	r := start(t, hookedProgram(t), "signals")
	before := r.snapshot()
	for _, hook := range []int{1, 2, 3, 4} {
		r.ask(fmt.Sprintf("stay %d 10", hook))
	}
	for range 5 {
		applyTo(t, r.pid, patch)
		r.expect("seen", "12")
		revertAll(t, r.pid)
		r.expect("seen", "34")
		r.expect("handled", "1 0")
		tids, err := ptrace.Threads(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, tid := range tids {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/status", r.pid, tid))
			if err != nil || !strings.Contains(string(status), "SigBlk:\t0000000000000000\n") && !strings.Contains(string(status), "SigBlk:\t0000000000002000\n") {
				t.Errorf("thread %d: %v\n%s", tid, err, status) // a handler has SIGALRM blocked
			}
		}
	}
	freeKept(t, r, "wipe")
	before.same(t, r.snapshot())
}

// TestHookCannotBeEnded: while the thread of a hook is asleep where nobody can
// stop it, what it needs is neither used anew nor freed, whoever comes. Once it can be
// ended a later run finishes what is left.
func TestHookCannotBeEnded(t *testing.T) {
	for _, c := range []struct {
		hooks []string
		seen  string
	}{{[]string{"1"}, "1"}, {[]string{"1", "4"}, "14"}} {
		patch := hookedPatch(t, 1, 42, c.hooks...)
		t.Run(strings.Join(c.hooks, " "), func(t *testing.T) {
			t.Parallel() // all of it is waiting
			r := start(t, hookedProgram(t), "work")
			before, threads := r.snapshot(), tasks(t, r.pid)
			r.ask("stay 1 -4")
			stuck := (*StuckError)(nil)
			if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &stuck) {
				t.Errorf("the first run: %v", err)
			}
			if n := tasks(t, r.pid); n != threads+1 {
				t.Errorf("%d threads, and %d before: the thread does not sleep", n, threads)
			}
			setDone(t, r.pid, 1) // as it is just before its end
			if _, err := Revert(context.Background(), r.pid, nil, Options{}); !errors.As(err, &stuck) {
				t.Errorf("a run that sees it as done: %v", err)
			}
			setDone(t, r.pid, 0)
			r.expect("ask", "2")
			r.ask("stay 1 0")
			if _, err := Revert(context.Background(), r.pid, nil, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
				t.Errorf("the last run: %v", err)
			}
			r.expect("seen", c.seen)
			r.expect("ask", "2")
			freeKept(t, r, "wipe")
			if n := tasks(t, r.pid); n != threads {
				t.Errorf("%d threads, and %d before", n, threads)
			}
			before.same(t, r.snapshot())
		})
	}
}

// setDone writes the word of a process's only record that says that its hooks
// are done.
func setDone(t *testing.T, pid int, done byte) {
	t.Helper()
	p, err := open(pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if len(p.records) != 1 {
		t.Fatalf("%d records", len(p.records))
	}
	r := p.records[0]
	if tid, err := p.hookThread(r); err != nil || tid == 0 {
		t.Errorf("thread %d, %v", tid, err)
	}
	if err := p.mem.Write(r.Hooks.Control+kpack.HookDone, []byte{done, 0, 0, 0}); err != nil {
		t.Fatal(err)
	}
}

// TestHookPublishes: memory to which a hook has given the program a pointer is
// kept though the patch never came in, until the pointer is gone.
func TestHookPublishes(t *testing.T) {
	for _, hooks := range [][]string{{"1"}, {"1", "4"}} {
		patch := hookedPatch(t, 1, 42, hooks...)
		r := start(t, hookedProgram(t), "work")
		before := r.snapshot()
		r.ask("result 0 1")
		r.ask("result 1 7")
		kept := func(when string, want int) {
			t.Helper()
			p, err := Open(r.pid)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if n := len(p.records); n != want {
				t.Errorf("%s: %d records, want %d", when, n, want)
			}
		}
		var veto *HookError
		if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &veto) {
			t.Errorf("the apply: %v", err)
		}
		kept("after the veto", 1)
		if _, err := Revert(context.Background(), r.pid, nil, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
			t.Errorf("the revert: %v", err)
		}
		kept("after a revert", 1)
		r.ask("forget")
		if _, err := Revert(context.Background(), r.pid, nil, Options{}); err != nil && !errors.Is(err, ErrNotApplied) {
			t.Errorf("the last revert: %v", err)
		}
		r.expect("ask", "2")
		before.same(t, r.snapshot())
	}
}

// TestHookHints: what the user is told to do fits what has happened.
func TestHookHints(t *testing.T) {
	for _, c := range []struct {
		point kpack.HookPoint
		cause HookCause
		want  string
	}{
		{kpack.PreApply, HookReturned, "keep the patch away from processes"},
		{kpack.PreRevert, HookReturned, "keep the patch in processes"},
		{kpack.PreApply, HookLate, "less busy"},
		{kpack.PreApply, HookCrashed, "has a fault"},
		{kpack.PreRevert, HookEnded, "has a fault"},
		{kpack.PreApply, HookInterrupted, "to its end"},
		{kpack.PreRevert, HookNoThread, "reached a limit"},
	} {
		e := &HookError{HookRun{Point: c.point, Cause: c.cause}}
		if !strings.Contains(e.Hint(), c.want) {
			t.Errorf("%v, %s: %q, want %q", c.point, c.cause, e.Hint(), c.want)
		}
	}
}
