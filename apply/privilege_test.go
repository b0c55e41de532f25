package apply

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs/testenv"
)

// nobody is a user without any privilege.
func nobody(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		testenv.Skip(t, "only root can become nobody")
	}
	return &syscall.Credential{Uid: 65534, Gid: 65534}
}

// startAs starts a program as a user.
func startAs(t *testing.T, who *syscall.Credential, bin string, kinds ...string) *running {
	t.Helper()
	cmd := exec.Command(bin, kinds...)
	cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: who}
	return startCommand(t, cmd)
}

// readable writes a patch to a file that anybody may read.
func readable(t *testing.T, bin string, names ...string) string {
	t.Helper()
	data, err := patchFor(t, bin, "default", 1, names...).Encode()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(workdir, filepath.Base(bin)+".kpatch")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestOwnProcess: a user without any capability patches what is theirs.
func TestOwnProcess(t *testing.T) {
	who, bin := nobody(t), pie(t)
	r := startAs(t, who, bin, "call", "sleep", "read")
	before := r.snapshot()
	file := readable(t, bin, "answer", "other")
	for range 2 {
		if out, err := child(t, "quiet", r.pid, file, who).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("apply: %v: %s", err, out)
		}
		r.expect("ask", newAnswer)
		if out, err := child(t, "quiet", r.pid, "", who).CombinedOutput(); err != nil || len(out) > 0 {
			t.Fatalf("revert: %v: %s", err, out)
		}
		r.expect("ask", oldAnswer)
	}
	before.same(t, r.snapshot())
}

// TestRefusedByTheKernel: what the kernel does not allow is an error of its own
// class, and nothing was changed.
func TestRefusedByTheKernel(t *testing.T) {
	who := nobody(t)
	sandbox := compile(t, "sandbox", "-fPIE", "-pie", "-DSANDBOX")
	for _, c := range []struct {
		name   string
		bin    string
		kinds  []string
		user   *syscall.Credential // of both
		refuse string
		status int
	}{
		{"a process that keeps its memory to itself", pie(t), []string{"call", "undumpable"}, who, "", 10},
		{"a process with a filter, and no privilege to suspend that", sandbox, []string{"call"}, who, "", 11},
		{"no ptrace of what is no child, as Yama has it", pie(t), []string{"call"}, nil, fmt.Sprint(unix.SYS_PTRACE, " ", uint(unix.EPERM)), 10},
		{"no writing to code, as proc_mem.force_override=never has it", pie(t), []string{"call"}, nil, fmt.Sprint(unix.SYS_PWRITE64, " ", uint(unix.EIO)), 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := startAs(t, c.user, c.bin, c.kinds...)
			before := r.snapshot()
			cmd := child(t, "apply", r.pid, readable(t, c.bin, "answer"), c.user)
			cmd.Env = append(cmd.Env, "APPLY_TEST_REFUSE="+c.refuse)
			out, _ := cmd.CombinedOutput()
			if got := cmd.ProcessState.ExitCode(); got != c.status {
				t.Errorf("status %d, want %d: %s", got, c.status, out)
			}
			t.Logf("%s", out)
			before.same(t, r.snapshot())
			r.expect("ask", oldAnswer)
			applyTo(t, r.pid, patchFor(t, c.bin, "default", 1, "answer")) // by who may
			r.expect("ask", "43 11 old")
			revertAll(t, r.pid)
		})
	}
}
