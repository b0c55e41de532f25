package unwind

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// registerNames are readelf's names of the registers that CFI is about.
var registerNames = map[*arch.Arch][]string{
	arch.X86_64: {"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "ra"},
	arch.AArch64: {"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16",
		"x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "ra", "sp"},
}

// TestRowsLikeReadelf compares the row of every location in real programs and
// libraries of both architectures with what readelf(1) makes of it.
func TestRowsLikeReadelf(t *testing.T) {
	for _, a := range arch.All {
		t.Run(a.Name, func(t *testing.T) {
			t.Parallel()
			for _, flags := range [][]string{{"-O0"}, {"-O2"}, {"-O2", "-fno-omit-frame-pointer"}} {
				compareReadelf(t, compile(t, a, "chains.c", flags...))
			}
			compareReadelf(t, libc(t, a))
		})
	}
	t.Run("pac-ret", func(t *testing.T) {
		path := compile(t, arch.AArch64, "chains.c", "-O2", "-mbranch-protection=standard")
		compareReadelf(t, path)
		if n := signedRows(t, path); n == 0 {
			t.Error("no row has a signed return address")
		}
	})
}

// libc returns the path of a's C library.
func libc(t *testing.T, a *arch.Arch) string {
	t.Helper()
	out, err := exec.Command(a.Tuple+"-gcc", "-print-file-name=libc.so.6").Output()
	if err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSpace(string(out))
	if _, err := os.Stat(path); err != nil {
		testenv.Skip(t, err.Error())
	}
	return path
}

// fromFile returns the CFI of a file as if it were loaded where it is linked.
func fromFile(t testing.TB, path string) (*elfobj.File, *Object) {
	t.Helper()
	f, err := elfobj.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	eh, err := f.EHFrame()
	if err != nil {
		t.Fatal(err)
	}
	r := specs.Range[specs.Addr]{Lo: specs.Addr(f.Image().Lo), Hi: specs.Addr(f.Image().Hi)}
	o, err := New(f.Arch, r, Section{specs.Addr(eh.HdrAddr), eh.Hdr}, Section{specs.Addr(eh.Addr), eh.Data})
	if err != nil {
		t.Fatal(err)
	}
	return f, o
}

var (
	fdeLine = regexp.MustCompile(` FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)`)
	// inBrackets is the name in "r9 (r9)".
	inBrackets = regexp.MustCompile(` \([a-z0-9]+\)`)
	rowLine    = regexp.MustCompile(`^[0-9a-f]{16} `)
)

func compareReadelf(t *testing.T, path string) {
	t.Helper()
	f, o := fromFile(t, path)
	w, err := NewWalker(f.Arch, words(0), func(specs.Addr) *Object { return o })
	if err != nil {
		t.Fatal(err)
	}
	// Its exit status is 1 where it only looked for separate debug files.
	out, err := exec.Command("readelf", "--debug-dump=frames-interp", path).Output()
	if len(out) == 0 {
		t.Fatal(err)
	}
	var columns []string
	rows, inFDE, bad, refused := 0, false, 0, 0
	for line := range strings.Lines(inBrackets.ReplaceAllString(string(out), "")) {
		fields := strings.Fields(line)
		switch {
		case strings.Contains(line, " CIE "):
			inFDE = false
		case fdeLine.MatchString(line):
			inFDE = true
		case len(fields) > 1 && fields[0] == "LOC":
			columns = fields[1:]
		case inFDE && rowLine.MatchString(line):
			loc, err := strconv.ParseUint(fields[0], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			rows++
			err = compareRow(w, loc, columns, fields[1:])
			if errors.Is(err, errAboveCFA) && f.Arch == arch.AArch64 {
				refused++ // longjmp's and setcontext's, which find it in what they are given
			} else if err != nil && bad < 10 {
				bad++
				t.Errorf("%s: %#x: %v", path, loc, err)
			}
		}
	}
	if rows < 20 || refused > rows/100 {
		t.Errorf("%s: %d rows compared, %d refused", path, rows, refused)
	}
}

// compareRow compares the rules at loc with readelf's fields.
func compareRow(w *Walker, loc uint64, columns, fields []string) error {
	r, err := w.rulesAt(loc)
	if err != nil {
		return err
	}
	names := namesOf(w)
	for i, want := range fields {
		var got string
		if columns[i] == "CFA" {
			got = fmt.Sprintf("%s%+d", names[r.cfaReg], r.cfaOff)
			if r.cfaExpr != nil {
				got = "exp"
			}
		} else if n := slices.Index(names, columns[i]); n >= 0 {
			got = describe(ruleOf(r, n))
		} else {
			continue // a vector register
		}
		if got != want {
			return fmt.Errorf("%s is %s: want %s", columns[i], got, want)
		}
	}
	return nil
}

func namesOf(w *Walker) []string {
	for a, abi := range abis {
		if abi == w.abi {
			return registerNames[a]
		}
	}
	return nil
}

func ruleOf(r *rules, n int) rule {
	if n == int(r.raColumn) {
		return r.ra
	}
	for _, o := range r.others {
		if int(o.reg) == n {
			return o.rule
		}
	}
	return rule{}
}

// describe writes r as readelf does.
func describe(r rule) string {
	switch r.kind {
	case sameValue:
		return "s"
	case offset:
		return fmt.Sprintf("c%+d", r.off)
	case valOffset:
		return fmt.Sprintf("v%+d", r.off)
	case register:
		return fmt.Sprintf("r%d", r.from)
	case expression:
		return "exp"
	case valExpression:
		return "vexp"
	}
	return "u"
}

// signedRows counts the function entries and exits of path at which the return
// address is signed.
func signedRows(t *testing.T, path string) int {
	t.Helper()
	f, o := fromFile(t, path)
	w, err := NewWalker(f.Arch, words(0), func(specs.Addr) *Object { return o })
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, s := range syms {
		for at := s.Value; s.Name == "many" && at < s.Value+s.Size; at += 4 {
			if r, err := w.rulesAt(at); err == nil && r.raSigned {
				n++
			}
		}
	}
	return n
}
