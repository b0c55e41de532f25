package apply

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs/testenv"
)

// TestSymbolFile has gdb read what is written for it: it names a new function
// in which a thread sleeps, and finds its caller.
func TestSymbolFile(t *testing.T) {
	testenv.Needs(t, "gdb")
	r := start(t, pie(t), "busy")
	patch := patchFor(t, pie(t), "default", 1, "busy3")
	if _, err := Apply(t.Context(), r.pid, []*kpack.Patch{patch}, Options{Wait: 20 * time.Second}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	p, err := Open(r.pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	data, err := p.SymbolFile()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "symbols")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	symbols, err := f.Symbols()
	if want := p.Symbols()[0]; err != nil || len(symbols) != 1 || symbols[0].Name != want.Name || symbols[0].Value != uint64(want.Range.Lo) || symbols[0].Size != want.Range.Size() {
		t.Errorf("symbols %+v, %v: want %+v", symbols, err, want)
	}
	out, err := exec.Command("gdb", "-nx", "-batch", "-p", strconv.Itoa(r.pid), "-ex", "add-symbol-file "+file, "-ex", "thread apply all bt").CombinedOutput()
	if err != nil || !regexp.MustCompile(`in pause_a_little \(.*\n#\d+ +0x[0-9a-f]+ in busy\S*kpatch\S* \(.*\n#\d+ +0x[0-9a-f]+ in run \(`).Match(out) {
		t.Errorf("gdb: %v\n%s", err, out)
	}
}

// TestSymbols: without patches there are none, of several a file needs a
// selector.
func TestSymbols(t *testing.T) {
	r := start(t, pie(t))
	open := func() *Process {
		p, err := Open(r.pid)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Close)
		return p
	}
	if p := open(); len(p.Symbols()) != 0 {
		t.Errorf("symbols: %+v", p.Symbols())
	} else if _, err := p.SymbolFile(); err != ErrNotApplied {
		t.Errorf("file: %v", err)
	}
	applyTo(t, r.pid, patchFor(t, pie(t), "default", 1, "answer"))
	applyTo(t, r.pid, patchFor(t, pie(t), "more", 1, "other"))
	p := open()
	if s := p.Symbols(); len(s) != 2 || s[0].Name != "answer.kpatch" || s[1].Name != "other.kpatch" || s[1].Range.Size() == 0 {
		t.Errorf("symbols: %+v", s)
	}
	if _, err := p.SymbolFile(); err != errSeveral {
		t.Errorf("file: %v", err)
	}
	if _, err := p.SymbolFile(Selector{Series: "more"}); err != nil {
		t.Errorf("file: %v", err)
	}
}

// TestFramesBound: what a process says of the size of its call frame information
// is bounded before memory is taken for it.
func TestFramesBound(t *testing.T) {
	r := &record{recordBody: recordBody{Base: 0x10000, Size: 1 << 30}, recordState: recordState{state: applied}}
	r.Frames.Size = maxFrames
	if err := r.check(r.Base); err != nil {
		t.Errorf("the most: %v", err)
	}
	r.Frames.Size++
	if err := r.check(r.Base); err == nil {
		t.Error("one byte more is accepted")
	}
}
