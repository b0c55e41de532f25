package ptrace

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func always() bool { return true }

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
		if err := g.Park(always); err != nil {
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
					if err := g.Park(always); err != nil {
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

// TestParkable: calls that would show that they were interrupted are left alone.
func TestParkable(t *testing.T) {
	device, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	pid := os.Getpid()
	for _, c := range []struct {
		nr   uint64
		args [6]uint64
		want bool
	}{
		{unix.SYS_FUTEX, [6]uint64{}, true},
		{unix.SYS_READ, [6]uint64{uint64(r.Fd())}, true},
		{unix.SYS_READ, [6]uint64{uint64(device.Fd())}, false},
		{unix.SYS_READV, [6]uint64{1 << 30}, false},
		{unix.SYS_RECVFROM, [6]uint64{3, 0, 8, 0}, true},
		{unix.SYS_RECVFROM, [6]uint64{3, 0, 8, unix.MSG_WAITALL}, false},
		{unix.SYS_RECVMSG, [6]uint64{3, 0, unix.MSG_WAITALL}, false},
		{unix.SYS_RECVMMSG, [6]uint64{3}, false},
		{unix.SYS_IO_GETEVENTS, [6]uint64{0, 1, 8}, true},
		{unix.SYS_IO_GETEVENTS, [6]uint64{0, 2, 8}, false},
		{unix.SYS_EPOLL_PWAIT, [6]uint64{3, 0, 0, 0, 1}, false},
		{unix.SYS_BRK, [6]uint64{}, false},
	} {
		if got := parkable(pid, pid, c.nr, c.args); got != c.want {
			t.Errorf("call %d, %v: %v", c.nr, c.args, got)
		}
	}
}

// TestIgnoredSignals: signals that the program ignores end no call of a thread that
// is traced: "epoll" ends the program if one does.
func TestIgnoredSignals(t *testing.T) {
	cmd := start(t, append(slices.Repeat([]string{"epoll"}, 20), "ignored")...)
	for range 30 {
		err := Do(func() error {
			g, err := Seize(cmd.Process.Pid, Options{})
			if err != nil {
				return err
			}
			defer g.Detach()
			if err := g.Park(always); err != nil {
				return err
			}
			if err := g.Stop(); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
			g.Release()
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if tids, err := Threads(cmd.Process.Pid); err != nil || len(tids) != 21 {
		t.Errorf("%d threads, %v", len(tids), err)
	}
}
