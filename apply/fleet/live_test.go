package fleet

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

	"github.com/fother/fother/apply"
	"github.com/fother/fother/registry"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// start compiles and starts a program that prints a line once it is ready.
func start(t *testing.T, source string, flags ...string) (pid int, line string) {
	t.Helper()
	testenv.Needs(t, "gcc")
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "prog.c"), filepath.Join(dir, "prog")
	if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", append(flags, "-o", bin, src)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err = bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, strings.TrimSpace(line)
}

func TestLiveRead(t *testing.T) {
	const id = specs.BuildID("0123456789abcdef0123456789abcdef01234567")
	host := live{objects: maxObjects}
	pid, _ := start(t, `
#include <stdio.h>
#include <unistd.h>
int main(void) { puts("ready"); fflush(stdout); pause(); return 0; }`, "-Wl,--build-id=0x"+string(id))
	f, err := host.read(pid)
	if err != nil || f.pid != pid || f.name != "prog" || f.more != 0 || len(f.ids) < 2 || f.ids[0] != id {
		t.Errorf("%+v, %v: want the executable's build-id first", f, err)
	}
	if uid, err := host.owner(pid); uid != os.Getuid() || err != nil {
		t.Errorf("owner %d, %v", uid, err)
	}
	if has, err := host.has(pid, []specs.PatchID{{BuildID: id, Series: "default", Level: 1}}); err != nil || slices.Contains(has, present) {
		t.Errorf("%v, %v", has, err)
	}
	all, err := host.processes()
	if err != nil || !slices.Contains(all, pid) || slices.Contains(all, os.Getpid()) {
		t.Errorf("%v, %v", all, err)
	}
	for _, err := range []error{
		func() error { _, err := host.read(1 << 22); return err }(),
		func() error { _, err := host.owner(1 << 22); return err }(),
		func() error { _, err := host.has(1<<22, nil); return err }(),
	} {
		if !errors.Is(err, apply.ErrGone) {
			t.Errorf("no such process: %v", err)
		}
	}
}

func TestProcessWithManyObjects(t *testing.T) {
	pid, _ := start(t, `
#include <stdio.h>
#include <unistd.h>
int main(void) { puts("ready"); fflush(stdout); pause(); return 0; }`, "-lm")
	r, err := newPull(Options{Registry: &store{}, PIDs: []int{pid}}, live{objects: 2}).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Scanned != 1 || r.BuildIDs > 2 {
		t.Errorf("%+v", r)
	}
	expect(t, r, "objects: only the first 2 were looked at")
}

// between is a registry that has something happen when a bundle is fetched:
// between the look at the processes and what is done to them.
type between struct {
	*store
	happens func()
}

func (b between) Fetch(ctx context.Context, e registry.Entry) ([]byte, error) {
	b.happens()
	return b.store.Fetch(ctx, e)
}

// TestDeniedMeanwhile: a process that executes a program of the deny list after
// it was looked at is left alone.
func TestDeniedMeanwhile(t *testing.T) {
	const id = specs.BuildID("1123456789abcdef0123456789abcdef01234567")
	pid, _ := start(t, `
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
static char other[4096];
static void go(int s) { execl(other, other, "again", (char *)0); }
int main(int argc, char **argv) {
	snprintf(other, sizeof other, "%s2", argv[0]);
	signal(SIGUSR1, go);
	puts("ready"); fflush(stdout);
	for (;;) pause();
}`, "-Wl,--build-id=0x"+string(id))
	exe := fmt.Sprintf("/proc/%d/exe", pid)
	path, err := os.Readlink(exe)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", path, path+"2").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	deny, err := ParseDeny([]byte("exe " + path + "2\n"))
	if err != nil {
		t.Fatal(err)
	}
	var s store
	s.publish(t, "first", "default", 1, id)
	runs := func() bool { now, _ := os.Readlink(exe); return now == path+"2" }
	executes := func() {
		if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(20 * time.Second); !runs(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it has not executed the other program")
			}
		}
	}
	o := Options{Registry: between{&s, executes}, PIDs: []int{pid}, Deny: deny}
	r, err := newPull(o, live{objects: maxObjects}).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Scanned != 1 || len(r.LeftAlone) != 1 || r.LeftAlone[0].PID != pid || len(r.Processes) != 1 || len(r.Processes[0].Errors) != 0 {
		t.Errorf("%+v, %+v", r, r.LeftAlone)
	}
	expect(t, r, "left alone: the deny list has")
}

// TestProcessThatServesItsOwnMemory has a page that nobody can read, since the
// process does not serve the fault.
func TestProcessThatServesItsOwnMemory(t *testing.T) {
	pid, line := start(t, `
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
	struct uffdio_api api = {.api = UFFD_API};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	void *page = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register reg = {.range = {(unsigned long)page, 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
	puts(fd < 0 || ioctl(fd, UFFDIO_API, &api) || ioctl(fd, UFFDIO_REGISTER, &reg) ? "no" : "ready");
	fflush(stdout); pause(); return 0;
}`)
	if line != "ready" {
		testenv.Skip(t, "this kernel lets the user serve no faults of others (vm.unprivileged_userfaultfd)")
	}
	p := newPull(Options{Registry: &store{}, PIDs: []int{pid}}, live{objects: maxObjects})
	p.reading.Limit = 200 * time.Millisecond // it is to end before other tests look at it
	r, err := p.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	expect(t, r, "the process does not answer for 200ms")
}

// BenchmarkRead reads one small process, as a pass does for each.
func BenchmarkRead(b *testing.B) {
	for b.Loop() {
		if _, err := (live{objects: maxObjects}).read(os.Getpid()); err != nil {
			b.Fatal(err)
		}
	}
}
