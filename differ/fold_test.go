package differ_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// foldTexts are what compilers make of units that have jump tables, exceptions,
// cold parts, static variables and strings.
var foldTexts = sync.OnceValues(func() (texts []foldText, err error) {
	dir, err := os.MkdirTemp("", "fold")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	source := filepath.Join(dir, "unit.cc")
	if err := os.WriteFile(source, []byte(foldUnit), 0o600); err != nil {
		return nil, err
	}
	for _, run := range [][]string{
		{"gcc", "-O2", "testdata/mutate.c"}, {"gcc", "-O1", "-g", "testdata/mutate.c"}, {"clang", "-O2", "testdata/mutate.c"},
		{"aarch64-linux-gnu-gcc", "-O2", "testdata/mutate.c"}, {"g++", "-O2", source}, {"clang++", "-O2", source},
	} {
		out, err := exec.Command(run[0], append(run[1:], "-w", "-S", "-o", "-")...).Output()
		if err != nil {
			return nil, err
		}
		t := foldText{strings.Join(run, " "), arch.X86_64, string(out)}
		if strings.HasPrefix(run[0], "aarch64") {
			t.arch, t.text = arch.AArch64, strings.ReplaceAll(t.text, "jmp 1b", "b 1b")
		}
		texts = append(texts, t)
	}
	return texts, nil
})

type foldText struct {
	name string
	arch *arch.Arch
	text string
}

const foldUnit = `#include <functional>
#include <string>
#include <stdexcept>
#include <vector>
static int total;
struct V { virtual ~V(); virtual int get(int); };
V::~V() { total++; }
int V::get(int x) { try { if (x > 5) throw std::runtime_error("five"); return total += x; } catch (std::exception &e) { return e.what()[0]; } }
template<class T> T twice(T x) { std::vector<T> v; for (T i = 0; i < x; i++) v.push_back(i * x); return v.empty() ? T() : v.back(); }
int pick(int x, V *v) {
	static int count;
	switch (x) { case 0: return v->get(1); case 1: return twice(x); case 2: count++; return count; case 3: return (int)twice(2L);
	case 4: return std::string("four").size() + x; case 5: delete v; return 1; case 6: return twice((short)x); }
	auto add = [&](int y) { return total + y + x; };
	return add(3);
}
static std::function<int(int)> kept;
__attribute__((noinline)) int each(int n, const std::function<int(int)> &f) { int s = 0; for (int i = 0; i < n; i++) s += f(i); return s; }
int lambdas(int n, int k) {
	kept = [n](int x) { return x * n + total; };
	return each(n, [&](int x) { return x + k; }) + each(4, [&](int x) { return x + k; }) +
		each(k, [=](int x) { if (x > n) throw std::runtime_error("far"); return x - k; });
}
inline int shared(int n) { return each(n, [n](int x) { return x ^ n; }) + each(n, [=](int x) { return each(x, [n](int y) { return y | n; }); }); }
int (*pointer)(int) = shared;
`

// edit changes lines of a text as instructions says: losses, repetitions,
// lines that change places, other digits, lines of another place.
func edit(text string, instructions []byte) string {
	lines := strings.SplitAfter(text, "\n")
	for ; len(instructions) >= 5; instructions = instructions[5:] {
		i := (int(instructions[1])<<8 | int(instructions[2])) % len(lines)
		k := (i + int(instructions[3])%64) % len(lines)
		switch instructions[0] % 7 {
		case 0:
			lines[i] = ""
		case 1:
			lines[i] += lines[i]
		case 2:
			lines[i], lines[k] = lines[k], lines[i]
		case 3:
			lines[i] = digit(lines[i], instructions[4])
		case 4:
			lines[i] = lines[k] + lines[i]
		case 5: // a label for another one
			if from, to := label(lines[i]), label(lines[k]); from != "" && to != "" {
				lines[i] = strings.Replace(lines[i], from, to, 1)
			}
		case 6:
			at := int(instructions[4]) % (len(lines[i]) + 1)
			lines[i] = lines[i][:at] + string(" \t#;:=\"'.L5@%$,()\n"[instructions[3]%18]) + lines[i][at:]
		}
	}
	return strings.Join(lines, "")
}

func label(line string) string {
	at := strings.Index(line, ".L")
	if at < 0 {
		return ""
	}
	return line[at : len(line)-len(strings.TrimLeft(line[at:], ".L_ABCDEFGHIJKMNOPQSTUVWXYZtmpfuncbegd0123456789R"))]
}

func digit(line string, n byte) string {
	at := strings.LastIndexAny(line, "0123456789")
	if at < 0 {
		return line
	}
	return line[:at] + string('0'+n%10) + line[at+1:]
}

// checkFold compares what folding says of two texts with what all statements
// say.
func checkFold(t *testing.T, in foldText, a, b []byte) {
	t.Helper()
	original := edit(in.text, a)
	_, _ = differ.DiffBoth(t, differ.Input{Unit: in.name, Arch: in.arch, Original: []byte(original), Patched: []byte(edit(original, b))})
}

// TestFoldMutations changes real assembly in both builds and in one.
func TestFoldMutations(t *testing.T) {
	testenv.Needs(t, "gcc", "g++", "clang", "clang++", "aarch64-linux-gnu-gcc")
	texts, err := foldTexts()
	if err != nil {
		t.Fatal(err)
	}
	rounds := 60
	if testenv.Long() {
		rounds = 5000
	}
	for i, in := range texts {
		t.Run(strings.ReplaceAll(in.name, " ", ""), func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(uint64(i), 7))
			for range rounds {
				a, b := edits(random, 2), edits(random, 4)
				if checkFold(t, in, a, b); t.Failed() {
					t.Fatalf("edits %v, then %v", a, b)
				}
			}
		})
	}
}

func edits(random *rand.Rand, n int) []byte {
	b := make([]byte, 5*random.IntN(n))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// FuzzFold is TestFoldMutations with edits of the fuzzer's choice.
func FuzzFold(f *testing.F) {
	texts, err := foldTexts()
	if err != nil {
		f.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 30 {
		f.Add(byte(i), edits(random, 2), edits(random, 4))
	}
	f.Fuzz(func(t *testing.T, which byte, a, b []byte) {
		checkFold(t, texts[int(which)%len(texts)], a[:min(len(a), 50)], b[:min(len(b), 50)])
	})
}
