package apply

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs/testenv"
)

// sleeper is a process that waits.
func sleeper(t *testing.T) (pid int) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return cmd.Process.Pid
}

// TestLockIsNotForOthers: whoever may not trace a process cannot keep the tool
// off it, though anyone may lock the folder in /proc.
func TestLockIsNotForOthers(t *testing.T) {
	pid := sleeper(t)
	folder, err := os.Open("/proc/" + strconv.Itoa(pid))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(folder.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	f, err := lockProcess(pid, 0)
	if err != nil {
		t.Fatalf("while anybody holds /proc/%d: %v", pid, err)
	}
	path := f.Name()
	unlock(f)
	unlock(folder)

	if os.Getuid() != 0 {
		testenv.Skip(t, "root is needed to be another user")
	}
	flock, err := exec.LookPath("flock")
	if err != nil {
		testenv.Skip(t, "flock(1) is needed")
	}
	for _, test := range []struct {
		path string
		can  bool
	}{{folder.Name(), true}, {path, false}} {
		cmd := exec.Command(flock, "-n", test.path, "true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		if out, err := cmd.CombinedOutput(); (err == nil) != test.can {
			t.Errorf("another user locks %s: %v, want %t\n%s", test.path, err, test.can, out)
		}
	}
}

// TestLock: one run at a time, the next when it ends, and none of a process
// that is gone.
func TestLock(t *testing.T) {
	pid := sleeper(t)
	f, err := lockProcess(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	const wait = 20 * time.Millisecond
	if _, err := lockProcess(pid, wait); !errors.Is(err, ErrLocked) {
		t.Errorf("a second run: %v, want ErrLocked", err)
	}
	copied, err := unix.Dup(int(f.Fd())) // as a child has it that was just forked
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	time.AfterFunc(wait, func() { unlock(f) })
	if f, err = lockProcess(pid, time.Minute); err != nil {
		t.Fatalf("after the first: %v", err)
	}
	unlock(f)
	if _, err := lockProcess(1<<30, 0); !errors.Is(err, ErrGone) {
		t.Errorf("no such process: %v", err)
	}
}
