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
// started over would last, from that moment on, as long as the whole at least: a slow
// machine cannot hide that, but may need a longer sleep to show that it is not so.
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
					said += fmt.Sprintf("\nof %v it lasted %v from the first time", length, late)
				}
				t.Errorf("a sleep starts over each time that it is disturbed:%s", said)
			})
		}
	}
}

// sleepThrough has a program sleep, disturbs it from the first quarter of the time to
// the half, and returns how long the sleep has lasted since then. It is the whole sleep
// or longer if that started over, and if it was over too soon.
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
	time.Sleep(length / 4)
	first, disturbed := time.Now(), 0
	for err == nil && time.Since(first) < length/4 {
		if err = disturb(cmd.Process.Pid); len(woke) == 0 && err == nil {
			disturbed++
		}
		time.Sleep(10 * time.Millisecond)
	}
	if line := <-woke; line != "slept\n" {
		return 0, fmt.Errorf("the target says %q; %w", line, err)
	}
	if disturbed == 0 { // the process may be gone by then
		return length, nil
	}
	return at.Sub(first), nil
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
