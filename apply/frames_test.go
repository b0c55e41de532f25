package apply

import (
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// unwinding is the test program with an unwinder in its process.
func unwinding(t testing.TB) string {
	return compile(t, "unwinding", "-fPIE", "-pie", "-Wl,--no-as-needed", "-lgcc_s")
}

// chainOf reads the finders of a process as they are.
func chainOf(t testing.TB, pid int) *chain {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	u := p.findUnwinders()
	if len(u.slots) == 0 {
		testenv.Skip(t, "an unwinder that asks "+kpack.FindObject)
	}
	// A record that is no longer there would not be told.
	at := finder{Entry: 1}
	c := p.readChain(u, &transaction{ins: []*record{{recordBody: recordBody{Finder: at}}}})
	if len(c.slots) != len(u.slots) {
		t.Errorf("%d of %d GOT entries lead somewhere else", len(u.slots)-len(c.slots), len(u.slots))
	}
	return c
}

// TestFinders: each patch of the process is in the chain once, the newest in
// front, whatever comes and goes in between.
func TestFinders(t *testing.T) {
	bin := unwinding(t)
	r := start(t, bin)
	one, two := patchFor(t, bin, "one", 1, "answer"), patchFor(t, bin, "two", 1, "other")
	three := patchFor(t, bin, "two", 2, "other")
	expect := func(series ...specs.Series) {
		t.Helper()
		c := chainOf(t, r.pid)
		var got []specs.Series
		for _, e := range c.order {
			for _, rec := range c.p.records {
				if rec.Finder.Entry == e {
					got = append(got, rec.ID.Series)
				}
			}
		}
		if !slices.Equal(got, series) {
			t.Errorf("finders of %v, want %v", got, series)
		}
	}
	apply := func(p *kpack.Patch) {
		t.Helper()
		if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{p}, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	expect()
	apply(one)
	expect("one")
	apply(two)
	expect("two", "one")
	apply(three)
	expect("two", "one")
	if _, err := Revert(context.Background(), r.pid, []Selector{{Series: "one"}}, Options{}); err != nil {
		t.Fatal(err)
	}
	expect("two")
	apply(one)
	expect("one", "two")
	revertAll(t, r.pid)
	expect()
}

// TestNoUnwinder: a process without one is left alone.
func TestNoUnwinder(t *testing.T) {
	r := start(t, pie(t))
	if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, pie(t), "default", 1, "answer")}, Options{}); err != nil {
		t.Fatal(err)
	}
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	u := p.findUnwinders()
	if len(u.slots) != 0 || len(u.unread) != 0 || len(p.records) != 1 || p.told(p.records[0]) {
		t.Errorf("%+v", u)
	}
}

// TestUnwinderIsMissing: what throws is not patched where exceptions would not
// find the new code. A name in the dynamic string table is all that tells it.
func TestUnwinderIsMissing(t *testing.T) {
	bin := compile(t, "throws", "-fPIE", "-pie", "-Wl,-rpath,__cxa_throw")
	r := start(t, bin)
	before := r.snapshot()
	_, err := Apply(context.Background(), r.pid, []*kpack.Patch{patchFor(t, bin, "default", 1, "answer")}, Options{})
	if missing := (*NoUnwinderError)(nil); !errors.As(err, &missing) || missing.Object != bin {
		t.Errorf("error: %v", err)
	}
	before.same(t, r.snapshot())
}

// TestUnhookKeeps: what a chain that cannot be read may lead to is not freed,
// but what never was in one.
func TestUnhookKeeps(t *testing.T) {
	r := start(t, pie(t))
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	told := &record{recordState: recordState{state: retired}, recordBody: recordBody{Finder: finder{Entry: 16, Next: 8}}}
	plain := &record{recordState: recordState{state: retired}}
	unused := &record{recordState: recordState{state: staged}, recordBody: told.recordBody}
	res := &Result{}
	free, err := p.unhook(context.Background(), []*record{told, plain, unused}, res)
	if err != nil || !slices.Equal(free, []*record{plain, unused}) || len(res.Kept) != 1 {
		t.Errorf("frees %d of 3, keeps %d: %v", len(free), len(res.Kept), err)
	}
}

// TestUnreadable: an object whose names cannot be read does no harm to patches
// of others, unless they throw.
func TestUnreadable(t *testing.T) {
	bin := unwinding(t)
	p, err := Open(start(t, bin).pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if u := p.findUnwinders(); len(u.slots) == 0 {
		testenv.Skip(t, "an unwinder that asks "+kpack.FindObject)
	}
	odd := *p.executable()
	odd.Path = "/odd"
	odd.image, err = elfobj.OpenImage(brokenNames{p.mem}, odd.Base)
	if err != nil {
		t.Fatal(err)
	}
	p.objects = append(p.objects, &odd)
	p.unwinders = nil
	f := kpack.Finder{Entry: 16, Next: 8}
	s := &step{patch: patchFor(t, bin, "default", 1, "answer"), object: p.executable()}
	if got, err := s.finderOf(p, f); err != nil || got != (finder{16, 8}) || len(p.unwinders.unread) == 0 {
		t.Errorf("finder %v, error %v", got, err)
	}
	s.patch.Symbols = append(s.patch.Symbols, kpack.Symbol{Name: "__gxx_personality_v0"})
	missing := (*NoUnwinderError)(nil)
	if _, err := s.finderOf(p, f); !errors.As(err, &missing) || !strings.Contains(err.Error(), "/odd") {
		t.Errorf("error %v", err)
	}
}

// brokenNames is memory in which all strings of dynamic symbols lie outside.
type brokenNames struct{ io.ReaderAt }

func (b brokenNames) ReadAt(to []byte, at int64) (int, error) {
	n, err := b.ReaderAt.ReadAt(to, at)
	for i := 0; i+16 <= n; i += 8 {
		if binary.LittleEndian.Uint64(to[i:]) == uint64(elf.DT_STRSZ) && binary.LittleEndian.Uint64(to[i+8:]) < 1<<20 {
			binary.LittleEndian.PutUint64(to[i+8:], 1<<40)
		}
	}
	return n, err
}

// TestNoFinder: where the architecture has no finder, what throws is refused
// whatever its patch brings.
func TestNoFinder(t *testing.T) {
	bin := compile(t, "throws", "-fPIE", "-pie", "-Wl,-rpath,__cxa_throw")
	p, err := Open(start(t, bin).pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s := &step{patch: &kpack.Patch{Arch: &arch.Arch{Name: "riscv64"}}, object: p.executable()}
	missing := (*NoUnwinderError)(nil)
	if _, err := s.finderOf(p, kpack.Finder{}); !errors.As(err, &missing) {
		t.Errorf("error %v", err)
	}
	s.patch.Arch = testArch
	if f, err := s.finderOf(p, kpack.Finder{}); err != nil || f != (finder{}) {
		t.Errorf("finder %v of a patch without call frame information: %v", f, err)
	}
}

// TestUnused: of a commit that failed halfway only memory to which no entry
// leads is freed at once; the next run sees to the rest.
func TestUnused(t *testing.T) {
	plan := &Plan{}
	for s := staged; s <= retired; s++ {
		plan.steps = append(plan.steps, &step{record: &record{recordState: recordState{state: s}}})
	}
	if free := plan.unused(); len(free) != 1 || free[0].state != staged || len(plan.steps) != int(retired) {
		t.Errorf("%d of %d are unused", len(free), len(plan.steps))
	}
}

// TestUnwinderLater: a process that had no unwinder when it was patched loads one
// to cancel threads, inside of new code.
func TestUnwinderLater(t *testing.T) {
	bin, _ := tortureProgram(t)
	r := start(t, bin, "calls")
	for range 2 {
		for level := range specs.Level(2) {
			if _, err := Apply(context.Background(), r.pid, []*kpack.Patch{tortureLevel(t, bin, level+1)}, Options{Wait: 20 * time.Second}); err != nil {
				t.Fatal(err)
			}
			r.expect("cancel", "cancelled")
		}
		if _, err := Revert(context.Background(), r.pid, nil, Options{Wait: 20 * time.Second}); err != nil {
			t.Fatal(err)
		}
		r.expect("cancel", "cancelled")
	}
	freeKept(t, r, "wipe")
	r.expect("rest", "11 136 2 20 2")
}

// catcherC is a library in C++ that catches what goes through a function of C.
const catcherC = `
static int throws(void) { throw 7; }
extern "C" int caught(int (*through)(int (*)(void))) { try { return through(throws); } catch (int e) { return e; } }
`

// TestExceptionLater: exceptions of a library that is loaded after a patch go
// through its code from the next commit on.
func TestExceptionLater(t *testing.T) {
	bin, _ := tortureProgram(t)
	lib := filepath.Join(workdir, "catcher.so")
	if err := os.WriteFile(lib+".cc", []byte(catcherC), 0o644); err != nil {
		t.Fatal(err)
	}
	command(t, "g++", "-O1", "-fPIC", "-shared", "-o", lib, lib+".cc")
	t.Setenv("LIBRARY", lib)
	r := start(t, bin)
	one, two := patchFor(t, bin, "one", 1, "through60"), patchFor(t, bin, "two", 1, "leaf")
	applyTo(t, r.pid, one)
	if len(chainNow(t, r.pid)) != 0 {
		t.Error("there was no unwinder")
	}
	r.expect("load", "loaded")
	applyTo(t, r.pid, two)
	for range 3 {
		r.expect("catch", "7")
	}
	if n := len(chainNow(t, r.pid)); n != 2 {
		t.Errorf("%d finders", n)
	}
	revertAll(t, r.pid)
	freeKept(t, r, "wipe")
	r.expect("catch", "7")
	if len(chainNow(t, r.pid)) != 0 {
		t.Error("finders are left")
	}
}

// chainNow returns the entries of the finders of a process, which may have no
// unwinder.
func chainNow(t *testing.T, pid int) []specs.Addr {
	t.Helper()
	p, err := Open(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := p.readChain(p.findUnwinders(), &transaction{})
	if c == nil {
		return nil
	}
	return c.order
}
