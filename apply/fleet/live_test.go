package fleet

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fother/fother/apply"
	"github.com/fother/fother/specs"
)

// need skips a test for want of something, which CI does not allow.
func need(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// start compiles and starts a program that prints a line once it is ready.
func start(t *testing.T, source string, flags ...string) (pid int, line string) {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		need(t, "gcc is not installed")
	}
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
	pid, _ := start(t, `
#include <stdio.h>
#include <unistd.h>
int main(void) { puts("ready"); fflush(stdout); pause(); return 0; }`, "-Wl,--build-id=0x"+string(id))
	f, err := live{}.read(pid)
	if err != nil || f.pid != pid || f.name != "prog" || f.more != 0 || len(f.ids) < 2 || f.ids[0] != id {
		t.Errorf("%+v, %v: want the executable's build-id first", f, err)
	}
	if uid, err := (live{}).owner(pid); uid != os.Geteuid() || err != nil {
		t.Errorf("owner %d, %v", uid, err)
	}
	if has, err := (live{}).has(pid, []specs.PatchID{{BuildID: id, Series: "default", Level: 1}}); err != nil || slices.Contains(has, true) {
		t.Errorf("%v, %v", has, err)
	}
	all, err := live{}.processes()
	if err != nil || !slices.Contains(all, pid) || slices.Contains(all, os.Getpid()) {
		t.Errorf("%v, %v", all, err)
	}
	for _, err := range []error{
		func() error { _, err := live{}.read(1 << 22); return err }(),
		func() error { _, err := live{}.owner(1 << 22); return err }(),
		func() error { _, err := live{}.has(1<<22, nil); return err }(),
	} {
		if !errors.Is(err, apply.ErrGone) {
			t.Errorf("no such process: %v", err)
		}
	}
}

// TestProcessWithManyObjects maps one library over and over.
func TestProcessWithManyObjects(t *testing.T) {
	pid, _ := start(t, `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
	int fd = open("/proc/self/exe", O_RDONLY);
	long size = lseek(fd, 0, SEEK_END);
	for (int i = 0; i < 2000; i++) mmap(0, size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	puts("ready"); fflush(stdout); pause(); return 0;
}`, "-Wl,-z,noseparate-code")
	s := &store{}
	r, err := Pull(t.Context(), Options{Registry: s, State: t.TempDir(), PIDs: []int{pid}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Scanned != 1 || r.BuildIDs == 0 || r.BuildIDs > maxObjects {
		t.Errorf("%+v", r)
	}
	expect(t, r, "objects: only the first 1024 were looked at")
}

// TestProcessThatServesItsOwnMemory has a page that nobody can read, since the
// process does not serve the fault.
func TestProcessThatServesItsOwnMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
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
		t.Skip("this kernel lets the user serve no faults of others (vm.unprivileged_userfaultfd)")
	}
	r, err := Pull(t.Context(), Options{Registry: &store{}, State: t.TempDir(), PIDs: []int{pid}})
	if err != nil {
		t.Fatal(err)
	}
	expect(t, r, "the process does not answer for 5s")
}
