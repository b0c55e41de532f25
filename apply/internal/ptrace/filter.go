package ptrace

import (
	"cmp"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Call is a system call of which it is asked whether seccomp filters let it
// through.
type Call struct {
	Name   string
	Number uint64
	// Args are the first arguments, as far as they are known.
	Args []uint64
}

// DeniedError means that the seccomp filters of a thread do not let it make a
// call, or that this is not known.
type DeniedError struct {
	TID  int
	Call string // its name, or empty if the filters could not be read
	Why  string
}

func (e *DeniedError) Error() string {
	if e.Call == "" {
		return fmt.Sprintf("the seccomp filter of thread %d %s", e.TID, e.Why)
	}
	return fmt.Sprintf("the seccomp filter of thread %d %s %s", e.TID, e.Why, e.Call)
}

// Permitted reads the seccomp filters of a thread and returns nil if they let it
// make each of the calls, by whatever code. What a thread may, those may that it
// creates. Nothing is written, and no filter is suspended for it. held is how long the
// thread was stopped.
//
// Errors: [*DeniedError], [ErrGone], [ErrPermission], [*TracedError], [*StuckError].
func Permitted(pid, tid int, calls []Call) (held time.Duration, err error) {
	if !filtered(readStatus(pid, tid)) {
		return 0, nil
	}
	err = Do(func() error {
		g, err := Seize(pid, Options{Only: []int{tid}})
		if err != nil {
			return err
		}
		start := time.Now()
		defer func() { held = time.Since(start) }()
		defer g.Detach()
		if err := g.Stop(); err != nil {
			return err
		}
		if len(g.Threads()) == 0 {
			return fmt.Errorf("%w: thread %d has ended", ErrUnsuitable, tid)
		}
		return g.threads[0].Permitted(pid, calls)
	})
	return held, err
}

// Permitted is the function of this name for a thread of process pid that is
// stopped.
func (t *Thread) Permitted(pid int, calls []Call) error {
	tid := t.TID
	if len(calls) == 0 || !filtered(readStatus(pid, tid)) {
		return nil
	}
	filters, err := seccompFilters(tid)
	if err != nil {
		return &DeniedError{TID: tid, Why: fmt.Sprintf("cannot be read: %v", err)}
	}
	for i := range calls {
		for _, f := range filters {
			action, err := f.verdict(&calls[i])
			switch {
			case err != nil:
				return &DeniedError{tid, calls[i].Name, fmt.Sprintf("is not understood (%v) for", err)}
			case action != unix.SECCOMP_RET_ALLOW && action != unix.SECCOMP_RET_LOG:
				return &DeniedError{tid, calls[i].Name, cmp.Or(denials[action], "does not simply allow")}
			}
		}
	}
	return nil
}

// denials say what an action of seccomp(2) does to a call.
var denials = map[uint32]string{
	unix.SECCOMP_RET_KILL_PROCESS: "ends the process for", unix.SECCOMP_RET_KILL_THREAD: "ends the thread for", unix.SECCOMP_RET_ERRNO: "refuses",
}

// filter is a seccomp filter's program.
type filter []unix.SockFilter

// Bounds of what the kernel may tell of filters. Its own are 4096 instructions each
// (BPF_MAXINSNS), and 32768 in all of a thread's.
const (
	maxFilters      = 8 << 10
	maxInstructions = 4096
)

// seccompFilters returns the filters of a stopped thread. The
// kernel gives them to who may suspend them. Source: ptrace(2),
// PTRACE_SECCOMP_GET_FILTER.
func seccompFilters(tid int) ([]filter, error) {
	var all []filter
	for i := range uintptr(maxFilters) {
		n, err := requestInto(unix.PTRACE_SECCOMP_GET_FILTER, tid, i, nil)
		switch {
		case errors.Is(err, unix.ENOENT) && i > 0:
			return all, nil
		case err != nil:
			return nil, err
		case n <= 0 || n > maxInstructions:
			return nil, fmt.Errorf("a filter of %d instructions", n)
		}
		f := make(filter, n)
		if _, err := requestInto(unix.PTRACE_SECCOMP_GET_FILTER, tid, i, unsafe.Pointer(&f[0])); err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return nil, fmt.Errorf("more than %d filters", maxFilters)
}

// errUnknown means that a filter's answer depends on what is not known of a call.
var errUnknown = errors.New("it looks at where the call comes from, or at addresses")

// load returns the word of struct seccomp_data at an offset, of what is known.
// Source: linux/seccomp.h. Both architectures are little endian.
func (c *Call) load(offset uint32) (uint32, error) {
	const number, arch, args = 0, 4, 16
	i := int(offset-args) / 8
	switch {
	case offset%4 != 0 || offset >= callData:
		return 0, errors.New("a load from outside of the call's data")
	case offset == number:
		return uint32(c.Number), nil
	case offset == arch:
		return auditArch, nil
	case offset < args || i >= len(c.Args):
		return 0, errUnknown
	}
	return uint32(c.Args[i] >> (8 * (offset % 8))), nil
}

// callData is the size of struct seccomp_data in bytes.
const callData = 64

// verdict runs the filter for a call and returns the action without its data.
// Source: Documentation/networking/filter.rst, and seccomp_check_filter() for the
// instructions that the kernel takes. The virtual machine of golang.org/x/net/bpf does
// not serve: it takes packets, of which all bytes are known, in network byte order, and
// cannot say that an answer depends on what is not known.
func (f filter) verdict(c *Call) (uint32, error) {
	var a, x uint32
	var mem [16]uint32
	for pc := uint64(0); pc < uint64(len(f)); pc++ {
		in := &f[pc]
		operand := in.K
		if in.Code&unix.BPF_X != 0 {
			operand = x
		}
		var err error
		switch class := in.Code & 7; class {
		case unix.BPF_LD, unix.BPF_LDX:
			to := &a
			if class == unix.BPF_LDX {
				to = &x
			}
			*to, err = f.loaded(in, c, &mem)
		case unix.BPF_ST, unix.BPF_STX:
			from := a
			if class == unix.BPF_STX {
				from = x
			}
			if in.K >= uint32(len(mem)) {
				return 0, errors.New("a store outside of the filter's memory")
			}
			mem[in.K] = from
		case unix.BPF_ALU:
			a, err = compute(in.Code&0xf0, a, operand)
		case unix.BPF_JMP:
			pc += jump(in, a, operand)
		case unix.BPF_RET:
			if in.Code&0x18 == unix.BPF_A {
				return a & unix.SECCOMP_RET_ACTION_FULL, nil
			}
			return in.K & unix.SECCOMP_RET_ACTION_FULL, nil
		case unix.BPF_MISC:
			if in.Code&0xf8 == unix.BPF_TAX {
				x = a
			} else {
				a = x
			}
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, errors.New("it does not end")
}

// loaded is what a load instruction gives.
func (f filter) loaded(in *unix.SockFilter, c *Call, mem *[16]uint32) (uint32, error) {
	switch in.Code & 0xe0 {
	case unix.BPF_ABS:
		return c.load(in.K)
	case unix.BPF_IMM:
		return in.K, nil
	case unix.BPF_LEN:
		return callData, nil
	case unix.BPF_MEM:
		if in.K < uint32(len(mem)) {
			return mem[in.K], nil
		}
	}
	return 0, fmt.Errorf("instruction %#x", in.Code)
}

// compute is the operation of an arithmetic instruction.
func compute(op uint16, a, operand uint32) (uint32, error) {
	switch op {
	case unix.BPF_ADD:
		return a + operand, nil
	case unix.BPF_SUB:
		return a - operand, nil
	case unix.BPF_MUL:
		return a * operand, nil
	case unix.BPF_DIV:
		if operand != 0 {
			return a / operand, nil
		}
	case unix.BPF_OR:
		return a | operand, nil
	case unix.BPF_AND:
		return a & operand, nil
	case unix.BPF_XOR:
		return a ^ operand, nil
	case unix.BPF_LSH:
		return a << (operand & 31), nil
	case unix.BPF_RSH:
		return a >> (operand & 31), nil
	case unix.BPF_NEG:
		return -a, nil
	}
	return 0, fmt.Errorf("operation %#x by %d", op, operand)
}

// jump is how many instructions a jump leaves out.
func jump(in *unix.SockFilter, a, operand uint32) uint64 {
	taken := false
	switch in.Code & 0xf0 {
	case unix.BPF_JA:
		return uint64(in.K)
	case unix.BPF_JEQ:
		taken = a == operand
	case unix.BPF_JGT:
		taken = a > operand
	case unix.BPF_JGE:
		taken = a >= operand
	case unix.BPF_JSET:
		taken = a&operand != 0
	}
	if taken {
		return uint64(in.Jt)
	}
	return uint64(in.Jf)
}
