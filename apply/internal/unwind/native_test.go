package unwind

import (
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// builds are the ways in which the call chains are compiled.
var builds = map[string][]string{
	"O0":               {"-O0"},
	"O2":               {"-O2"},
	"frame-pointer":    {"-O2", "-fno-omit-frame-pointer"},
	"no-frame-pointer": {"-O0", "-fomit-frame-pointer"},
	"no-pie":           {"-O2", "-no-pie", "-fno-pie"},
	"static":           {"-O2", "-static"},
	"static-pie":       {"-O1", "-static-pie"},
	"now":              {"-O3", "-Wl,-z,now", "-fcf-protection=none"},
	"one-segment":      {"-Os", "-Wl,-z,noseparate-code", "-Wl,-z,lazy"},
}

// outer are the functions that every chain ends with.
var outer = []string{"c", "b", "a", "main", "_start"}

func TestWalkChains(t *testing.T) {
	a := hostArch(t)
	handled := []string{"block", "handler", "<signal>"}
	chains := map[string][]string{
		"spin":            {"spin"},
		"block":           {"block"},
		"signal":          append(slices.Clip(handled), "interrupted"),
		"signal altstack": append(slices.Clip(handled), "interrupted"),
		"crash":           append(slices.Clip(handled), "crashing"),
		"deep":            slices.Concat([]string{"block"}, slices.Repeat([]string{"deep"}, 5001), []string{"recursive"}),
	}
	for name, flags := range builds {
		t.Run(name, func(t *testing.T) {
			path := compile(t, a, "chains.c", flags...)
			for mode, inner := range chains {
				t.Run(mode, func(t *testing.T) {
					p := start(t, path, mode)
					p.seize(p.pid)
					frames, err := p.walker().Walk(p.registers(p.pid), nil)
					if err != nil {
						t.Error(err)
					}
					want := slices.Concat(inner, outer)
					if got := p.chain(frames); !slices.Equal(got, want) {
						t.Errorf("got  %v\nwant %v", slices.Compact(got), slices.Compact(want))
					}
				})
			}
		})
	}
}

// chain is names without functions that may come and go: those that the
// innermost ones call, and a static program's C library.
func (p *tracee) chain(frames []Frame) []string {
	known := append([]string{"spin", "block", "clockwork", "work", "handler", "<signal>", "interrupted", "crashing", "deep", "recursive", "jitted", "thread"}, outer...)
	return slices.DeleteFunc(p.names(frames), func(s string) bool { return !slices.Contains(known, s) })
}

// everyInstruction are the builds that are stepped through.
var everyInstruction = map[string][]string{
	"O0": {"-O0", "-Wl,-z,lazy"}, "O2": {"-O2", "-Wl,-z,lazy"}, "ibt-plt": {"-O2", "-Wl,-z,lazy", "-Wl,-z,ibtplt"},
	"frame-pointer": {"-O3", "-fno-omit-frame-pointer"}, "static": {"-O2", "-static"},
}

// TestWalkEveryInstruction steps through prologues, epilogues, PLT entries,
// the dynamic linker's lazy binding and the C library. The frames of the outer
// functions stay where they are all the time.
func TestWalkEveryInstruction(t *testing.T) {
	a := hostArch(t)
	count := 8000
	if testing.Short() {
		count = 1000
	}
	for name, flags := range everyInstruction {
		if a.Name != "x86_64" && name == "ibt-plt" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			p := start(t, compile(t, a, "chains.c", flags...), "work")
			p.seize(p.pid)
			if _, err := io.WriteString(p.in, "\n"); err != nil {
				t.Fatal(err)
			}
			s := &steps{p: p, w: p.walker(), static: name == "static", failed: map[string]int{}}
			for n := 0; n < count; p.step(p.pid) {
				if s.look() || s.binding > 4*count {
					n++
				}
			}
			for err, n := range s.failed {
				t.Errorf("%s: %d times", err, n)
			}
			t.Logf("%d times in the PLT, %d times in lazy binding", s.inPLT, s.binding)
			if s.inPLT == 0 && (!s.static || a == arch.AArch64) {
				t.Error("never in the PLT")
			}
			if a == arch.AArch64 && s.binding > 0 == s.static {
				t.Errorf("%d times in lazy binding", s.binding)
			}
		})
	}
}

// steps is what was found at each instruction.
type steps struct {
	p      *tracee
	w      *Walker
	static bool
	frames []Frame
	outer  []Frame // that stay
	failed map[string]int
	inPLT  int
	// binding counts instructions under glibc's function for lazy binding, whose
	// CFI on aarch64 is wrong.
	binding int
}

// look walks the stack. It returns false where that is not to be had.
func (s *steps) look() bool {
	p := s.p
	p.t.Helper()
	var err error
	s.frames, err = s.w.Walk(p.registers(p.pid), s.frames[:0])
	plt := p.section(s.frames[0].PC) == ".plt"
	switch {
	case p.arch == arch.AArch64 && !s.static && errors.Is(err, errAboveCFA):
		s.binding++
		return false
	case p.arch == arch.X86_64 && s.static && plt && len(s.frames) == 1 && errors.Is(err, ErrNoCFI):
		// ld makes no CFI for the PLT of static programs.
		return true
	case err != nil:
		s.failed[err.Error()]++
		return true
	case plt:
		s.inPLT++
	}
	got := p.outerFrames(s.frames)
	if s.outer == nil {
		s.outer = got
	}
	if !slices.Equal(got, s.outer) {
		p.t.Fatalf("at %v: outer frames %v: want %v", s.frames[0].PC, got, s.outer)
	}
	return true
}

// section returns the name of the program's section at a.
func (p *tracee) section(a specs.Addr) string {
	v := p.bias.VAddr(a)
	for i := range p.file.Sections {
		if s := &p.file.Sections[i]; s.Addr != 0 && v >= s.Addr && v < s.Addr+specs.VAddr(s.Size) {
			return s.Name
		}
	}
	return ""
}

// outerFrames returns the frames from function work on.
func (p *tracee) outerFrames(frames []Frame) []Frame {
	p.t.Helper()
	i := slices.IndexFunc(frames, func(f Frame) bool { return p.name(f.At) == "c" })
	if i < 1 || p.name(frames[i-1].At) != "work" {
		p.t.Fatalf("frames %v %v: want work, c", frames, p.names(frames))
	}
	return slices.Clone(frames[i:])
}

// TestWalkVDSO: arm64's has no call frame information since Linux 5.8, so that no
// walk gets out of it, and others do.
func TestWalkVDSO(t *testing.T) {
	a := hostArch(t)
	p := start(t, compile(t, a, "chains.c", "-O2"), "clock")
	if a == arch.X86_64 && p.vdsoTable == nil {
		t.Fatal("the vDSO has no call frame information")
	}
	p.seize(p.pid)
	w := p.walker()
	inside, outside := 0, 0
	for range 3000 {
		frames, err := w.Walk(p.registers(p.pid), nil)
		in := p.vdso.Contains(frames[0].PC)
		switch {
		case in && p.vdsoTable == nil:
			if len(frames) != 1 || !errors.Is(err, ErrNoCFI) && !errors.Is(err, ErrNoObject) {
				t.Fatalf("in the vDSO: %d frames, %v: want %v", len(frames), err, ErrNoCFI)
			}
		case err != nil:
			t.Fatal(err)
		default:
			if got, want := p.chain(frames), slices.Concat([]string{"clockwork"}, outer); !slices.Equal(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
		if in {
			inside++
		} else {
			outside++
		}
		p.step(p.pid)
	}
	if inside == 0 || outside == 0 {
		t.Errorf("%d times in the vDSO, %d times elsewhere", inside, outside)
	}
}

func TestWalkThread(t *testing.T) {
	a := hostArch(t)
	for _, flags := range [][]string{{"-O2"}, {"-O1", "-static"}} {
		p := start(t, compile(t, a, "chains.c", append(flags, "-pthread")...), "thread block")
		w := p.walker()
		for _, tid := range p.threads() {
			p.seize(tid)
			frames, err := w.Walk(p.registers(tid), nil)
			// clone3 has no CFI between its system call and its return.
			for tries := 0; errors.Is(err, ErrNoCFI) && tries < 100; tries++ {
				p.goOn(tid)
				frames, err = w.Walk(p.registers(tid), nil)
			}
			if err != nil {
				t.Error(err)
			}
			want := []string{"main", "_start"}
			if tid != p.pid {
				want = []string{"block", "c", "b", "a", "thread"}
			}
			if got := p.chain(frames); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	}
}

func (p *tracee) threads() []int {
	p.t.Helper()
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(p.pid) + "/task")
	if err != nil {
		p.t.Fatal(err)
	}
	var tids []int
	for _, e := range entries {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			p.t.Fatal(err)
		}
		tids = append(tids, tid)
	}
	if len(tids) < 2 {
		p.t.Fatalf("threads %v: want two", tids)
	}
	return tids
}

// TestWalkJIT: a frame without call frame information hides its callers, and
// the walk must say so.
func TestWalkJIT(t *testing.T) {
	p := start(t, compile(t, hostArch(t), "chains.c", "-O2"), "jit")
	p.seize(p.pid)
	frames, err := p.walker().Walk(p.registers(p.pid), nil)
	var incomplete *IncompleteError
	// The code may lie in a hole between an object's segments.
	if !errors.As(err, &incomplete) || !errors.Is(err, ErrNoObject) && !errors.Is(err, ErrNoCFI) {
		t.Fatalf("error %v: want %v", err, ErrNoObject)
	}
	if last := frames[len(frames)-1]; last.PC != incomplete.PC || p.name(last.At) != "" {
		t.Errorf("ended at %v, last frame %v: want the JIT's code", incomplete.PC, last)
	}
	if got := p.chain(frames); !slices.Equal(got, []string{"block"}) {
		t.Errorf("got %v, want block", got)
	}
}

// TestWalkWithoutCFI: the same for a program that has none at all.
func TestWalkWithoutCFI(t *testing.T) {
	p := start(t, compile(t, hostArch(t), "chains.c", "-O2", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables"), "block")
	p.seize(p.pid)
	_, err := p.walker().Walk(p.registers(p.pid), nil)
	if !errors.Is(err, ErrNoCFI) {
		t.Fatalf("error %v: want %v", err, ErrNoCFI)
	}
}

func BenchmarkWalk(b *testing.B) {
	path := compile(b, hostArch(b), "chains.c", "-O2")
	for _, mode := range []string{"block", "signal", "deep"} {
		b.Run(mode, func(b *testing.B) {
			p := start(b, path, mode)
			p.seize(p.pid)
			w, regs := p.walker(), p.registers(p.pid)
			var frames []Frame
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if frames, err = w.Walk(regs, frames[:0]); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(frames)), "ns/frame")
		})
	}
}

// BenchmarkWalkCold is the first walk, which parses all CFI that it meets.
func BenchmarkWalkCold(b *testing.B) {
	p := start(b, compile(b, hostArch(b), "chains.c", "-O2"), "signal")
	p.seize(p.pid)
	regs := p.registers(p.pid)
	var frames []Frame
	for b.Loop() {
		var err error
		if frames, err = p.walker().Walk(regs, frames[:0]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(frames)), "ns/frame")
}

// BenchmarkLoad reads the call frame information of the C library.
func BenchmarkLoad(b *testing.B) {
	p := start(b, compile(b, hostArch(b), "chains.c", "-O2"), "block")
	var libc specs.Addr
	most := uint64(0)
	for _, o := range p.objects {
		if o.Range.Size() > most {
			most, libc = o.Range.Size(), o.Range.Lo
		}
	}
	for b.Loop() {
		p.load(libc)
	}
}
