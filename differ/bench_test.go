package differ_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// BenchmarkDiff measures a unit in which one function near the top gains a
// branch, so that all later labels are renumbered. Bytes are both inputs. The
// unit is made up; SQLITE3_C names the amalgamation to measure instead. That of
// g++ is always made up, of lambdas for the most part.
func BenchmarkDiff(b *testing.B) {
	for _, compiler := range []string{"gcc", "clang", "g++"} {
		b.Run(compiler, func(b *testing.B) { benchmarkDiff(b, compiler) })
	}
}

func benchmarkDiff(b *testing.B, compiler string) {
	dir := b.TempDir()
	unit := bigUnit
	if compiler == "g++" {
		unit = lambdaUnit
	}
	original, patched := unit(b)
	in := differ.Input{Unit: "big.c", Arch: arch.X86_64}
	in.Original = compileText(b, dir, compiler, "a", original)
	in.Patched = compileText(b, dir, compiler, "b", patched)
	size := len(in.Original) + len(in.Patched)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	peak := peakHeap(func() { _, _ = differ.Diff(in) })
	for b.Loop() {
		set, err := differ.Diff(in)
		if err != nil {
			b.Fatal(err)
		}
		if n := bytes.Count(set.Assembly, []byte("@function")); n < 1 || n > 2 { // a compiler may inline it
			b.Fatalf("%d functions carried", n)
		}
	}
	b.ReportMetric(float64(peak)/float64(size), "peak/input")
}

// peakHeap returns how many bytes of memory f has in use at most, by samples,
// while garbage is collected often.
func peakHeap(f func()) uint64 {
	defer debug.SetGCPercent(debug.SetGCPercent(5))
	runtime.GC()
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	before, most := sample[0].Value.Uint64(), uint64(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	for tick := time.NewTicker(time.Millisecond); ; {
		select {
		case <-done:
			tick.Stop()
			return most - min(most, before)
		case <-tick.C:
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64())
		}
	}
}

func compileText(b *testing.B, dir, compiler, name, text string) []byte {
	b.Helper()
	testenv.Needs(b, compiler)
	source, out := filepath.Join(dir, name+".c"), filepath.Join(dir, name+".s")
	if compiler == "g++" {
		source += "c"
	}
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	if msg, err := exec.Command(compiler, "-O2", "-w", "-S", "-o", out, source).CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, msg)
	}
	s, err := os.ReadFile(out)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// bigUnit returns the sources of the two builds.
func bigUnit(b *testing.B) (original, patched string) {
	b.Helper()
	if name := os.Getenv("SQLITE3_C"); name != "" {
		text, err := os.ReadFile(name)
		if err != nil {
			b.Fatal(err)
		}
		at := strings.LastIndex(string(text), "SQLITE_API int sqlite3_status64(") // behind the declaration
		if at < 0 {
			b.Fatalf("%s is not sqlite3's amalgamation", name)
		}
		args, body, _ := strings.Cut(string(text[at:]), "){")
		return string(text), string(text[:at]) + args + "){ if( op==12345 ) return 7; " + body
	}
	var s strings.Builder
	s.WriteString("#include <stdio.h>\n#include <string.h>\nstatic int total;\n")
	for i := range 600 {
		fmt.Fprintf(&s, `
int f%d(int x, const char *s) {
	static int count; static const int table[] = {%d, 2, 3, 4};
	if (x > %d) { printf("%%d many %d\n", x); count++; }
	for (int i = 0; s[i]; i++) {
		switch (s[i] - x) {
		case 0: total += table[i & 3]; break; case 1: count += i; break; case 2: puts(s + i); break;
		case 3: total ^= strlen(s); break; case 4: return count; case 5: x++; putchar(x); break; }
	}
	return x * %d + count + total; }
`, i, i, i, i, i+3)
	}
	original = s.String()
	return original, strings.Replace(original, "if (x > 3) {", "if (x > 3) { if (s[0] == 'q') return 5;", 1)
}

// lambdaUnit is bigUnit for C++.
func lambdaUnit(*testing.B) (original, patched string) {
	var s strings.Builder
	s.WriteString("#include <algorithm>\n#include <functional>\n#include <map>\n#include <string>\n#include <vector>\n")
	for i := range 60 {
		fmt.Fprintf(&s, `
struct T%[1]d { std::vector<int> v; std::map<std::string, int> m; std::function<int(int)> f; int run(int x); };
__attribute__((noinline)) int T%[1]d::run(int x) {
	std::sort(v.begin(), v.end(), [x](int a, int b) { return a * x < b + %[1]d; });
	f = [this, x](int y) { return v.size() + x * y + %[1]d; };
	auto add = [&](const std::string &s) { m[s] += x; return m.size(); };
	std::for_each(v.begin(), v.end(), [&](int k) { add(std::to_string(k) + "k%[1]d"); });
	return f(x) + std::count_if(v.begin(), v.end(), [&](int k) { return k > x; });
}
`, i)
	}
	original = s.String()
	return original, strings.Replace(original, "T3::run(int x) {", "T3::run(int x) { if (x == 12345) return 7;", 1)
}
