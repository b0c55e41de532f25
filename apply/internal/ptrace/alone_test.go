package ptrace

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// TestAgentAlone: a thread comes home by itself from a system call that it makes
// for a tool, if the tool is gone by then. Not tried with threads that wait for a
// signal: if it comes just then its handler runs, but the wait, which nobody
// breaks, goes on.
func TestAgentAlone(t *testing.T) {
	for _, kind := range kinds {
		if slices.Contains(kind, "poke") {
			continue
		}
		t.Run(strings.Join(kind, "+"), func(t *testing.T) {
			cmd := start(t, kind...)
			pid := cmd.Process.Pid
			where := code(t, pid)
			before := snapshot(t, pid, where)
			for range 10 {
				if kind[0] == "epoll" {
					asleep(t, pid)
				}
				if err := leaveAndClear(pid, where); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(350 * time.Millisecond)
			if after := snapshot(t, pid, where); after != before {
				t.Error("code is not as it was")
			}
		})
	}
}

// leaveAndClear leaves a thread alone on its way, waits until it is home and clears up.
func leaveAndClear(pid int, where []specs.Range[specs.Addr]) error {
	if err := Do(func() error { return leaveAlone(pid, where) }); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		time.Sleep(3 * time.Millisecond)
		cleared := false
		err := Do(func() (err error) { cleared, err = clearAway(pid, where); return err })
		if err != nil || cleared {
			return err
		}
	}
	return errors.New("the thread does not come home")
}

// leaveAlone has a thread about to make a call for the tool, and ends as a tool
// that is killed does: the kernel lets the thread go.
func leaveAlone(pid int, where []specs.Range[specs.Addr]) error {
	mem, err := OpenMem(pid, true)
	if err != nil {
		return err
	}
	defer mem.Close()
	g, err := Seize(pid, Options{Only: []int{pid}, Calls: true})
	if err != nil {
		return err
	}
	if err := g.Stop(); err != nil {
		return err
	}
	a, err := g.NewAgent(g.Threads()[0], mem, where, specs.Range[specs.Addr]{Lo: 4096, Hi: 8192})
	if err != nil {
		return err
	}
	regs := a.home
	a.aim(&regs, unix.SYS_GETPPID, nil)
	return regs.set(a.t.TID)
}

// clearAway removes what leaveAlone left, once the thread is home.
func clearAway(pid int, where []specs.Range[specs.Addr]) (bool, error) {
	mem, err := OpenMem(pid, true)
	if err != nil {
		return false, err
	}
	defer mem.Close()
	g, err := Seize(pid, Options{Only: []int{pid}})
	if errors.As(err, new(*TracedError)) {
		return false, nil // the thread that traced is about to end
	} else if err != nil {
		return false, err
	}
	defer g.Detach()
	if err := g.Stop(); err != nil {
		return false, err
	}
	left := Leftovers(mem, where)
	if len(left) != 1 || left[0].Intent.Lo != 4096 || left[0].Intent.Hi != 8192 {
		return false, fmt.Errorf("left: %v", left)
	}
	if left[0].Contains(g.Threads()[0].Regs.PC()) {
		return false, nil
	}
	return true, left[0].Clear(mem)
}
