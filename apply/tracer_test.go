package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tracedCall is the entry or the exit of a system call by which a tool touches
// its target.
type tracedCall struct {
	phase, name string
	exit        bool
}

func (c tracedCall) String() string {
	if c.exit {
		return c.phase + ": exit of " + c.name
	}
	return c.phase + ": entry of " + c.name
}

// phases of a run, in order.
var phases = []string{"look", "stage", "hooks", "prepare", "seize", "stop", "write", "resume", "free"}

// moment is the n-th entry or exit, from 1 on, of all or of those in one phase. 0
// is never.
type moment struct {
	phase string
	n     int
}

// toolTrace is a run of a tool, all of whose threads are traced. It is made on
// one OS thread and used on no other.
type toolTrace struct {
	pid    int
	killAt moment
	calls  []tracedCall
	// uncounted are calls that may touch the target in a way that is not known.
	uncounted []string
	killed    bool
	status    unix.WaitStatus
	// From the failAt-th write to the target's memory on, 0 for never, one or all
	// of them fail with EIO.
	failAt, writes int
	failAll        bool
	failing        map[int]bool // threads in such a call
	failed         bool
	out            string

	inside  map[int]*tracedCall // by thread, while it is in a call of interest
	status4 map[int]uint64      // by thread, where its wait puts a status
	held    int                 // threads of the target that the tool has seized
	phase   string
	commit  bool // in a session that commits, not in one for system calls or hooks
	asked   bool // in this session a thread was interrupted
	sealed  bool // the first commit is over
}

// traceTool runs a program and kills it with SIGKILL at the killAt-th entry or
// exit of a call by which it touches its target.
func traceTool(t testing.TB, killAt moment, env ...string) *toolTrace {
	t.Helper()
	return traceToolAs(t, &toolTrace{killAt: killAt}, env...)
}

// traceToolAs is traceTool with what is to happen in tr.
func traceToolAs(t testing.TB, tr *toolTrace, env ...string) *toolTrace {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	tr.inside, tr.status4, tr.failing, tr.phase = map[int]*tracedCall{}, map[int]uint64{}, map[int]bool{}, "look"
	out, err := os.CreateTemp(t.TempDir(), "out")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: tracees belong to it
		done <- tr.run(exe, append(os.Environ(), env...), out)
	}()
	if err := <-done; err != nil {
		t.Fatalf("trace: %v", err)
	}
	if len(tr.uncounted) > 0 {
		t.Fatalf("calls that are not counted: %v", tr.uncounted)
	}
	text, _ := os.ReadFile(out.Name())
	if tr.out = string(text); !tr.killed && !tr.failed && (tr.status.ExitStatus() != 0 || len(text) > 0) {
		t.Fatalf("the tool ended with status %d: %s", tr.status.ExitStatus(), text)
	}
	return tr
}

func (tr *toolTrace) run(exe string, env []string, out *os.File) error {
	p, err := os.StartProcess(exe, []string{exe}, &os.ProcAttr{
		Dir: "/", Env: env, Files: []*os.File{nil, out, out}, Sys: &unix.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return err
	}
	tr.pid = p.Pid
	defer p.Release()
	const all = unix.WALL | 0x20000000 // __WNOTHREAD: children of other threads are other tests'
	var ws unix.WaitStatus
	if _, err := unix.Wait4(tr.pid, &ws, unix.WALL, nil); err != nil {
		return err
	}
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
		unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_EXITKILL
	if err := unix.PtraceSetOptions(tr.pid, options); err != nil {
		return err
	}
	_ = unix.PtraceSyscall(tr.pid, 0)
	for {
		tid, err := unix.Wait4(-1, &ws, all, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case ws.Exited() || ws.Signaled():
			if tid == tr.pid {
				tr.status = ws
				return nil
			}
		case ws.Stopped():
			// A thread that was killed meanwhile says ESRCH, and soon its end.
			_ = unix.PtraceSyscall(tid, tr.stop(tid, ws))
		}
	}
}

// stop handles a stop of the tool and returns the signal to go on with.
func (tr *toolTrace) stop(tid int, ws unix.WaitStatus) int {
	switch sig := ws.StopSignal(); {
	case sig == unix.SIGTRAP|0x80:
		tr.syscall(tid)
		return 0
	case sig == unix.SIGTRAP && ws>>16 != 0:
		if event := int(ws >> 16); event != unix.PTRACE_EVENT_CLONE {
			tr.uncounted = append(tr.uncounted, fmt.Sprint("event ", event))
		}
		return 0
	case sig == unix.SIGSTOP: // the first stop of a new thread
		return 0
	default:
		return int(sig)
	}
}

// syscallInfo is struct ptrace_syscall_info.
type syscallInfo struct {
	op   uint8
	_    [3]byte
	arch uint32
	_    [2]uint64 // instruction and stack pointer
	data [7]uint64 // number and arguments, or result
}

func (tr *toolTrace) syscall(tid int) {
	const getSyscallInfo, entry = 0x420e, 1
	var info syscallInfo
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, getSyscallInfo, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if e != 0 {
		return
	}
	if info.op != entry {
		if tr.failing[tid] {
			delete(tr.failing, tid)
			setResult(tid, unix.EIO)
		}
		if c := tr.inside[tid]; c != nil {
			delete(tr.inside, tid)
			tr.count(tracedCall{c.phase, c.name, true})
			tr.after(c.name, int64(info.data[0]), tr.status4[tid])
		}
		return
	}
	nr, args := info.data[0], info.data[1:]
	if name := tr.interesting(nr, args); name != "" {
		tr.before(name, args)
		tr.status4[tid] = args[1]
		c := &tracedCall{phase: tr.phase, name: name}
		tr.inside[tid] = c
		tr.count(*c)
		if name == "memory write" {
			tr.fail(tid)
		}
	} else if nr == unix.SYS_OPENAT && args[2]&unix.O_CREAT != 0 {
		tr.uncounted = append(tr.uncounted, "a file was created")
	} else if !harmless[nr] {
		tr.uncounted = append(tr.uncounted, fmt.Sprint("system call ", nr))
	}
}

// count counts an entry or exit, and kills the tool at the one that was asked
// for. A call at whose entry it is killed is not made.
func (tr *toolTrace) count(c tracedCall) {
	tr.calls = append(tr.calls, c)
	if at := &tr.killAt; at.phase == "" || at.phase == c.phase {
		at.n--
		if at.n != 0 {
			return
		}
		tr.killed = unix.Kill(tr.pid, unix.SIGKILL) == nil
	}
}

// fail leaves out a write that a thread is about to make, if it is to fail.
func (tr *toolTrace) fail(tid int) {
	if tr.writes++; tr.failAt == 0 || tr.writes != tr.failAt && !(tr.failAll && tr.writes > tr.failAt) {
		return
	}
	tr.failed, tr.failing[tid] = true, skipCall(tid)
}

var ptraceNames = map[uint64]string{
	unix.PTRACE_SEIZE: "SEIZE", unix.PTRACE_INTERRUPT: "INTERRUPT", unix.PTRACE_CONT: "CONT", unix.PTRACE_DETACH: "DETACH",
	unix.PTRACE_SYSCALL: "SYSCALL",
}

// interesting returns the name of a call by which the tool may touch its target
// or hears of it, else "".
func (tr *toolTrace) interesting(nr uint64, args []uint64) string {
	switch nr {
	case unix.SYS_PTRACE:
		if n := ptraceNames[args[0]]; n != "" {
			return "ptrace " + n
		}
		return fmt.Sprintf("ptrace %#x", args[0])
	case unix.SYS_WAIT4, unix.SYS_WAITID:
		return "wait"
	case unix.SYS_PROCESS_VM_READV:
		return "process_vm_readv"
	case unix.SYS_PROCESS_VM_WRITEV:
		return "process_vm_writev"
	case unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_SEND_SIGNAL, unix.SYS_PIDFD_GETFD:
		return "pidfd"
	case unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_READV, unix.SYS_PREADV, unix.SYS_PREADV2:
		if tr.isMemory(args[0]) {
			return "memory read"
		}
	case unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2:
		if tr.isMemory(args[0]) {
			return "memory write"
		}
	}
	return ""
}

// isMemory reports whether a descriptor of the tool is /proc/PID/mem.
func (tr *toolTrace) isMemory(fd uint64) bool {
	to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tr.pid, int32(fd)))
	return err == nil && strings.HasPrefix(to, "/proc/") && strings.HasSuffix(to, "/mem")
}

// before moves on to the phase that a call is in.
func (tr *toolTrace) before(name string, args []uint64) {
	first := name == "ptrace SEIZE" && tr.held == 0
	if first {
		tr.commit, tr.asked = args[3]&unix.PTRACE_O_TRACECLONE != 0, false
	}
	tr.asked = tr.asked || name == "ptrace INTERRUPT"
	switch {
	case tr.held == 1 && !tr.commit && !tr.asked && name == "memory write": // it lets them go
		tr.phase = "hooks"
	case tr.sealed && tr.held == 0:
		tr.phase = "free"
	case tr.sealed:
	case first:
		if tr.phase = "stage"; tr.commit {
			tr.phase = "seize"
		}
	case tr.held == 0 && (name == "memory write" || tr.phase == "stage" || tr.phase == "hooks"):
		tr.phase = "prepare"
	case tr.commit && name == "ptrace INTERRUPT":
		tr.phase = "stop"
	case tr.commit && name == "memory write":
		tr.phase = "write"
	case tr.commit && name == "ptrace DETACH":
		tr.phase = "resume"
	}
}

// after takes in what a call has done. status is where a wait has put one.
func (tr *toolTrace) after(name string, result int64, status uint64) {
	switch {
	case name == "wait" && result > 0 && tr.ended(status):
		tr.held--
	case name == "ptrace SEIZE" && result == 0:
		tr.held++
	case name == "ptrace DETACH" && result == 0:
		tr.held--
		tr.sealed = tr.sealed || tr.commit && tr.held == 0
	}
}

// ended reports whether a status in the tool's memory is that of a thread that has
// ended by itself.
func (tr *toolTrace) ended(status uint64) bool {
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", tr.pid))
	if err != nil {
		return false
	}
	defer mem.Close()
	var b [4]byte
	_, err = mem.ReadAt(b[:], int64(status))
	return err == nil && unix.WaitStatus(binary.NativeEndian.Uint32(b[:])).Exited()
}

// harmless are the calls of a Go program that do not touch another process.
var harmless = func() map[uint64]bool {
	all := make(map[uint64]bool)
	for _, nr := range []uint64{
		unix.SYS_READ, unix.SYS_WRITE, unix.SYS_PREAD64, unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_CLOSE, unix.SYS_LSEEK, unix.SYS_FSTAT,
		unix.SYS_STATX, unix.SYS_FCNTL, unix.SYS_FLOCK, unix.SYS_IOCTL, unix.SYS_GETDENTS64, unix.SYS_READLINKAT, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL,
		unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_SCHED_YIELD,
		unix.SYS_SCHED_GETAFFINITY, unix.SYS_MMAP, unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MPROTECT, unix.SYS_BRK, unix.SYS_CLONE, unix.SYS_CLONE3,
		unix.SYS_EXIT, unix.SYS_EXIT_GROUP, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
		unix.SYS_RESTART_SYSCALL, unix.SYS_TGKILL, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETPPID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID,
		unix.SYS_GETEGID, unix.SYS_PRCTL, unix.SYS_PRLIMIT64, unix.SYS_UNAME, unix.SYS_SET_TID_ADDRESS, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ,
		unix.SYS_GETRANDOM, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_SETTIME, unix.SYS_TIMER_DELETE, unix.SYS_SETITIMER, unix.SYS_FACCESSAT, unix.SYS_GETCWD,
	} {
		all[nr] = true
	}
	for _, nr := range harmlessHere {
		all[nr] = true
	}
	return all
}()

// perPhase counts calls by phase, and describes the result.
func perPhase(calls []tracedCall) (map[string]int, string) {
	n := map[string]int{}
	for _, c := range calls {
		n[c.phase]++
	}
	var text []string
	for _, p := range phases {
		text = append(text, fmt.Sprintf("%s %d", p, n[p]))
	}
	return n, strings.Join(text, ", ")
}

// TestTracerCounts: what the tracer sees of a tool is what it does: as many
// exits as entries, and no call after the one at which it kills.
func TestTracerCounts(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Fatal("struct ptrace_syscall_info is laid out for little endian")
	}
	r := start(t, matrixProgram(t))
	patch := encoded(t, matrixPatch(t, 1))
	run := traceTool(t, moment{}, toolEnv("quiet", r.pid, patch)...)
	exits := len(slices.DeleteFunc(slices.Clone(run.calls), func(c tracedCall) bool { return !c.exit }))
	if run.killed || 2*exits != len(run.calls) || exits == 0 {
		t.Errorf("%d calls, %d exits, killed %v", len(run.calls), exits, run.killed)
	}
	r.expect("all", matrixAnswers[1])
	revertAll(t, r.pid)
	run = traceTool(t, moment{n: 10}, toolEnv("quiet", r.pid, patch)...)
	if !run.killed || len(run.calls) != 10 || !run.status.Signaled() {
		t.Errorf("%d calls, killed %v, status %v", len(run.calls), run.killed, run.status)
	}
	r.expect("all", matrixAnswers[0])
}
