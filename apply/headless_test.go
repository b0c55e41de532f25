package apply

import (
	"context"
	"debug/elf"
	"errors"
	"os"
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
	pid := startHeadless(t, bin)
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
	if err := byStandIn(pid, func(tid int) error {
		ids, err := NewReader().readBuildIDs(pid, tid)
		if err == nil && !slices.Contains(ids, id) {
			t.Errorf("build-ids that are read: %v", ids)
		}
		return err
	}); err != nil {
		t.Errorf("build-ids that are read: %v", err)
	}
	if _, err := openVia(nil, pid, os.Getpid(), false, (*Process).refresh); !errors.Is(err, ErrGone) {
		t.Errorf("by another process's thread: %v", err)
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

// startHeadless starts a program and waits until its first thread has ended.
func startHeadless(t *testing.T, bin string) (pid int) {
	t.Helper()
	cmd := exec.Command(bin)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid = cmd.Process.Pid
	for end := time.Now().Add(time.Minute); ptrace.State(pid, pid) != "Z"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("its first thread does not end")
		}
	}
	return pid
}

// TestHeadlessHandsOn: a process without a first thread is not gone because the thread
// ends by which it is looked at, nor is what is open of it.
func TestHeadlessHandsOn(t *testing.T) {
	const program = `
#include <pthread.h>
#include <unistd.h>
static void *hand_on(void *a) {
	pthread_t t;
	usleep(100);
	if (pthread_create(&t, 0, hand_on, 0)) _exit(1);
	pthread_detach(pthread_self());
	return a;
}

int main(void) {
	pthread_t t;
	for (int i = 0; i < 4; i++) if (pthread_create(&t, 0, hand_on, 0)) return 1;
	pthread_exit(0);
}
`
	bin := compileC(t, "hands-on", program, "-pthread", "-fPIE", "-pie")
	pid := startHeadless(t, bin)
	r := NewReader()
	for i := range 100 {
		s, err := r.Summary(pid)
		if err != nil || !s.Headless || len(s.Objects) == 0 {
			t.Fatalf("look %d: %+v, %v", i, s, err)
		}
		if ids, err := r.BuildIDs(pid); err != nil || !slices.Contains(ids, s.Objects[0].BuildID) {
			t.Fatalf("look %d: build-ids %v, %v", i, ids, err)
		}
		p, err := Open(pid)
		if err != nil {
			t.Fatalf("look %d: %v", i, err)
		}
		for end := time.Now().Add(time.Minute); ptrace.State(pid, p.via) != "X"; time.Sleep(50 * time.Microsecond) {
			if time.Now().After(end) {
				t.Fatal("the thread does not end")
			}
		}
		magic := ptrace.Span{Addr: s.Objects[0].Base, Buf: make([]byte, 4)}
		if err := p.mem.ReadSpans([]ptrace.Span{magic}); err != nil || string(magic.Buf) != elf.ELFMAG || p.executable() != p.objects[0] {
			t.Errorf("look %d: by a thread that has ended: %q, %v, program %+v", i, magic.Buf, err, p.executable())
		}
		p.Close()
		if _, err := Apply(context.Background(), pid, nil, Options{}); i == 0 && !errors.Is(err, ErrHeadless) {
			t.Errorf("apply: %v", err)
		}
	}
}
