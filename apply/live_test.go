package apply

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
)

// running is a started program.
type running struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
	pid int
}

func start(t testing.TB, bin string, kinds ...string) *running {
	t.Helper()
	return startCommand(t, exec.Command(bin, kinds...))
}

// startCommand starts a program that says when it is ready.
func startCommand(t testing.TB, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{t: t, cmd: cmd}
	in, err := r.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.in, r.out = in, bufio.NewReader(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.pid = r.cmd.Process.Pid
	t.Cleanup(func() {
		r.cmd.Process.Kill()
		rest, _ := io.ReadAll(r.out)
		if len(rest) > 0 {
			t.Errorf("the program says %s", rest)
		}
		r.cmd.Wait()
		if r.cmd.ProcessState == nil || strings.HasSuffix(t.Name(), "Gone") {
			return
		}
		if ws, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
			t.Errorf("the program ended by itself: %v", r.cmd.ProcessState)
		}
	})
	if line := r.line(); line != "ready" {
		t.Fatalf("the program says %q", line)
	}
	return r
}

func (r *running) line() string {
	line, err := r.out.ReadString('\n')
	if err != nil {
		r.t.Fatalf("the program is silent: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

func (r *running) ask(what string) string {
	r.t.Helper()
	fmt.Fprintln(r.in, what)
	return r.line()
}

func (r *running) expect(what, want string) {
	r.t.Helper()
	if got := r.ask(what); got != want {
		r.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// state is what apply and revert together must leave as it was.
type memoryState struct {
	maps string
	// fixed are those of maps that no program changes by itself.
	fixed string
	code  map[string][]byte
}

func (r *running) snapshot() memoryState {
	r.t.Helper()
	maps, err := readMaps(r.pid)
	if err != nil {
		r.t.Fatal(err)
	}
	mem, err := ptrace.OpenMem(r.pid, false)
	if err != nil {
		r.t.Fatal(err)
	}
	defer mem.Close()
	s := memoryState{code: map[string][]byte{}}
	for _, m := range maps {
		s.maps += fmt.Sprintln(m)
		if m.Inode != 0 || m.executable() || strings.HasPrefix(m.Path, "[anon:") {
			s.fixed += fmt.Sprintln(m)
		}
		if m.Inode == 0 && m.Path != "[vdso]" || m.writable() || !m.readable() {
			continue
		}
		b, err := mem.Read(m.Range.Lo, int(m.Range.Size()))
		if err != nil && !errors.Is(err, io.EOF) {
			r.t.Fatal(err)
		}
		s.code[m.Path+m.Range.String()] = b
	}
	return s
}

// program leaves out what a program maps for its own data.
func (s memoryState) program() memoryState {
	s.maps = s.fixed
	return s
}

func (s memoryState) same(t testing.TB, o memoryState) {
	t.Helper()
	if s.maps != o.maps {
		t.Errorf("mappings differ:\n%s\n%s", s.maps, o.maps)
	}
	for name, b := range s.code {
		if !bytes.Equal(b, o.code[name]) {
			t.Errorf("%s is not as it was", name)
		}
	}
}

func applyTo(t testing.TB, pid int, patches ...*kpack.Patch) *Result {
	t.Helper()
	res, err := Apply(context.Background(), pid, patches, Options{Wait: patience})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func revertAll(t testing.TB, pid int) *Result {
	t.Helper()
	res, err := Revert(context.Background(), pid, nil, Options{Wait: patience})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// patience is how long a thread may stay inside of what changes because the
// machine has no processor for it.
const patience = 30 * time.Second

const (
	oldAnswer = "2 11 old"
	newAnswer = "43 9 old"
)

func TestApplyAndRevert(t *testing.T) {
	builds := []struct {
		name  string
		flags []string
	}{
		{"pie", []string{"-fPIE", "-pie"}},
		{"now", []string{"-fPIE", "-pie", "-Wl,-z,now"}},
		{"fixed", []string{"-fno-pie", "-no-pie"}},
		{"cet", []string{"-fPIE", "-pie", body("-fcf-protection=full", "-mbranch-protection=standard")}},
	}
	threads := [][]string{
		nil, {"call"}, {"call", "call", "sleep", "read", "epoll", "futex", "births"}, {"mdwe", "call"},
	}
	for _, b := range builds {
		for _, kinds := range threads {
			t.Run(b.name+"/"+strings.Join(kinds, "+"), func(t *testing.T) {
				bin := compile(t, b.name, b.flags...)
				patch := patchFor(t, bin, "default", 1, "answer", "other")
				r := start(t, bin, kinds...)
				r.expect("ask", oldAnswer)
				before := r.snapshot()
				kept := 0
				for range 3 {
					res := applyTo(t, r.pid, patch)
					if len(res.Applied) != 1 || len(res.Applied[0].Functions) != 2 || res.Stop.Total <= 0 {
						t.Errorf("result: %+v", res)
					}
					r.expect("ask", newAnswer)
					checkNoWX(t, r.pid)
					if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); !errors.Is(err, ErrAlreadyApplied) {
						t.Errorf("a second time: %v", err)
					}
					res = revertAll(t, r.pid)
					if len(res.Removed) != 1 {
						t.Errorf("result: %+v", res)
					}
					kept = len(res.Kept)
					r.expect("ask", oldAnswer)
				}
				// A stale word on the stack of a thread that runs may look like a
				// reference for as long as it takes to be overwritten.
				for try := 0; kept > 0; try++ {
					res, err := Revert(context.Background(), r.pid, nil, Options{})
					if err != nil && !errors.Is(err, ErrNotApplied) || try == 50 {
						t.Fatalf("what was kept is not freed: %+v, %v", res, err)
					}
					kept = len(res.Kept)
					r.expect("ask", oldAnswer)
				}
				if !slices.Contains(kinds, "births") {
					before.same(t, r.snapshot())
				}
				if _, err := Revert(context.Background(), r.pid, nil, Options{}); !errors.Is(err, ErrNotApplied) {
					t.Errorf("a second time: %v", err)
				}
				time.Sleep(250 * time.Millisecond)
			})
		}
	}
}

// checkNoWX checks that no memory is writable and executable.
func checkNoWX(t testing.TB, pid int) {
	t.Helper()
	maps, err := readMaps(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps {
		if m.writable() && m.executable() {
			t.Errorf("writable and executable: %+v", m)
		}
	}
}
