package apply

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
)

// TestHeadless: a process whose first thread has ended is no process that is gone,
// neither by its id nor among all: it is read, and refused where it were to be changed.
func TestHeadless(t *testing.T) {
	const program = `
#include <pthread.h>
#include <unistd.h>
static void *go_on(void *a) { for (;;) pause(); return a; }
int main(void) { pthread_t t; if (pthread_create(&t, 0, go_on, 0)) return 1; pthread_exit(0); }
`
	bin := compileC(t, "headless", program, "-pthread", "-fPIE", "-pie")
	cmd := exec.Command(bin)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	pid := cmd.Process.Pid
	for end := time.Now().Add(time.Minute); ptrace.State(pid, pid) != "Z"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("its first thread does not end")
		}
	}
	patches := []*kpack.Patch{patchFor(t, pie(t), "default", 1, "answer")}
	if _, err := Apply(context.Background(), pid, patches, Options{}); !errors.Is(err, ErrHeadless) {
		t.Errorf("apply: %v", err)
	}
	if _, err := Revert(context.Background(), pid, nil, Options{}); !errors.Is(err, ErrHeadless) {
		t.Errorf("revert: %v", err)
	}
	if _, err := Prepare(context.Background(), pid, patches); !errors.Is(err, ErrHeadless) {
		t.Errorf("prepare: %v", err)
	}
	id, err := openELF(t, bin).BuildID()
	if err != nil {
		t.Fatal(err)
	}
	if ids, err := NewReader().BuildIDs(pid); err != nil || !slices.Contains(ids, id) {
		t.Errorf("build-ids: %v, %v", ids, err)
	}
	if ids, err := NewReader().readBuildIDs(stand(pid)); err != nil || !slices.Contains(ids, id) {
		t.Errorf("build-ids that are read: %v, %v", ids, err)
	}
	s, err := NewReader().Summary(pid)
	if err != nil || !s.Headless || s.Objects[0].Path != bin || s.Objects[0].BuildID != id {
		t.Fatalf("summary: %+v, %v", s, err)
	}
	s.same(t)
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if p.executable() != p.objects[0] || p.objects[0].Path != bin {
		t.Errorf("its program is %+v", p.executable())
	}
	if all, err := Processes(); err != nil || !slices.Contains(all, pid) {
		t.Errorf("it is not among all processes: %v", err)
	}
}
