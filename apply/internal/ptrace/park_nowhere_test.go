package ptrace

import (
	"runtime"
	"testing"
	"time"
)

// TestParkNowhere: where no call is one to park in, as on aarch64, nobody is disturbed.
func TestParkNowhere(t *testing.T) {
	if runtime.GOARCH == "arm64" && len(sleepCalls) > 0 {
		t.Error("aarch64 has calls to park in")
	}
	defer func(calls map[uint64]bool) { sleepCalls = calls }(sleepCalls)
	sleepCalls = nil
	pid := start(t, "read", "read", "read").Process.Pid
	switches := func() map[int]int {
		all := map[int]int{}
		tids, err := Threads(pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, tid := range tids {
			if tid != pid { // which may not wait for long
				all[tid], _ = statusField(pid, tid, "voluntary_ctxt_switches")
			}
		}
		return all
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		waiting := 0
		for tid := range switches() {
			if State(pid, tid) == "S" {
				waiting++
			}
		}
		if waiting == 2 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%d threads wait", waiting)
		}
	}
	err := Do(func() error {
		g, err := Seize(pid, Options{})
		if err != nil {
			return err
		}
		defer g.Detach()
		before := switches()
		if err := g.Park(func() bool { t.Error("it goes on"); return true }); err != nil {
			return err
		}
		after := switches()
		for _, th := range g.Threads() {
			if th.Parked() || th.Stopped() || th.asked {
				t.Errorf("thread %d: %+v", th.TID, th)
			}
			if before[th.TID] != after[th.TID] {
				t.Errorf("thread %d was disturbed", th.TID)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
