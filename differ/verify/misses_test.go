package verify_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/differ/verify"
	"github.com/fother/fother/specs/testenv"
)

// planted finds the changes in a program of testdata: their number, and the
// first name that the oracle has to give.
var planted = regexp.MustCompile(`(?m)/[/*] ([0-9]+) ([^ *\n:]+)`)

// kinds of changes, by what has them.
var kinds = []struct {
	source, cc, flags string
	only              []int // nil for all; all if FOTHER_LONG is 1
}{
	{source: "threads.c", flags: "-O2 -fPIC -shared"},
	{source: "threads.c", flags: "-O2 -fPIC -shared -mtls-dialect=gnu2", only: []int{1, 2, 9, 11}},
	{source: "catches.cc", cc: "g++", flags: "-O2"},
	{source: "catches.cc", cc: "g++", flags: "-O0 -fno-pie -no-pie", only: []int{1, 4, 5, 8, 9}},
	{source: "catches.cc", cc: "clang++", flags: "-O2", only: []int{3, 6, 9, 12}},
	{source: "catches.cc", cc: "clang++", flags: "-O0 -fno-pie -no-pie", only: []int{1, 5, 8}},
	{source: "nested.c", flags: "-O0 -fno-pie -no-pie"},
	{source: "nested.c", flags: "-O2"},
	{source: "strings.c", flags: "-O2"},
	{source: "strings.c", cc: "clang", flags: "-O2 -fno-pie -no-pie", only: []int{1, 3, 4, 6}},
	{source: "program.c", cc: "clang", flags: "-O2", only: []int{1, 4, 5, 12, 13, 18, 25, 30}},
	{source: "program.c", cc: "clang", flags: "-O0 -fno-pie -no-pie", only: []int{3, 10, 14, 19, 26}},
}

// TestMisses plants a change that the patch misses: the patch is one of another
// change. Then it plants a patch whose code is of another build. Both are
// found, and nothing is in the patch of the change itself.
func TestMisses(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.source+" "+cmp.Or(kind.cc, "gcc")+" "+kind.flags, func(t *testing.T) {
			t.Parallel()
			testenv.Needs(t, cmp.Or(kind.cc, "gcc"))
			source, err := filepath.Abs(filepath.Join("testdata", kind.source))
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			var plants []plant
			for _, m := range planted.FindAllStringSubmatch(string(text), -1) {
				if n, _ := strconv.Atoi(m[1]); kind.only == nil || testenv.Long() || slices.Contains(kind.only, n) {
					plants = append(plants, plantOf(t, source, kind.cc, kind.flags, n, m[2]))
				}
			}
			misses(t, plants)
		})
	}
}

// plant is a change, and the patch of it unless that is refused.
type plant struct {
	n    int
	name string // of what changes, as far as it is the same with all compilers, or names with "|" between
	*made
}

// in reports whether findings name what changes. clang runs the constructor
// while it compiles.
func (p *plant) in(findings string) bool {
	if p.name == ".init_array" && strings.Contains(findings, "shared_value") {
		return true
	}
	return slices.ContainsFunc(strings.Split(p.name, "|"), func(n string) bool { return strings.Contains(findings, n) })
}

func plantOf(t *testing.T, source, cc, flags string, n int, name string) plant {
	t.Helper()
	k := &kitchen{TB: t, dir: t.TempDir(), flags: strings.Fields(flags), cc: cc}
	patched := filepath.Join(k.dir, "patched"+filepath.Ext(source))
	text := fmt.Sprintf("#define PLANT %d\n#line 1 \"%s\"\n#include \"%s\"\n", n, source, source)
	if err := os.WriteFile(patched, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := k.make([][2]string{{source, patched}})
	if err != nil {
		refused(t, err)
		m.patch = nil
	}
	return plant{n, name, m}
}

// misses holds each patch against the builds of the others.
func misses(t *testing.T, plants []plant) {
	for i, p := range plants {
		if p.patch != nil {
			p.agree(t)
		}
		for j := range plants {
			other := plants[(i+j)%len(plants)]
			if other.patch == nil || other.name == p.name {
				continue
			}
			found := verify.Check(p.report, other.covered())
			if got := findings(found.Missing); !p.in(got) {
				t.Errorf("%d: %s is not in the patch of %d, which was not found, but\n%s", p.n, p.name, other.n, got)
			}
			if p.patch == nil {
				break
			}
			wrong, err := verify.CheckPatch(other.report, linked(t, p.patch))
			if err != nil {
				t.Fatal(err)
			}
			if got := findings(wrong); !p.in(got) {
				t.Errorf("%d: the patch has another %s than the build of %d, which was not found, but\n%s", p.n, p.name, other.n, got)
			}
			break
		}
	}
}

// TestThreadEntries: a wrong word in any of the patch's own GOT entries for
// thread-local storage is found.
func TestThreadEntries(t *testing.T) {
	source, err := filepath.Abs("testdata/threads.c")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		n     int
		name  string
		flags string
		kind  verify.ThreadEntry
	}{
		{9, "new_import", "", verify.ThreadPair},
		{10, "new_far", "", verify.ThreadOffset},
		{11, "new_general", "", verify.ThreadPair},
		{11, "new_general", " -mtls-dialect=gnu2", verify.ThreadDescriptor},
	} {
		t.Run(c.name+c.flags, func(t *testing.T) {
			t.Parallel()
			p := plantOf(t, source, "", "-O2 -fPIC -shared"+c.flags, c.n, c.name)
			if p.patch == nil {
				t.Fatal("no patch")
			}
			p.agree(t)
			whole := linked(t, p.patch)
			if len(whole.Threads.Entries) != 1 {
				t.Fatalf("entries %v, want one", whole.Threads.Entries)
			}
			for at, kind := range whole.Threads.Entries {
				if kind != c.kind {
					t.Errorf("the entry is of kind %d, want %d", kind, c.kind)
				}
				for word := range min(uint64(kind)+1, 2) {
					changed := linked(t, p.patch)
					flip(t, changed, uint64(at)+8*word)
					found, err := verify.CheckPatch(p.report, changed)
					if err != nil || !strings.Contains(findings(found), c.name) {
						t.Errorf("word %d: not found, but %v, %v", word, found, err)
					}
				}
			}
		})
	}
}

// flip changes a bit of the word at an address.
func flip(t *testing.T, p verify.Patch, at uint64) {
	t.Helper()
	for _, m := range p.Memory {
		if off := at - uint64(m.Addr); off < uint64(len(m.Data)) {
			m.Data[off] ^= 0x10
			return
		}
	}
	t.Fatalf("nothing is at %#x", at)
}
