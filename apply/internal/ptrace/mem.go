package ptrace

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// Mem is the memory of a process, by /proc/PID/mem. What is written through it
// goes to read-only and to executable mappings too, whose pages become private
// copies (FOLL_FORCE), and keeps the instruction cache coherent.
//
// That is by construction: no emulator shows that it is missing. On aarch64 the kernel writes
// by copy_to_user_page (mm/memory.c, __access_remote_vm; arch/arm64/mm/flush.c), which, for a
// mapping that may be executed, cleans the data cache and invalidates the instruction caches of
// all processors to the point of unification. What is left is what each processor has fetched
// already. A context synchronization event discards that, and returning from an exception is
// one (Arm ARM, "Concurrent modification and execution of instructions"; Linux sets EOS in
// SCTLR_EL1): new code is reached only after a commit, for which all threads of the process were
// stopped. On x86-64 caches are coherent, and IRET serializes (SDM, volume 3, "Handling Self-
// and Cross-Modifying Code").
//
// A Mem refers to the memory that the process had when it was opened: after an
// execve it reads nothing instead of the new program's.
type Mem struct {
	pid int
	fd  int
	// headless is set if pid has no memory: it was opened by another thread.
	headless bool
}

// OpenMem opens the memory of process pid. Reading alone is possible where
// writable is false.
func OpenMem(pid int, writable bool) (*Mem, error) {
	flags := unix.O_RDONLY
	if writable {
		flags = unix.O_RDWR
	}
	return openMem(pid, pid, flags)
}

// OpenStandIn opens the memory of process pid, whose first thread has ended, by
// another of its threads, which may end then.
func OpenStandIn(pid, tid int) (*Mem, error) { return openMem(pid, tid, unix.O_RDONLY) }

func openMem(pid, tid, flags int) (*Mem, error) {
	name := Folder(pid, tid) + "/mem"
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, ErrPermission
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ESRCH):
		return nil, ErrGone
	case err != nil:
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &Mem{pid: pid, fd: fd, headless: tid != pid}, nil
}

// Close releases the descriptor.
func (m *Mem) Close() error { return unix.Close(m.fd) }

// ReadAt reads from the run-time address off. It implements [io.ReaderAt]; an
// address that is not mapped is an error, io.EOF after some bytes.
func (m *Mem) ReadAt(b []byte, off int64) (int, error) {
	done := 0
	for done < len(b) {
		n, err := unix.Pread(m.fd, b[done:], off+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case n > 0:
			done += n
			continue
		case done > 0:
			return done, io.EOF
		case err == nil, errors.Is(err, unix.ESRCH):
			return 0, fmt.Errorf("read memory at %#x: %w", off, ErrGone)
		default:
			return 0, fmt.Errorf("read memory at %#x: %w", off, err)
		}
	}
	return done, nil
}

// Read returns the n bytes at a.
func (m *Mem) Read(a specs.Addr, n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := m.ReadAt(b, int64(a)); err != nil {
		return nil, err
	}
	return b, nil
}

// Write stores b at a. Within one page it is one copy by the kernel, made on
// the calling thread.
//
// Errors: [ErrGone], [ErrWriteForbidden].
func (m *Mem) Write(a specs.Addr, b []byte) error {
	for done := 0; done < len(b); {
		n, err := unix.Pwrite(m.fd, b[done:], int64(a)+int64(done))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case n > 0:
			done += n
			continue
		case err == nil, errors.Is(err, unix.ESRCH):
			return fmt.Errorf("write memory at %v: %w", a, ErrGone)
		case errors.Is(err, unix.EIO) && m.forbidden(a+specs.Addr(done)):
			return fmt.Errorf("write memory at %v: %w", a, ErrWriteForbidden)
		default:
			return fmt.Errorf("write memory at %v: %w", a, err)
		}
	}
	return nil
}

// forbidden reports whether memory that could not be written is there: then it
// is the kernel that does not want it.
func (m *Mem) forbidden(a specs.Addr) bool {
	var b [1]byte
	_, err := unix.Pread(m.fd, b[:], int64(a))
	return err == nil
}

// maxVecs is the kernel's UIO_MAXIOV.
const maxVecs = 1024

// Span is memory of the process and where it is to be read to.
type Span struct {
	Addr specs.Addr
	Buf  []byte
	N    int // bytes read, set by ReadSpans
}

// ReadSpans reads many pieces with few system calls (process_vm_readv). A span
// that cannot be read to its end is short, which N tells; it is no error.
func (m *Mem) ReadSpans(spans []Span) error {
	return NewReader(m, min(len(spans), maxVecs)).ReadSpans(spans)
}

// ReadSpans is [Mem.ReadSpans] for a process whose memory is not open.
//
// Errors: [ErrGone], [ErrPermission].
func ReadSpans(pid int, spans []Span) error { return (&Mem{pid: pid, fd: -1}).ReadSpans(spans) }

// Reader is [Mem.ReadSpans] with vectors that are kept, for reads inside a stop.
type Reader struct {
	m      *Mem
	local  []unix.Iovec
	remote []unix.RemoteIovec
}

// NewReader returns a reader with room for n spans at once; more take more
// system calls.
func NewReader(m *Mem, n int) *Reader {
	n = min(max(n, 1), maxVecs)
	return &Reader{m, make([]unix.Iovec, 0, n), make([]unix.RemoteIovec, 0, n)}
}

// ReadSpans is that of Mem.
func (r *Reader) ReadSpans(spans []Span) error {
	if r.m.headless {
		return r.m.readEach(spans)
	}
	for i := 0; i < len(spans); {
		local, remote := r.local[:0], r.remote[:0]
		for j := i; j < len(spans) && len(local) < cap(r.local); j++ {
			if len(spans[j].Buf) == 0 {
				local = append(local, unix.Iovec{})
			} else {
				local = append(local, unix.Iovec{Base: unsafe.SliceData(spans[j].Buf), Len: uint64(len(spans[j].Buf))})
			}
			remote = append(remote, unix.RemoteIovec{Base: uintptr(spans[j].Addr), Len: len(spans[j].Buf)})
		}
		n, err := unix.ProcessVMReadv(r.m.pid, local, remote, 0)
		if errors.Is(err, unix.ESRCH) {
			return ErrGone
		}
		if errors.Is(err, unix.EPERM) {
			return ErrPermission
		}
		i = account(spans, i, i+len(local), max(n, 0))
	}
	return nil
}

// readEach is ReadSpans without process_vm_readv, which takes the id of a thread that
// has not ended, and would take that of one in another process.
func (m *Mem) readEach(spans []Span) error {
	for i := range spans {
		s := &spans[i]
		var err error
		if s.N, err = m.ReadAt(s.Buf, int64(s.Addr)); errors.Is(err, ErrGone) {
			return err
		}
	}
	return nil
}

// account spreads n read bytes over spans[i:end] and returns the index of the
// first span that was not tried: the read stops at the first fault.
func account(spans []Span, i, end, n int) int {
	for ; i < end; i++ {
		spans[i].N = min(n, len(spans[i].Buf))
		n -= spans[i].N
		if spans[i].N < len(spans[i].Buf) {
			return i + 1
		}
	}
	return i
}
