package unwind

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// hostArch returns the architecture of the processes that run here.
func hostArch(t testing.TB) *arch.Arch {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	for _, a := range arch.All {
		if a.Name == unix.ByteSliceToString(u.Machine[:]) {
			return a
		}
	}
	testenv.Skip(t, "no supported architecture")
	return nil
}

// compile builds a C file of testdata for a, and returns the output's path.
func compile(t testing.TB, a *arch.Arch, source string, flags ...string) string {
	t.Helper()
	cc, err := exec.LookPath(a.Tuple + "-gcc")
	if err != nil {
		testenv.Skip(t, a.Tuple+"-gcc is not installed")
	}
	out := filepath.Join(t.TempDir(), "program")
	args := append([]string{"-o", out, filepath.Join("testdata", source)}, flags...)
	if b, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, b)
	}
	return out
}

// tracee is a child of the test that is seized.
type tracee struct {
	t       testing.TB
	arch    *arch.Arch
	pid     int
	in      io.Writer
	mem     *os.File
	file    *elfobj.File
	symbols []elfobj.Symbol
	known   map[specs.Addr]string // what name found
	bias    specs.Bias
	vdso    specs.Range[specs.Addr]
	objects []*Object
	// vdsoTable is the vDSO's, nil if it has none.
	vdsoTable *Object
	seized    []int // threads but the first
}

// start runs path in a mode of chains.c until it is ready, and seizes it. The
// test is bound to its thread from here on.
func start(t testing.TB, path, mode string) *tracee {
	t.Helper()
	runtime.LockOSThread() // until the end of the test's goroutine
	cmd := exec.Command(path, mode)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &tracee{t: t, arch: hostArch(t), pid: cmd.Process.Pid, in: in}
	t.Cleanup(func() {
		cmd.Process.Kill()
		for _, tid := range p.seized { // the leader is not reaped before them
			unix.Wait4(tid, nil, unix.WALL, nil)
		}
		cmd.Wait()
		in.Close()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	p.open(path)
	return p
}

func (p *tracee) open(path string) {
	p.t.Helper()
	var err error
	if p.mem, err = os.Open("/proc/" + strconv.Itoa(p.pid) + "/mem"); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { p.mem.Close() })
	if p.file, err = elfobj.Open(path); err != nil {
		p.t.Fatal(err)
	}
	if p.symbols, err = p.file.Symbols(); err != nil {
		p.t.Fatal(err)
	}
	maps, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/maps")
	if err != nil {
		p.t.Fatal(err)
	}
	var object string
	var in specs.Range[specs.Addr]
	for line := range strings.Lines(string(maps)) {
		f := strings.Fields(line)
		lo, _, _ := strings.Cut(f[0], "-")
		base, err := strconv.ParseUint(lo, 16, 64)
		if err != nil {
			p.t.Fatal(err)
		}
		if len(f) < 6 || f[2] != "00000000" || f[5][0] == '[' && f[5] != "[vdso]" {
			continue
		}
		if f[5] == object && in.Contains(specs.Addr(base)) { // large pages: data begin in the file's first one too
			continue
		}
		img, o := p.load(specs.Addr(base))
		if img == nil {
			continue
		}
		object, in = f[5], img.Range
		if o != nil {
			p.objects = append(p.objects, o)
		}
		switch f[5] {
		case path:
			p.bias = img.Bias
		case "[vdso]":
			p.vdso, p.vdsoTable = img.Range, o
		}
	}
}

// load opens the object at base; nil if there is none.
func (p *tracee) load(base specs.Addr) (*elfobj.Image, *Object) {
	p.t.Helper()
	img, err := elfobj.OpenImage(p.mem, base)
	if errors.Is(err, elfobj.ErrNotELF) || errors.Is(err, unix.EIO) {
		return nil, nil
	}
	if err != nil {
		p.t.Fatal(err)
	}
	o, err := Load(p.mem, img)
	if err != nil && !errors.Is(err, elfobj.ErrNoEHFrame) { // arm64's vDSO
		p.t.Fatal(err)
	}
	return img, o
}

func (p *tracee) find(a specs.Addr) *Object {
	for _, o := range p.objects {
		if o.Range.Contains(a) {
			return o
		}
	}
	return nil
}

func (p *tracee) walker() *Walker {
	p.t.Helper()
	w, err := NewWalker(p.arch, p.mem, p.find)
	if err != nil {
		p.t.Fatal(err)
	}
	return w
}

// seize stops thread tid.
func (p *tracee) seize(tid int) {
	p.t.Helper()
	if err := unix.PtraceSeize(tid); err != nil {
		p.t.Fatal("seize: ", err)
	}
	if tid != p.pid {
		p.seized = append(p.seized, tid)
	}
	p.interrupt(tid)
}

func (p *tracee) interrupt(tid int) {
	p.t.Helper()
	if err := unix.PtraceInterrupt(tid); err != nil {
		p.t.Fatal("interrupt: ", err)
	}
	p.wait(tid)
}

func (p *tracee) wait(tid int) {
	p.t.Helper()
	var ws unix.WaitStatus
	if _, err := unix.Wait4(tid, &ws, unix.WALL, nil); err != nil || !ws.Stopped() {
		p.t.Fatalf("wait: status %#x, %v", ws, err)
	}
}

// step executes one instruction.
func (p *tracee) step(tid int) {
	p.t.Helper()
	if err := unix.PtraceSingleStep(tid); err != nil {
		p.t.Fatal("single step: ", err)
	}
	p.wait(tid)
}

// goOn lets thread tid run for a moment.
func (p *tracee) goOn(tid int) {
	p.t.Helper()
	if err := unix.PtraceCont(tid, 0); err != nil {
		p.t.Fatal("continue: ", err)
	}
	time.Sleep(time.Millisecond)
	p.interrupt(tid)
}

func (p *tracee) registers(tid int) *Registers {
	p.t.Helper()
	const ntPRStatus, ntARMPACMask = 1, 0x406
	set, err := regset(tid, ntPRStatus)
	if err != nil {
		p.t.Fatal("registers: ", err)
	}
	r, err := FromPRStatus(p.arch, set)
	if err != nil {
		p.t.Fatal(err)
	}
	if mask, err := regset(tid, ntARMPACMask); p.arch == arch.AArch64 && err == nil {
		r.PACMask = le.Uint64(mask[8:]) // insn_mask, after data_mask
	}
	return &r
}

func regset(tid, note int) ([]byte, error) {
	b := make([]byte, 512)
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GETREGSET, uintptr(tid), uintptr(note), uintptr(unsafe.Pointer(&iov)), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return b[:iov.Len], nil
}

// names returns the names of the program's functions among frames, "<signal>"
// for signal frames; frames of other objects are left out.
func (p *tracee) names(frames []Frame) []string {
	var names []string
	for _, f := range frames {
		if f.Signal {
			names = append(names, "<signal>")
		} else if n := p.name(f.At); n != "" {
			names = append(names, n)
		}
	}
	return names
}

func (p *tracee) name(a specs.Addr) string {
	if n, ok := p.known[a]; ok {
		return n
	}
	n := ""
	v := uint64(p.bias.VAddr(a))
	for _, s := range p.symbols {
		if _, ok := s.InSection(); ok && s.Value <= v && v < s.Value+s.Size {
			n = s.Name
			break
		}
	}
	if p.known == nil {
		p.known = make(map[specs.Addr]string)
	}
	p.known[a] = n
	return n
}
