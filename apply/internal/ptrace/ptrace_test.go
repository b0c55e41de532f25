package ptrace

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// target is a program with one thread for each of its arguments' kinds. It
// answers on stdout when all of them run, and checks itself that no call is
// broken or started over.
const target = `
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what, long n) { printf("BAD %s %ld\n", what, n); fflush(stdout); _exit(3); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static volatile unsigned long spins, poked, answers;
static pthread_t first, all_threads[100];
static volatile int made;
static int poll_fd;
static void on_poke(int s) { poked = 1; }

/* registers that a system call may spoil, or a way home through a register */
static void compute(void)
{
	static const unsigned char pattern[16] = "0123456789abcde";
	unsigned char out[16] = "";
	unsigned long n = 100000, a = 0, b = 0;
#ifdef __aarch64__
	__asm__ volatile("mov x16, 16\n\tmov x17, 17\n\tldr q7, [%[p]]\n1:\tsubs %[n], %[n], 1\n\tb.ne 1b\n\tmov %[a], x16\n\tmov %[b], x17\n\tstr q7, [%[o]]"
		: [n] "+r"(n), [a] "+r"(a), [b] "+r"(b) : [p] "r"(pattern), [o] "r"(out) : "x16", "x17", "v7", "memory", "cc");
	if (getauxval(AT_HWCAP) & 1 << 22) { /* HWCAP_SVE */
		unsigned char wide[2][256] = {{0}};
		unsigned long bytes;
		n = 100000;
		__asm__ volatile(".arch_extension sve\n\trdvl %[b], 1\n\tptrue p3.b\n\tmov z5.b, 5\n\tmov z31.b, 31\n1:\tsubs %[n], %[n], 1\n\tb.ne 1b\n\t"
			"st1b {z5.b}, p3, [%[o]]\n\tst1b {z31.b}, p3, [%[q]]"
			: [n] "+r"(n), [b] "=&r"(bytes) : [o] "r"(wide[0]), [q] "r"(wide[1]) : "v5", "v31", "memory", "cc");
		for (unsigned long i = 0; i < bytes; i++) if (wide[0][i] != 5 || wide[1][i] != 31) die("wide vector register, byte", i);
	}
#else
	__asm__ volatile("movq $16, %%r10\n\tmovq $17, %%r11\n\tmovdqu (%[p]), %%xmm7\n1:\tsubq $1, %[n]\n\tjnz 1b\n\tmovq %%r10, %[a]\n\tmovq %%r11, %[b]\n\tmovdqu %%xmm7, (%[o])"
		: [n] "+r"(n), [a] "+r"(a), [b] "+r"(b) : [p] "r"(pattern), [o] "r"(out) : "r10", "r11", "xmm7", "memory", "cc");
#endif
	if (a != 16 || b != 17 || memcmp(out, pattern, 16)) die("register", a * 100 + b);
}

static void *run(void *arg)
{
	const char *kind = arg;
	if (!strcmp(kind, "compute")) for (;;) compute();
	if (!strcmp(kind, "spin")) for (;;) spins++;
	if (!strcmp(kind, "sleep")) for (;;) {
		struct timespec t = {0, 300000000};
		double a = now();
		if (nanosleep(&t, 0)) die("nanosleep", errno);
		if (now() - a > 60) die("nanosleep took ms", (now() - a) * 1e3);
	}
	if (!strcmp(kind, "epoll")) for (;;) {
		struct epoll_event e;
		if (epoll_wait(epoll_create1(0), &e, 1, 100000) < 0) die("epoll_wait", errno);
	}
	if (!strcmp(kind, "read")) for (;;) { char c; int p[2]; pipe(p); if (read(p[0], &c, 1) < 0) die("read", errno); }
	if (!strcmp(kind, "births")) for (;;) {
		pthread_t t;
		if (!pthread_create(&t, 0, (void *(*)(void *))usleep, (void *)10)) pthread_join(t, 0);
	}
	if (!strcmp(kind, "suspend") || !strcmp(kind, "pwait")) for (;;) {
		sigset_t none;
		sigemptyset(&none);
		while (!poked)
			if (*kind == 's') sigsuspend(&none);
			else { struct epoll_event e; epoll_pwait(poll_fd, &e, 1, -1, &none); }
		poked = 0;
		answers++;
	}
	if (!strcmp(kind, "poke")) for (;;) { // the first thread, whenever it has answered
		unsigned long a = answers;
		pthread_kill(first, SIGUSR2);
		while (answers == a) usleep(20);
		usleep(rand() % 200);
	}
	if (!strcmp(kind, "ignored")) { /* by default, and by its own word */
		sigset_t all;
		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, 0);
		signal(SIGHUP, SIG_IGN);
		for (;;) { pthread_kill(all_threads[rand() % made], rand() % 2 ? SIGURG : SIGHUP); usleep(100); }
	}
	if (!strcmp(kind, "signals")) for (;;) { pthread_kill(pthread_self(), SIGUSR1); }
	return 0;
}

/* sleeps once, by a call of that name */
static void once(const char *call, long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};
	int word = 0;
	printf("ready\n"); fflush(stdout);
	if (!strcmp(call, "nanosleep") && nanosleep(&t, 0)) die(call, errno);
	if (!strcmp(call, "poll") && poll(0, 0, ms)) die(call, errno);
	if (!strcmp(call, "futex") && (syscall(SYS_futex, &word, FUTEX_WAIT, 0, &t, 0, 0) != -1 || errno != ETIMEDOUT)) die(call, errno);
	printf("slept\n"); fflush(stdout);
}

static volatile unsigned long handled;
static void handler(int s) { handled++; getppid(); }

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "once")) { once(argv[2], atol(argv[3])); return 0; }
	signal(SIGUSR1, handler);
	signal(SIGUSR2, on_poke);
	sigset_t usr2;
	sigemptyset(&usr2);
	sigaddset(&usr2, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &usr2, 0);
	first = pthread_self();
	poll_fd = epoll_create1(0);
	all_threads[made++] = first;
	for (int i = 2; i < argc; i++) { pthread_t t; if (pthread_create(&t, 0, run, argv[i])) die("create", errno); if (made < 100) all_threads[made++] = t; }
	printf("ready\n"); fflush(stdout);
	if (argc > 1) run(argv[1]);
	return 0;
}
`

// build compiles the target, unless PTRACE_TEST_TARGET names it, for machines
// without a compiler.
var build = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("PTRACE_TEST_TARGET"); bin != "" {
		return bin, nil
	}
	dir, err := os.MkdirTemp("", "ptrace")
	if err != nil {
		return "", err
	}
	src := filepath.Join(dir, "target.c")
	if err := os.WriteFile(src, []byte(target), 0o600); err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "target")
	out, err := exec.Command("gcc", "-O1", "-pthread", "-o", bin, src).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return bin, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if bin, err := build(); err == nil && os.Getenv("PTRACE_TEST_TARGET") == "" {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// built returns the target's file.
func built(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil && os.Getenv("PTRACE_TEST_TARGET") == "" {
		testenv.Skip(t, "gcc is not installed")
	}
	bin, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// start runs the target and waits until its threads are there.
func start(t *testing.T, kinds ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(built(t), kinds...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if line, err := r.ReadString('\n'); line != "ready\n" {
		t.Fatalf("target says %q, %v", line, err)
	}
	said := make(chan string, 1)
	go func() { b, _ := io.ReadAll(r); said <- string(b) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		if s := <-said; s != "" {
			t.Errorf("target says %s", s)
		}
		err := cmd.Wait()
		if cmd.ProcessState == nil {
			return
		}
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL && !t.Failed() && !strings.HasSuffix(t.Name(), "Gone") {
			t.Errorf("target ended by itself: %v", err)
		}
	})
	return cmd
}

// code returns the executable file mappings and the vDSO of a process.
func code(t *testing.T, pid int) []specs.Range[specs.Addr] {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []specs.Range[specs.Addr]
	for line := range strings.Lines(string(b)) {
		var lo, hi, off, ino uint64
		var perm, dev, path string
		n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d %s", &lo, &hi, &perm, &off, &dev, &ino, &path)
		if n == 7 && perm == "r-xp" {
			all = append(all, specs.Range[specs.Addr]{Lo: specs.Addr(lo), Hi: specs.Addr(hi)})
		}
	}
	slices.Reverse(all) // the vDSO first
	return all
}

var kinds = [][]string{
	{"spin"}, {"compute"}, {"sleep"}, {"epoll"}, {"read"}, {"signals"}, {"births"},
	{"suspend", "poke"}, {"pwait", "poke"},
	{"sleep", "spin", "read", "births", "signals"}, {"sleep", "spin", "epoll", "read", "births", "signals", "sleep"},
}

func TestStopAndGo(t *testing.T) {
	for _, kind := range kinds {
		t.Run(strings.Join(kind, "+"), func(t *testing.T) {
			cmd := start(t, kind...)
			err := Do(func() error {
				g, err := Seize(cmd.Process.Pid, Options{})
				if err != nil {
					return err
				}
				defer g.Detach()
				for range 25 {
					if err := g.Stop(); err != nil {
						return err
					}
					tids, _ := Threads(cmd.Process.Pid)
					if live := g.Threads(); len(live) != len(tids) {
						t.Errorf("%d threads are held, %d exist", len(live), len(tids))
					}
					for _, th := range g.Threads() {
						if !th.Stopped() || th.Regs.PC() == 0 || th.Regs.SP() == 0 {
							t.Errorf("thread %d: stopped %v at %v", th.TID, th.Stopped(), th.Regs.PC())
						}
					}
					if err := g.Resume(); err != nil {
						return err
					}
					for range 3 {
						time.Sleep(time.Millisecond)
						if err := g.Serve(); err != nil {
							return err
						}
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			goesOn := progress(t, cmd.Process.Pid)
			time.Sleep(350 * time.Millisecond)
			if slices.Contains(kind, "poke") {
				goesOn()
			}
			if tracer, _ := statusField(cmd.Process.Pid, cmd.Process.Pid, "TracerPid"); tracer != 0 {
				t.Errorf("still traced by %d", tracer)
			}
		})
	}
}

// progress returns a function that fails the test if the first thread, which
// waits for signals that keep coming, has not been woken since: a signal was
// lost that had ended its wait.
func progress(t *testing.T, pid int) func() {
	before, _ := statusField(pid, pid, "voluntary_ctxt_switches")
	return func() {
		t.Helper()
		if now, _ := statusField(pid, pid, "voluntary_ctxt_switches"); now == before {
			t.Error("a signal arrived, but the call that waited for it goes on")
		}
	}
}

func TestAgent(t *testing.T) {
	for _, kind := range kinds {
		t.Run(strings.Join(kind, "+"), func(t *testing.T) {
			cmd := start(t, kind...)
			pid := cmd.Process.Pid
			where := code(t, pid)
			before := snapshot(t, pid, where)
			for range 20 {
				if kind[0] == "epoll" {
					asleep(t, pid)
				}
				if err := Do(func() error { return mapAndUnmap(pid, where) }); err != nil {
					t.Fatal(err)
				}
				time.Sleep(7 * time.Millisecond)
			}
			goesOn := progress(t, pid)
			time.Sleep(350 * time.Millisecond)
			if slices.Contains(kind, "poke") {
				goesOn()
			}
			if after := snapshot(t, pid, where); after != before {
				t.Error("code is not as it was")
			}
		})
	}
}

// asleep waits until a process's first thread sleeps. On aarch64 a stop shows
// EINTR to a call that the thread enters just then (Regs.note).
func asleep(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); State(pid, pid) != "S"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the first thread does not sleep")
		}
	}
}

func snapshot(t *testing.T, pid int, where []specs.Range[specs.Addr]) string {
	t.Helper()
	mem, err := OpenMem(pid, false)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	var all strings.Builder
	for _, r := range where {
		b, err := mem.Read(r.Lo, int(r.Size()))
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

// mapAndUnmap has one thread make some calls.
func mapAndUnmap(pid int, where []specs.Range[specs.Addr]) error {
	mem, err := OpenMem(pid, true)
	if err != nil {
		return err
	}
	defer mem.Close()
	g, err := Seize(pid, Options{Only: []int{pid}, Calls: true})
	if err != nil {
		return err
	}
	defer g.Detach()
	if err := g.Stop(); err != nil {
		return err
	}
	a, err := g.NewAgent(g.Threads()[0], mem, where, specs.Range[specs.Addr]{})
	if err != nil {
		return err
	}
	got, err := a.Syscall(unix.SYS_GETPID)
	if err == nil && got != uint64(pid) {
		err = fmt.Errorf("getpid is %d", got)
	}
	var p uint64
	if err == nil {
		p, err = a.Syscall(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, ^uint64(0), 0)
	}
	if err == nil {
		err = mem.Write(specs.Addr(p), []byte("written"))
	}
	if err == nil {
		_, err = a.Syscall(unix.SYS_MUNMAP, p, 4096)
	}
	if err == nil {
		if _, bad := a.Syscall(unix.SYS_MUNMAP, 1, 4096); bad != unix.EINVAL {
			err = fmt.Errorf("munmap of a bad address: %v", bad)
		}
	}
	if e := a.Close(); err == nil {
		err = e
	}
	return err
}

func TestGone(t *testing.T) {
	cmd := start(t, "sleep", "spin")
	err := Do(func() error {
		g, err := Seize(cmd.Process.Pid, Options{})
		if err != nil {
			return err
		}
		defer g.Detach()
		if err := g.Stop(); err != nil {
			return err
		}
		cmd.Process.Kill()
		time.Sleep(20 * time.Millisecond)
		g.Resume()
		return g.Stop()
	})
	if err != ErrGone {
		t.Errorf("a killed process: %v", err)
	}
}
