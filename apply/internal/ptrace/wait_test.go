package ptrace

import (
	"os/exec"
	"testing"
	"time"
)

// TestStarved: a thread that has no processor is waited for, longer if nothing
// else waits; one that sleeps is not.
func TestStarved(t *testing.T) {
	start := func(script string) int {
		t.Helper()
		cmd := exec.Command("sh", "-c", script)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		return cmd.Process.Pid
	}
	await := func(pid int, state string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); State(pid, pid) != state; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("process %d is %s, want %s", pid, State(pid, pid), state)
			}
		}
	}
	spins, sleeps := start("while :; do :; done"), start("exec sleep 1000")
	await(spins, "R")
	await(sleeps, "S")
	for _, c := range []struct {
		name        string
		pid, rounds int
		most        int
		want        bool
	}{
		{"runs", spins, 0, patience, true},
		{"runs, while others are held", spins, patience, patience, false},
		{"runs, and no other is held", spins, patience, agentPatience, true},
		{"runs, but too long", spins, agentPatience, agentPatience, false},
		{"sleeps", sleeps, 0, agentPatience, false},
	} {
		p := pause{rounds: c.rounds}
		if got := p.starved(c.pid, c.pid, time.Second, c.most); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if p.deadline.After(time.Now()) != c.want {
			t.Errorf("%s: the wait ends at %v", c.name, p.deadline)
		}
	}
}
