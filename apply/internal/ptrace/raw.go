package ptrace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Do runs f on an OS thread of its own and returns its result. All tracees of
// f belong to that thread, and only f may touch them. The thread ends with f,
// so that the kernel lets go whatever f did not.
func Do(f func() error) error {
	done := make(chan error)
	run := func() {
		// Sleeps of microseconds, not of 50 (the default slack).
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		done <- f()
	}
	go func() {
		// Never unlocked: the thread must not go back to the pool, since other
		// goroutines' children would be waited for together with tracees.
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			run()
			return
		}
		// The process's first thread does not end with its goroutine. While it is
		// held here, another one is taken.
		begun := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(begun)
			run()
		}()
		<-begun
		runtime.UnlockOSThread()
	}()
	return <-done
}

// request is ptrace(2) on thread tid.
func request(req, tid int, addr, data uintptr) error {
	_, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, data, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

// requestInto is ptrace(2) with a buffer as its last argument.
func requestInto(req, tid int, addr uintptr, data unsafe.Pointer) (int, error) {
	n, _, e := unix.RawSyscall6(unix.SYS_PTRACE, uintptr(req), uintptr(tid), addr, uintptr(data), 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

// poll is wait4(tid, __WALL|WNOHANG). It returns 0 when nothing is to be told.
func poll(tid int) (status unix.WaitStatus, got bool, err error) {
	var ws int32
	n, _, e := unix.RawSyscall6(unix.SYS_WAIT4, uintptr(tid), uintptr(unsafe.Pointer(&ws)), unix.WALL|unix.WNOHANG, 0, 0, 0)
	if e != 0 {
		return 0, false, e
	}
	return unix.WaitStatus(ws), n != 0, nil
}

// taskFile reads a small file of /proc/PID/task/TID, nil if there is none.
func taskFile(pid, tid int, name string) []byte {
	b, err := ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(tid) + "/" + name)
	if err != nil {
		return nil
	}
	return b
}

// File is an open file of /proc: with the system calls that a read takes, and no
// others. A look at all processes is made of little else.
type File struct {
	name string
	fd   int
}

// OpenFile opens a file for reading. Errors are those of [os.Open].
func OpenFile(name string) (File, error) {
	for {
		fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return File{name, fd}, nil
		case !errors.Is(err, unix.EINTR):
			return File{}, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// Close releases the descriptor.
func (f File) Close() error { return unix.Close(f.fd) }

// Read implements [io.Reader].
func (f File) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	for {
		n, err := unix.Read(f.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, &os.PathError{Op: "read", Path: f.name, Err: err}
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// ReadAnew reads the beginning of the file as it is now, with one read, and returns
// the number of bytes.
func (f File) ReadAnew(b []byte) (int, error) {
	for {
		n, err := unix.Pread(f.fd, b, 0)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// ReadFile is [os.ReadFile] for small files of /proc.
func ReadFile(name string) ([]byte, error) {
	f, err := OpenFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for b := make([]byte, 0, 2048); ; {
		if len(b) == cap(b) {
			b = slices.Grow(b, len(b))
		}
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			return b, nil
		} else if err != nil {
			return nil, err
		}
	}
}

// ReadStart reads a file of /proc with one read, which gives files that fit into
// b and one page whole, and returns the number of bytes.
func ReadStart(name string, b []byte) (int, error) {
	f, err := OpenFile(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Read(b)
}

// Comm returns the name of a thread, or "" if it is gone.
func Comm(pid, tid int) string {
	var b [256]byte
	n, _ := ReadStart(Folder(pid, tid)+"/comm", b[:])
	return string(bytes.TrimSuffix(b[:n], []byte("\n")))
}

// Folder returns where /proc tells of a thread of process pid. It is never another
// process's, though ids are used again: that of a thread of another one is not in it.
func Folder(pid, tid int) string {
	name := "/proc/" + strconv.Itoa(pid)
	if tid != pid { // the way by task/ is the longer one for the kernel too
		name += "/task/" + strconv.Itoa(tid)
	}
	return name
}

// State returns the state letter of a thread as proc_pid_stat(5) has it, "X"
// if it is gone.
func State(pid, tid int) string {
	// The name, in parentheses, may hold anything, also parentheses.
	b := taskFile(pid, tid, "stat")
	if i := bytes.LastIndexByte(b, ')'); i >= 0 && i+2 < len(b) {
		return string(b[i+2 : i+3])
	}
	return "X"
}

// statusField returns a numeric field of a thread's status file.
func statusField(pid, tid int, name string) (int, bool) {
	for line := range bytes.Lines(taskFile(pid, tid, "status")) {
		if rest, ok := bytes.CutPrefix(line, []byte(name+":")); ok {
			n, err := strconv.Atoi(string(bytes.TrimSpace(rest)))
			return n, err == nil
		}
	}
	return 0, false
}

// ShadowStacks reports whether a process keeps its return addresses on shadow
// stacks as well, where they can only come by call instructions.
func ShadowStacks(pid int) bool {
	for line := range bytes.Lines(taskFile(pid, pid, "status")) {
		if rest, ok := bytes.CutPrefix(line, []byte("x86_Thread_features:")); ok {
			return bytes.Contains(rest, []byte("shstk"))
		}
	}
	return false
}

// dead reports whether thread tid has ended or is ending.
func dead(pid, tid int) bool {
	switch State(pid, tid) {
	case "X", "x", "Z":
		return true
	}
	return false
}

// ending reports whether a thread of any process has ended, is ending, or was
// killed and will. Source: proc_pid_stat(5), flags; linux/sched.h, PF_EXITING;
// proc_pid_status(5), SigPnd: a fatal signal pends as SIGKILL for each thread.
func ending(tid int) bool {
	const flags, exiting = 6, 0x4 // flags is a field after the name
	stat := taskFile(tid, tid, "stat")
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= flags {
		return true // it is gone
	}
	if f, err := strconv.ParseUint(string(fields[flags]), 10, 32); err == nil && f&exiting != 0 {
		return true
	}
	text, _ := field(taskFile(tid, tid, "status"), "SigPnd")
	pending, _ := strconv.ParseUint(text, 16, 64)
	return pending&(1<<(unix.SIGKILL-1)) != 0
}

// Threads returns the thread ids of a process by rising id.
func Threads(pid int) ([]int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) || len(entries) == 0 && err == nil {
		return nil, ErrGone
	}
	if err != nil {
		return nil, err
	}
	tids := make([]int, 0, len(entries))
	for _, e := range entries {
		if tid, err := strconv.Atoi(e.Name()); err == nil {
			tids = append(tids, tid)
		}
	}
	slices.Sort(tids)
	return tids, nil
}
