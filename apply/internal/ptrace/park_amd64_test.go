package ptrace

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestPark: whoever sleeps is held at the end of its call, where it is as it was at
// the call's entry, until it is served; and nobody notices.
func TestPark(t *testing.T) {
	cmd := start(t, "read", "sleep", "sleep", "epoll", "spin")
	pid := cmd.Process.Pid
	asleep := func() (n int) {
		tids, _ := Threads(pid)
		for _, tid := range tids {
			if sleeps(pid, tid) {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(10 * time.Second); asleep() < 4 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	mem, err := OpenMem(pid, false)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	err = Do(func() error {
		g, err := Seize(pid, Options{})
		if err != nil {
			return err
		}
		defer g.Detach()
		if err := g.Park(); err != nil {
			return err
		}
		stacks := map[*Thread]string{}
		for _, th := range g.Threads() {
			if th.Parked() {
				b, err := mem.Read(th.Regs.SP(), 256)
				if err != nil {
					return err
				}
				stacks[th] = string(b)
			}
		}
		if len(stacks) != 4 {
			return fmt.Errorf("%d threads are parked: want 4", len(stacks))
		}
		time.Sleep(500 * time.Millisecond) // nanosleep has ended
		back := map[*Thread]bool{}
		for th, stack := range stacks {
			if !th.Parked() {
				return fmt.Errorf("thread %d is not parked any more", th.TID)
			}
			if State(pid, th.TID) != "t" {
				continue
			}
			back[th] = true
			var now Regs
			b, err := mem.Read(th.Regs.SP(), 256)
			if err != nil || string(b) != stack {
				return fmt.Errorf("thread %d: its stack has changed, %v", th.TID, err)
			}
			if err := now.get(th.TID); err != nil || now.PC() != th.Regs.PC() || now.SP() != th.Regs.SP() {
				return fmt.Errorf("thread %d: it is at %v and was at %v, %v", th.TID, now.PC(), th.Regs.PC(), err)
			}
		}
		if len(back) != 2 {
			return fmt.Errorf("%d threads have come back to be held: want 2", len(back))
		}
		if err := g.Serve(); err != nil {
			return err
		}
		for th := range stacks {
			if th.Parked() == back[th] || State(pid, th.TID) == "t" {
				return fmt.Errorf("thread %d: parked %v, in state %s", th.TID, th.Parked(), State(pid, th.TID))
			}
		}
		return g.Stop()
	})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(350 * time.Millisecond)
	if tids, _ := Threads(pid); len(tids) != 5 {
		t.Errorf("%d threads", len(tids))
	}
}

// TestParkedStops: stops in turns with parked threads of all kinds.
func TestParkedStops(t *testing.T) {
	for _, kind := range kinds {
		t.Run(strings.Join(kind, "+"), func(t *testing.T) {
			cmd := start(t, kind...)
			goesOn := progress(t, cmd.Process.Pid)
			for range 10 {
				err := Do(func() error {
					g, err := Seize(cmd.Process.Pid, Options{})
					if err != nil {
						return err
					}
					defer g.Detach()
					if err := g.Park(); err != nil {
						return err
					}
					for range 2 {
						if err := g.Stop(); err != nil {
							return err
						}
						for _, th := range g.Threads() {
							if th.Stopped() == th.Parked() || th.Regs.PC() == 0 {
								t.Errorf("thread %d: stopped %v, parked %v, at %v", th.TID, th.Stopped(), th.Parked(), th.Regs.PC())
							}
						}
						if err := g.Resume(); err != nil {
							return err
						}
						if err := g.Serve(); err != nil {
							return err
						}
					}
					if err := g.Stop(); err != nil {
						return err
					}
					g.Release()
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if strings.Contains(strings.Join(kind, "+"), "poke") {
				time.Sleep(50 * time.Millisecond)
				goesOn()
			}
			if tracer, _ := statusField(cmd.Process.Pid, cmd.Process.Pid, "TracerPid"); tracer != 0 {
				t.Errorf("still traced by %d", tracer)
			}
		})
	}
}
