package apply

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

func TestWrongBuildID(t *testing.T) {
	r := start(t, pie(t))
	before := r.snapshot()
	patch := patchFor(t, compile(t, "fixed", "-fno-pie", "-no-pie"), "default", 1, "answer")
	for _, apply := range []func() error{
		func() error {
			_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{})
			return err
		},
		func() error { _, err := Prepare(context.Background(), r.pid, []*kpack.Patch{patch}); return err },
	} {
		err := apply()
		fit := (*NoFitError)(nil)
		if !errors.As(err, &fit) || len(fit.Objects) == 0 {
			t.Fatalf("error: %v", err)
		}
		for _, id := range []specs.BuildID{patch.Target.BuildID, fit.Objects[0].BuildID} {
			if !strings.Contains(err.Error(), string(id)) {
				t.Errorf("%v: does not name %s", err, id)
			}
		}
	}
	before.same(t, r.snapshot())
}

func TestChangedCodeIsRefused(t *testing.T) {
	r := start(t, pie(t))
	patch := patchFor(t, pie(t), "default", 1, "answer", "other")
	for _, at := range []specs.VAddr{patch.Functions[0].Original.Lo, patch.Functions[0].Original.Hi - 1} {
		p, err := open(r.pid, true)
		if err != nil {
			t.Fatal(err)
		}
		where := p.objects[0].image.Bias.Addr(at)
		old, err := p.mem.Read(where, 1)
		if err != nil {
			t.Fatal(err)
		}
		p.mem.Write(where, []byte{old[0] ^ 1})
		p.lock.Close()
		p.lock = nil
		before := r.snapshot()
		_, err = Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{})
		mismatch := (*MismatchError)(nil)
		if !errors.As(err, &mismatch) || mismatch.Function != patch.Functions[0].Name {
			t.Errorf("error: %v", err)
		}
		before.same(t, r.snapshot())
		p.mem.Write(where, old)
		p.Close()
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	r := start(t, pie(t))
	before := r.snapshot()
	plan, err := Prepare(context.Background(), r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "answer")})
	if err != nil || len(plan.Apply) != 1 || plan.Apply[0].Functions[0] != "answer" {
		t.Errorf("plan: %+v, %v", plan, err)
	}
	before.same(t, r.snapshot())
}

func TestProcessIsGone(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	patch := patchFor(t, pie(t), "default", 1, "answer")
	if _, err := Apply(context.Background(), cmd.Process.Pid, []*kpack.Patch{patch}, Options{}); !errors.Is(err, ErrGone) {
		t.Errorf("a process that has ended: %v", err)
	}
	// One that ends meanwhile: whatever the moment, it is one clear error.
	for i := range 30 {
		r := start(t, pie(t), "call", "births")
		go func() {
			time.Sleep(time.Duration(i) * 300 * time.Microsecond)
			r.cmd.Process.Kill()
		}()
		for {
			if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); err != nil {
				if !errors.Is(err, ErrGone) {
					t.Errorf("killed after %d tenths of a ms: apply: %v", 3*i, err)
				}
				break
			}
			if _, err := Revert(context.Background(), r.pid, nil, Options{}); err != nil {
				if !errors.Is(err, ErrGone) {
					t.Errorf("killed after %d tenths of a ms: revert: %v", 3*i, err)
				}
				break
			}
		}
	}
}

func TestNoFreeMemoryNear(t *testing.T) {
	bin := compile(t, "full", "-fPIE", "-pie", "-DFULL")
	r := start(t, bin)
	before := r.snapshot()
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", 1, "answer")}, Options{})
	if !errors.Is(err, ErrNoMemory) {
		t.Errorf("error: %v", err)
	}
	before.same(t, r.snapshot())
	r.expect("ask", oldAnswer)
}

func TestDamagedRecord(t *testing.T) {
	r := start(t, pie(t))
	patch := patchFor(t, pie(t), "default", 1, "answer")
	res := applyTo(t, r.pid, patch)
	mem, err := ptrace.OpenMem(r.pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	base := res.Applied[0].Base
	good, err := mem.Read(base, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int{8, 12, 13, 15, 16, 33, recordFixed + 3} {
		bad := slices.Clone(good)
		bad[off] ^= 0x5a
		mem.Write(base, bad)
		p, err := Open(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		if len(p.Applied()) != 0 || len(p.Damaged()) != 1 {
			t.Errorf("byte %d: applied %v, damaged %v", off, p.Applied(), p.Damaged())
		}
		p.Close()
		if _, err := Revert(context.Background(), r.pid, nil, Options{}); !errors.Is(err, ErrNotApplied) {
			t.Errorf("byte %d: revert: %v", off, err)
		}
		mismatch := (*MismatchError)(nil)
		if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{}); !errors.As(err, &mismatch) {
			t.Errorf("byte %d: apply: %v", off, err)
		}
	}
	mem.Write(base, good)
	r.expect("ask", "43 11 old")
	revertAll(t, r.pid)
	r.expect("ask", oldAnswer)
}

// child runs the test binary as childMain.
func child(t *testing.T, what string, pid int, patch string, cred *syscall.Credential) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if cred != nil { // which may not read go test's own folder
		data, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		exe = filepath.Join(workdir, "child")
		if err := os.WriteFile(exe, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(exe)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "APPLY_TEST_CHILD="+what, fmt.Sprint("APPLY_TEST_PID=", pid), "APPLY_TEST_PATCH="+patch)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	return cmd
}

func TestNoPermission(t *testing.T) {
	if os.Getuid() != 0 {
		testenv.Skip(t, "only root can become nobody")
	}
	r := start(t, pie(t))
	before := r.snapshot()
	data, err := patchFor(t, pie(t), "default", 1, "answer").Encode()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(workdir, "nobody.kpatch")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := child(t, "apply", r.pid, file, &syscall.Credential{Uid: 65534, Gid: 65534})
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 10 {
		t.Errorf("as nobody: %s", out)
	}
	before.same(t, r.snapshot())
}

func TestAlreadyTraced(t *testing.T) {
	r := start(t, pie(t), "call")
	before := r.snapshot()
	cmd := child(t, "trace", r.pid, "", nil)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "traced\n" {
		t.Fatalf("the tracer says %q", line)
	}
	_, err = Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "answer")}, Options{})
	traced := (*TracedError)(nil)
	if !errors.As(err, &traced) || traced.Tracer != cmd.Process.Pid || traced.Name == "" {
		t.Errorf("error: %v", err)
	}
	before.same(t, r.snapshot())
	if err := cmd.Process.Kill(); err != nil { // one that is ending is waited for
		t.Fatal(err)
	}
	applyTo(t, r.pid, patchFor(t, pie(t), "default", 1, "answer", "other"))
	r.expect("ask", newAnswer)
}

func TestGroupStopStays(t *testing.T) {
	r := start(t, pie(t), "call", "sleep")
	patch := patchFor(t, pie(t), "default", 1, "answer")
	stopped := func() bool { return ptrace.State(r.pid, r.pid) == "T" }
	// whileStopped does something to the stopped process. A thread that was
	// stopped inside of what changes cannot leave: then once more.
	whileStopped := func(do func() error) {
		t.Helper()
		for {
			r.cmd.Process.Signal(unix.SIGSTOP)
			for !stopped() {
				time.Sleep(time.Millisecond)
			}
			err := do()
			if busy := (*BusyError)(nil); errors.As(err, &busy) {
				r.cmd.Process.Signal(unix.SIGCONT)
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Millisecond)
			if !stopped() {
				t.Errorf("its state is %s", ptrace.State(r.pid, r.pid))
			}
			r.cmd.Process.Signal(unix.SIGCONT)
			return
		}
	}
	o := Options{Wait: 50 * time.Millisecond}
	whileStopped(func() error { _, err := Apply(t.Context(), r.pid, []*kpack.Patch{patch}, o); return err })
	r.expect("ask", "43 11 old")
	whileStopped(func() error { _, err := Revert(t.Context(), r.pid, nil, o); return err })
	r.expect("ask", oldAnswer)
}

func TestCancelled(t *testing.T) {
	r := start(t, pie(t), "forever")
	before := r.snapshot()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := Apply(ctx, r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "forever")}, Options{Wait: time.Minute})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error: %v", err)
	}
	before.same(t, r.snapshot())
}

func TestMemoryIsNamed(t *testing.T) {
	r := start(t, pie(t))
	res := applyTo(t, r.pid, patchFor(t, pie(t), "default", 1, "answer2"))
	maps, err := readMaps(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	m := mappingAt(maps, res.Applied[0].Base)
	if m == nil || (m.Path == "[anon:fother]") != kernelNames(t) {
		t.Errorf("%+v, and that the kernel names anonymous memory is %v", m, kernelNames(t))
	}
	revertAll(t, r.pid)
}

// kernelNames reports whether the kernel names anonymous memory as it is asked to
// (CONFIG_ANON_VMA_NAME).
func kernelNames(t *testing.T) bool {
	t.Helper()
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(page)
	name := []byte("test\x00")
	err = unix.Prctl(unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME, uintptr(unsafe.Pointer(&page[0])), uintptr(len(page)), uintptr(unsafe.Pointer(&name[0])))
	return err == nil
}

func TestTwoToolsAtOnce(t *testing.T) {
	r := start(t, pie(t), "call")
	p, err := open(r.pid, true)
	if err != nil {
		t.Fatal(err)
	}
	patch := patchFor(t, pie(t), "default", 1, "answer")
	done := make(chan error, 1)
	go func() {
		_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{})
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("the second did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	r.expect("ask", oldAnswer)
	p.Close()
	if err := <-done; err != nil {
		t.Errorf("after the first: %v", err)
	}
	r.expect("ask", "43 11 old")
}

func TestExecWhileSeized(t *testing.T) {
	cmd := exec.Command("sh", "-c", "read x; exec sleep 100")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	err = ptrace.Do(func() error {
		g, err := ptrace.Seize(cmd.Process.Pid, ptrace.Options{})
		if err != nil {
			return err
		}
		defer g.Detach()
		fmt.Fprintln(in)
		for range 1000 {
			if err := g.Serve(); err != nil {
				return err
			}
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	if !errors.Is(err, ErrGone) {
		t.Errorf("error: %v", err)
	}
	for range 100 {
		if name := ptrace.Comm(cmd.Process.Pid, cmd.Process.Pid); name == "sleep" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the new program does not run")
}

func TestClosedLibrary(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "lib.c")
	os.WriteFile(src, []byte(`static volatile int one = 1; __attribute__((noipa)) int answer(int x) { return x + one; }`), 0o600)
	lib := filepath.Join(dir, "lib.so")
	command(t, "gcc", "-O1", "-fPIC", "-falign-functions=16", "-c", "-o", lib+".o", src)
	for _, name := range []string{lib, lib + ".patched"} {
		command(t, "gcc", "-shared", "-Wl,--build-id", "-o", name, lib+".o")
	}
	main := filepath.Join(dir, "main.c")
	os.WriteFile(main, []byte(`
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
	char l[9]; void *h = 0;
	puts("ready"); fflush(stdout);
	while (fgets(l, 9, stdin)) {
		if (l[0] == 'o') h = dlopen(argv[1], RTLD_NOW);
		if (l[0] == 'c') { dlclose(h); h = 0; }
		printf("%d\n", h ? ((int (*)(int))dlsym(h, "answer"))(1) : 0); fflush(stdout);
	}
	return 0;
}`), 0o600)
	command(t, "gcc", "-O1", "-o", main+".bin", main, "-ldl")
	r := start(t, main+".bin", lib)
	r.expect("open", "2")
	patch := patchFor(t, lib, "default", 1, "answer")
	applyTo(t, r.pid, patch)
	r.expect("ask", "43")
	r.expect("close", "0")
	r.expect("open", "2") // fresh, and maybe at the same place
	applyTo(t, r.pid, patch)
	r.expect("ask", "43")
	r.expect("close", "0")
	if _, err := Revert(context.Background(), r.pid, nil, Options{}); !errors.Is(err, ErrNotApplied) {
		t.Errorf("revert of what is not loaded: %v", err)
	}
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if len(p.Applied()) != 0 {
		t.Errorf("left: %+v", p.Applied())
	}
	r.expect("open", "2")
}

// TestTwinLibrary closes a library between plan and commit, and opens one of
// another build, with the same code, at the same address.
func TestTwinLibrary(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "lib.c")
	os.WriteFile(src, []byte(`static volatile int one = 1; __attribute__((noipa)) int answer(int x) { return x + one; }`), 0o600)
	lib, twin := filepath.Join(dir, "lib.so"), filepath.Join(dir, "twin.so")
	command(t, "gcc", "-O1", "-fPIC", "-falign-functions=16", "-c", "-o", lib+".o", src)
	for i, name := range []string{lib, lib + ".patched", twin} {
		command(t, "gcc", "-shared", fmt.Sprintf("-Wl,--build-id=0x%040x", i+1), "-o", name, lib+".o")
	}
	main := filepath.Join(dir, "main.c")
	os.WriteFile(main, []byte(`
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
	char l[9]; void *h = dlopen(argv[1], RTLD_NOW);
	puts("ready"); fflush(stdout);
	while (fgets(l, 9, stdin)) {
		if (l[0] == 't') { dlclose(h); h = dlopen(argv[2], RTLD_NOW); }
		printf("%p %d\n", dlsym(h, "answer"), ((int (*)(int))dlsym(h, "answer"))(1)); fflush(stdout);
	}
	return 0;
}`), 0o600)
	command(t, "gcc", "-O1", "-o", main+".bin", main, "-ldl")
	r := start(t, main+".bin", lib, twin)
	old := r.ask("ask")
	p, err := open(r.pid, true)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	plan, err := makePlan(p, []*kpack.Patch{patchFor(t, lib, "default", 1, "answer")}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.stageAll(t.Context(), plan.steps); err != nil {
		t.Fatal(err)
	}
	r.expect("twin", old) // at the same address
	_, err = p.commit(context.Background(), plan.transaction(), commitOptions{})
	if mismatch := (*MismatchError)(nil); !errors.As(err, &mismatch) || !strings.Contains(mismatch.Why, "another one is in its place") {
		t.Errorf("%v", err)
	}
	r.expect("ask", old)
}

// TestVforkIsWaitedFor has a thread that cannot be stopped for most of the
// time.
func TestVforkIsWaitedFor(t *testing.T) {
	r := start(t, pie(t), "vfork", "call")
	patch := patchFor(t, pie(t), "default", 1, "answer")
	res, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: 20 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d stops, the longest %v", res.Stop.Tries, res.Stop.Longest)
	r.expect("ask", "43 11 old")
	if _, err := Revert(context.Background(), r.pid, nil, Options{Wait: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	r.expect("ask", oldAnswer)
}
