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
// neither by its id nor among all.
func TestHeadless(t *testing.T) {
	const program = `
#include <pthread.h>
#include <unistd.h>
static void *go_on(void *a) { for (;;) pause(); return a; }
int main(void) { pthread_t t; if (pthread_create(&t, 0, go_on, 0)) return 1; pthread_exit(0); }
`
	cmd := exec.Command(compileC(t, "headless", program, "-pthread"))
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
	patch := patchFor(t, pie(t), "default", 1, "answer")
	if _, err := Apply(context.Background(), pid, []*kpack.Patch{patch}, Options{}); !errors.Is(err, ErrHeadless) {
		t.Errorf("apply: %v", err)
	}
	if _, err := NewReader().BuildIDs(pid); !errors.Is(err, ErrHeadless) {
		t.Errorf("build-ids: %v", err)
	}
	if all, err := Processes(); err != nil || !slices.Contains(all, pid) {
		t.Errorf("it is not among all processes: %v", err)
	}
}
