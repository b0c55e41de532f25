package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
)

// parking has sleeping threads parked, however few there are, until the test ends.
func parking(t testing.TB) {
	old := parkFrom
	parkFrom = 1
	t.Cleanup(func() { parkFrom = old })
}

// TestSleepersAreParked: who sleeps has no part in the stop, and finds the new
// code when it wakes.
func TestSleepersAreParked(t *testing.T) {
	parking(t)
	r := start(t, pie(t), "call", "sleep1s", "read", "epoll", "futex")
	before := r.snapshot()
	patch := patchFor(t, pie(t), "default", 1, "answer", "other")
	most := 0
	for range 10 {
		most = max(most, applyTo(t, r.pid, patch).Stop.Parked)
		r.expect("ask", newAnswer)
		most = max(most, revertAll(t, r.pid).Stop.Parked)
		r.expect("ask", oldAnswer)
	}
	if most < 4 {
		t.Errorf("at most %d threads were parked", most)
	}
	before.same(t, r.snapshot())
}

// TestParkedInside: a thread that sleeps inside of what changes is named, and no
// thread is stopped to know it.
func TestParkedInside(t *testing.T) {
	parking(t)
	r := start(t, pie(t), "forever", "futex", "sleep1s")
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "forever")}, Options{Wait: 100 * time.Millisecond})
	busy := (*BusyError)(nil)
	if !errors.As(err, &busy) || busy.Threads[0].Function != "forever" || busy.Threads[0].Name != "forever" {
		t.Fatalf("%v", err)
	}
	r.expect("ask", oldAnswer)
}

// insideC has one thread that comes and goes, and one that stays.
const insideC = `
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
__attribute__((noinline, noclone, noipa)) int answer(int ms) { struct timespec t = {ms / 1000, ms % 1000 * 1000000}; nanosleep(&t, 0); return ms + 1; }
static void *brief(void *a) { pthread_setname_np(pthread_self(), "brief"); for (;;) { answer(15); usleep(20000); } return a; }
static void *longer(void *a) { pthread_setname_np(pthread_self(), "long"); for (;;) answer(1000000); return a; }
int main(void)
{
	char line[100];
	pthread_t t;
	if (pthread_create(&t, 0, brief, 0) || pthread_create(&t, 0, longer, 0)) return 1;
	usleep(10000);
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) { printf("%d\n", answer(1)); fflush(stdout); }
	return 0;
}
`

// TestTwoInside: one that has left is not held while another sleeps inside, for
// there is no stop that it could wait for.
func TestTwoInside(t *testing.T) {
	parking(t)
	bin := compileC(t, "inside", insideC, "-fPIE", "-pie")
	r := startCommand(t, exec.Command(bin))
	patch := patchFor(t, bin, "default", 1, "answer")
	for range 3 {
		done := make(chan error)
		go func() {
			_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patch}, Options{Wait: 400 * time.Millisecond})
			done <- err
		}()
		held, all := 0, 0
		for err := error(nil); err == nil; {
			select {
			case err = <-done:
				if busy := (*BusyError)(nil); !errors.As(err, &busy) {
					t.Fatal(err)
				}
			case <-time.After(time.Millisecond):
				all++
				if stateOf(t, r.pid, "brief") == "t" {
					held++
				}
			}
		}
		if held > all/2 {
			t.Errorf("it was held %d times of %d", held, all)
		}
	}
}

// stateOf returns the state of the thread with some name.
func stateOf(t *testing.T, pid int, name string) string {
	t.Helper()
	tids, err := ptrace.Threads(pid)
	if err != nil {
		t.Fatal(err)
	}
	for _, tid := range tids {
		if ptrace.Comm(pid, tid) == name {
			return ptrace.State(pid, tid)
		}
	}
	t.Fatalf("there is no thread %s", name)
	return ""
}

// TestRefusedLeavesText: where no stop gets as far as to write, no page of text has
// become the process's own.
func TestRefusedLeavesText(t *testing.T) {
	parking(t)
	r := start(t, pie(t), "forever", "sleep1s")
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "forever", "answer")}, Options{Wait: 50 * time.Millisecond})
	if busy := (*BusyError)(nil); !errors.As(err, &busy) {
		t.Fatal(err)
	}
	if own := ownText(t, r.pid, pie(t)); own != "0 kB" {
		t.Errorf("%s of the text are the process's own", own)
	}
	patch := patchFor(t, pie(t), "default", 1, "answer")
	applyTo(t, r.pid, patch)
	if own := ownText(t, r.pid, pie(t)); own != "4 kB" {
		t.Errorf("%s of the text are the process's own after the change", own)
	}
}

// ownText returns how much of the text of a program was written to in a process.
func ownText(t *testing.T, pid int, path string) string {
	t.Helper()
	smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
	if err != nil {
		t.Fatal(err)
	}
	text := false
	for line := range strings.Lines(string(smaps)) {
		if f := strings.Fields(line); len(f) == 6 && strings.Contains(f[0], "-") {
			text = f[1] == "r-xp" && f[5] == path
		} else if own, ok := strings.CutPrefix(line, "Anonymous:"); ok && text {
			return strings.TrimSpace(own)
		}
	}
	t.Fatalf("%s has no text", path)
	return ""
}

// shiftingC has threads whose stacks come and go in one mapping with what lies
// beside them.
const shiftingC = `
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
__attribute__((noinline, noclone, noipa)) int answer(int x) { return x + 1; }
enum { N = 40, S = 64 << 10 };
static char *area;
static void *sleeper(void *a) { for (;;) pause(); return a; }
static void *shift(void *a)
{
	struct timespec t = {0, 20000};
	for (;;) {
		char *c = area + (2 * (rand() % N) + 1) * S;
		munmap(c, S);
		nanosleep(&t, 0);
		mmap(c, S, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	}
	return a;
}
int main(void)
{
	char line[100];
	pthread_t t;
	pthread_attr_t a;
	area = mmap(0, 2 * N * S, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < N; i++) {
		pthread_attr_init(&a);
		pthread_attr_setstack(&a, area + 2 * i * S, S);
		if (pthread_create(&t, &a, sleeper, 0)) return 1;
	}
	if (pthread_create(&t, 0, shift, 0)) return 1;
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) { printf("%d\n", answer(1)); fflush(stdout); }
	return 0;
}
`

// TestStacksShift: stacks in mappings that become shorter and longer are looked
// through, parked or stopped.
func TestStacksShift(t *testing.T) {
	bin := compileC(t, "shifting", shiftingC, "-fPIE", "-pie")
	patch := patchFor(t, bin, "default", 1, "answer")
	for _, from := range []int{1, 1 << 30} {
		parking(t)
		parkFrom = from
		r := startCommand(t, exec.Command(bin))
		for range 5 {
			applyTo(t, r.pid, patch)
			r.expect("ask", "43")
			revertAll(t, r.pid)
			r.expect("ask", "2")
		}
	}
}

// ignoredC is a program whose threads sleep in a call that a stop ends, while others
// send it signals that it ignores.
const ignoredC = `
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
__attribute__((noinline, noclone, noipa)) int answer(int x) { return x + 1; }
static volatile long interrupted;
static void *waits(void *a)
{
	struct epoll_event e;
	int fd = epoll_create1(0);
	for (;;) if (epoll_wait(fd, &e, 1, 1000000) < 0) { if (errno != EINTR) _exit(3); __atomic_add_fetch(&interrupted, 1, 5); }
	return a;
}
int main(int argc, char **argv)
{
	char line[100];
	pthread_t t;
	signal(SIGUSR1, SIG_IGN);
	for (int i = 0; i < atoi(argv[1]); i++) if (pthread_create(&t, 0, waits, 0)) return 1;
	pid_t me = getpid();
	if (fork() == 0) {
		struct timespec n = {0, 500000};
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(0); close(1);
		for (;;) { if (kill(me, SIGUSR1)) _exit(0); nanosleep(&n, 0); }
	}
	usleep(20000);
	printf("ready\n"); fflush(stdout);
	while (fgets(line, sizeof line, stdin)) { printf("%d %ld\n", answer(1), interrupted); fflush(stdout); }
	return 0;
}
`

// TestIgnoredSignals: calls that are not restarted hardly ever end for a signal that
// the program ignores, whichever thread is traced. Without the tool they never do.
func TestIgnoredSignals(t *testing.T) {
	bin := compileC(t, "ignored", ignoredC, "-fPIE", "-pie")
	patch := patchFor(t, bin, "default", 1, "answer")
	for _, threads := range []string{"20", "100"} { // stopped, and parked
		r := start(t, bin, threads)
		r.expect("ask", "2 0")
		for range 10 {
			applyTo(t, r.pid, patch)
			revertAll(t, r.pid)
		}
		var answer, ended int
		if _, err := fmt.Sscan(r.ask("ask"), &answer, &ended); err != nil || answer != 2 || ended > 10 {
			t.Errorf("%s threads: %d calls of 20 commits ended, %v", threads, ended, err)
		}
		t.Logf("%s threads: %d calls ended", threads, ended)
	}
}
