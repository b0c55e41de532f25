package ptrace

import (
	"bufio"
	"fmt"
	"os/exec"
	"testing"
	"time"
)

// TestSleepGoesOn: what sleeps for a while wakes when it is due, however often it was
// stopped, made calls for the tool, or was left to go home from one. A sleep that
// started over would last, from that moment, as long as the whole: no machine
// is too slow to tell that from one that went on, but one may need a longer sleep.
func TestSleepGoesOn(t *testing.T) {
	for name, disturb := range map[string]func(pid int) error{
		"stopped": func(pid int) error { return Do(func() error { return stopAndGo(pid) }) },
		"agent":   func(pid int) error { return Do(func() error { return mapAndUnmap(pid, code(t, pid)) }) },
		"alone":   func(pid int) error { return leaveAndClear(pid, code(t, pid)) },
	} {
		for _, call := range []string{"nanosleep", "poll", "futex"} {
			t.Run(name+"/"+call, func(t *testing.T) {
				t.Parallel()
				const shortest, longest = time.Second, 16 * time.Second
				said := ""
				for length := shortest; length <= longest; length *= 2 {
					late, err := sleepThrough(t, call, length, disturb)
					if err != nil {
						t.Fatal(err)
					}
					if late < length {
						return
					}
					said += fmt.Sprintf("\nof %v it lasted %v from the last time", length, late)
				}
				t.Errorf("a sleep starts over each time that it is disturbed:%s", said)
			})
		}
	}
}

// sleepThrough has a program sleep, disturbs it for a while, and returns how long
// the sleep has lasted from the last time on. If that began when it was over, or none
// did, it is the whole sleep.
func sleepThrough(t *testing.T, call string, length time.Duration, disturb func(pid int) error) (time.Duration, error) {
	t.Helper()
	cmd := exec.Command(built(t), "once", call, fmt.Sprint(length.Milliseconds()))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	said := bufio.NewReader(out)
	if line, err := said.ReadString('\n'); line != "ready\n" {
		return 0, fmt.Errorf("the target says %q: %w", line, err)
	}
	woke := make(chan string, 1)
	var at time.Time
	go func() { line, _ := said.ReadString('\n'); at = time.Now(); woke <- line }()
	last := time.Time{}
	for end := time.Now().Add(length / 2); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		begin := time.Now()
		if err := disturb(cmd.Process.Pid); err != nil {
			return 0, err
		}
		if len(woke) == 0 {
			last = begin
		}
	}
	if line := <-woke; line != "slept\n" {
		return 0, fmt.Errorf("the target says %q", line)
	}
	if last.IsZero() {
		return length, nil
	}
	return at.Sub(last), nil
}

// stopAndGo stops all threads of a process, and lets them go.
func stopAndGo(pid int) error {
	g, err := Seize(pid, Options{})
	if err != nil {
		return err
	}
	defer g.Detach()
	return g.Stop()
}
