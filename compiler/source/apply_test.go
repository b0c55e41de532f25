package source

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs/testenv"
)

func write(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t testing.TB, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

const numbers = "1\n2\n3\n4\n5\n6\n7\n8\n9\n"

func TestApply(t *testing.T) {
	tests := map[string]struct {
		patch string
		want  map[string]string // "" is a file that is not there
	}{
		"plain": {"--- a/n.txt\t2020-01-01\n+++ b/n.txt\t2020-01-02\n@@ -2,3 +2,3 @@\n 2\n-3\n+three\n 4\n",
			map[string]string{"n.txt": strings.Replace(numbers, "3", "three", 1)}},
		"no blanks": {"--- a/tabs\n+++ b/tabs\n@@ -1,3 +1,3 @@\n\tx\n\n-y\n+z\n", map[string]string{"tabs": "\tx\n\nz\n"}},
		"spaces for the tab": {"--- a/n.txt     2016-02-02 18:05:48.880037651 +0300\n+++ b/n.txt 2016-02-02 18:10:00\n@@ -1 +1 @@\n-1\n+one\n",
			map[string]string{"n.txt": strings.Replace(numbers, "1", "one", 1)}},
		"backup name": {"--- x/n.txt\n+++ x/n.txt.new\n@@ -1 +1 @@\n-1\n+one\n",
			map[string]string{"n.txt": strings.Replace(numbers, "1", "one", 1)}},
		"moved": {"--- a/n.txt\n+++ b/n.txt\n@@ -5,2 +5,2 @@\n 2\n-3\n+three\n@@ -9 +9 @@\n-7\n+seven\n",
			map[string]string{"n.txt": "1\n2\nthree\n4\n5\n6\nseven\n8\n9\n"}},
		"no newline": {"--- a/n.txt\n+++ b/n.txt\n@@ -8,2 +8,2 @@\n 8\n-9\n+nine\n\\ No newline at end of file\n",
			map[string]string{"n.txt": strings.Replace(numbers, "9\n", "nine", 1)}},
		"new": {"diff --git a/sub/new b/sub/new\nnew file mode 100755\nindex 000..123\n--- /dev/null\n+++ b/sub/new\n@@ -0,0 +1,2 @@\n+a\n+b\n",
			map[string]string{"sub/new": "a\nb\n"}},
		"delete": {"diff --git a/d b/d\ndeleted file mode 100644\n--- a/d\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n",
			map[string]string{"d": ""}},
		"new by its time": {"diff -urN a/sub/new b/sub/new\n--- a/sub/new\t1970-01-01 00:00:00.000000000 +0000\n+++ b/sub/new\t2020-01-02 10:00:00.5 +0000\n@@ -0,0 +1 @@\n+a\n",
			map[string]string{"sub/new": "a\n"}},
		"new by its local time": {"--- a/new\t1969-12-31 19:00:00.000000000 -0500\n+++ b/new\t2020-01-02 10:00:00 -0500\n@@ -0,0 +1 @@\n+a\n",
			map[string]string{"new": "a\n"}},
		"deleted by its time": {"--- a/d\t2020-01-02 10:00:00.5 +0100\n+++ b/d\t1970-01-01 01:00:00.000000000 +0100\n@@ -1 +0,0 @@\n-gone\n",
			map[string]string{"d": ""}},
		"deleted, spaces for the tab": {"--- a/d   2020-01-02 10:00:00\n+++ b/d   1970-01-01 00:00:00\n@@ -1 +0,0 @@\n-gone\n",
			map[string]string{"d": ""}},
		"old, but there": {"--- a/n.txt\t1970-01-01 00:00:00 +0000\n+++ b/n.txt\t1970-01-01 00:00:00 +0000\n@@ -1 +1 @@\n-1\n+one\n",
			map[string]string{"n.txt": strings.Replace(numbers, "1", "one", 1)}},
		"rename": {"diff --git a/d b/e\nsimilarity index 90%\nrename from d\nrename to e\n--- a/d\n+++ b/e\n@@ -1 +1,2 @@\n gone\n+more\n",
			map[string]string{"d": "", "e": "gone\nmore\n"}},
		"mode only": {"diff --git a/d b/d\nold mode 100644\nnew mode 100755\n", map[string]string{"d": "gone\n"}},
		"mail": {"From: x\nSubject: y\n\n---\n n.txt | 2 +-\n\ndiff --git a/n.txt b/n.txt\nindex 1..2 100644\n--- a/n.txt\n+++ b/n.txt\n@@ -1,1 +1,1 @@\n-1\n+one\n-- \n2.39\n",
			map[string]string{"n.txt": strings.Replace(numbers, "1", "one", 1)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, filepath.Join(dir, "n.txt"), numbers)
			write(t, filepath.Join(dir, "d"), "gone\n")
			write(t, filepath.Join(dir, "tabs"), "\tx\n\ny\n")
			if _, err := Apply(dir, []string{write(t, filepath.Join(t.TempDir(), "p"), tt.patch)}); err != nil {
				t.Fatal(err)
			}
			for name, want := range tt.want {
				path := filepath.Join(dir, name)
				if _, err := os.Stat(path); want == "" && err == nil {
					t.Errorf("%s is still there", name)
				} else if want != "" && read(t, path) != want {
					t.Errorf("%s is %q, want %q", name, read(t, path), want)
				}
			}
		})
	}
}

func TestApplyRefuses(t *testing.T) {
	tests := map[string]struct{ patch, want string }{
		"hunk":            {"--- a/n.txt\n+++ b/n.txt\n@@ -1 +1 @@\n-1\n+one\n@@ -4,2 +4,2 @@ in f\n 4\n-six\n+x\n", "p: n.txt: hunk @@ -4,2 +4,2 @@ in f: its lines are not in the file"},
		"missing":         {"--- a/no.txt\n+++ b/no.txt\n@@ -1 +1 @@\n-1\n+one\n", "no.txt: is not in the tree"},
		"outside":         {"--- a/../../etc/x\n+++ b/../../etc/x\n@@ -1 +1 @@\n-1\n+one\n", "outside the source tree"},
		"absolute":        {"--- /dev/null\n+++ //etc/x\n@@ -0,0 +1 @@\n+one\n", "outside the source tree"},
		"symlink":         {"--- a/out/victim\n+++ b/out/victim\n@@ -1 +1 @@\n-1\n+one\n", "escapes"},
		"no strip":        {"--- n.txt\n+++ n.txt\n@@ -1 +1 @@\n-1\n+one\n", "no first component"},
		"binary":          {"diff --git a/x b/x\nindex 1..2 100644\nGIT binary patch\nliteral 1\n", "binary"},
		"empty":           {"nothing here\n", "no changes"},
		"truncated":       {"--- a/n.txt\n+++ b/n.txt\n@@ -1,3 +1,3 @@\n-1\n+one\n", "ends within hunk"},
		"far":             {"--- a/n.txt\n+++ b/n.txt\n@@ -999999999999,2 +1,2 @@\n-x\n+one\n 2\n", "its lines are not in the file"},
		"there":           {"--- /dev/null\n+++ b/n.txt\n@@ -0,0 +1 @@\n+one\n", "but it is there"},
		"not by its time": {"--- a/new\t2020-01-01 00:00:00 +0000\n+++ b/new\t2020-01-02 10:00:00 +0000\n@@ -0,0 +1 @@\n+one\n", "new: is not in the tree"},
		"there, by time":  {"--- a/n.txt\t1970-01-01 00:00:00 +0000\n+++ b/n.txt\t2020-01-02 10:00:00 +0000\n@@ -0,0 +1 @@\n+one\n", "but it is there"},
		"rest, by time":   {"--- a/n.txt\t2020-01-02 10:00:00 +0000\n+++ b/n.txt\t1970-01-01 00:00:00 +0000\n@@ -1 +0,0 @@\n-1\n", "has more in it"},
		"rest":            {"--- a/n.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n", "has more in it"},
		"symlink mode":    {"diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc\n\\ No newline at end of file\n", "only regular files"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir, out := t.TempDir(), t.TempDir()
			write(t, filepath.Join(dir, "n.txt"), numbers)
			write(t, filepath.Join(out, "victim"), "1\n")
			if err := os.Symlink(out, filepath.Join(dir, "out")); err != nil {
				t.Fatal(err)
			}
			first := "--- a/n.txt\n+++ b/n.txt\n@@ -9 +9 @@\n-9\n+nine\n"
			_, err := Apply(dir, []string{
				write(t, filepath.Join(t.TempDir(), "first"), first),
				write(t, filepath.Join(t.TempDir(), "p"), tt.patch),
			})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if read(t, filepath.Join(dir, "n.txt")) != numbers || read(t, filepath.Join(out, "victim")) != "1\n" {
				t.Error("something was changed")
			}
		})
	}
}

func TestApplyNamesEveryHunk(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "n.txt"), numbers)
	patch := "--- a/n.txt\n+++ b/n.txt\n@@ -1 +1 @@\n-x\n+one\n@@ -4 +4 @@\n-y\n+z\n--- a/m.txt\n+++ b/m.txt\n@@ -1 +1 @@\n-x\n+one\n"
	_, err := Apply(dir, []string{write(t, filepath.Join(t.TempDir(), "p"), patch)})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 3 {
		t.Fatalf("error %v, want three", err)
	}
	if e := (*ApplyError)(nil); !errors.As(err, &e) || e.File != "n.txt" {
		t.Errorf("error %#v, want an ApplyError for n.txt", err)
	}
}

// TestApplyLikePatch compares with patch(1) on random changes to a file that
// has other lines than the patch was made for.
func TestApplyLikePatch(t *testing.T) {
	testenv.Needs(t, "diff", "patch")
	rng := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		base := randomLines(rng, 80)
		a, b := t.TempDir(), t.TempDir()
		write(t, filepath.Join(a, "a/f"), strings.Join(base, ""))
		write(t, filepath.Join(a, "b/f"), strings.Join(mutate(rng, base), ""))
		diff := exec.Command("diff", "-u", "a/f", "b/f")
		diff.Dir = a
		patch, _ := diff.Output() // exits with 1 if there are differences
		if len(patch) == 0 {
			continue
		}
		// Above the changes the file has grown.
		ours := write(t, filepath.Join(b, "ours/f"), "new\nlines\n"+strings.Join(base, ""))
		theirs := write(t, filepath.Join(b, "theirs/f"), "new\nlines\n"+strings.Join(base, ""))
		p := write(t, filepath.Join(b, "p"), string(patch))
		cmd := exec.Command("patch", "-p1", "-F0", "-s", "-f", "--no-backup-if-mismatch", "-d", filepath.Dir(theirs), "-i", p)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("patch: %v\n%s", err, out)
		}
		if _, err := Apply(filepath.Dir(ours), []string{p}); err != nil {
			t.Fatal(err)
		}
		if read(t, ours) != read(t, theirs) {
			t.Fatalf("differs from patch(1)\n%s", patch)
		}
	}
}

func randomLines(rng *rand.Rand, n int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf("%d %d\n", i, rng.IntN(1000))
	}
	return lines
}

func mutate(rng *rand.Rand, lines []string) []string {
	var out []string
	for i, l := range lines {
		// patch(1) wants a hunk with less context above it at the file's start.
		if i < 5 || i > len(lines)-5 {
			out = append(out, l)
			continue
		}
		switch rng.IntN(12) {
		case 0:
		case 1:
			out = append(out, "added\n", l)
		case 2:
			out = append(out, "changed "+l)
		default:
			out = append(out, l)
		}
	}
	return out
}

func TestCopy(t *testing.T) {
	src := t.TempDir()
	write(t, filepath.Join(src, "sub/x"), "x")
	write(t, filepath.Join(src, "skipped/y"), "y")
	if err := os.Symlink("../sub/x", filepath.Join(src, "sub/l")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(src, "sub/x"), 0o755); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(src, "work", "tree")
	if err := Copy(dst, src, filepath.Join(src, "skipped"), filepath.Join(src, "work")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sub/x", "sub"} {
		a, errA := os.Stat(filepath.Join(src, name))
		b, errB := os.Stat(filepath.Join(dst, name))
		if errA != nil || errB != nil || a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) {
			t.Errorf("%s: mode or time differs: %v %v", name, errA, errB)
		}
	}
	if l, err := os.Readlink(filepath.Join(dst, "sub/l")); err != nil || l != "../sub/x" {
		t.Errorf("link %q, %v", l, err)
	}
	for _, name := range []string{"skipped", "work"} {
		if _, err := os.Stat(filepath.Join(dst, name)); err == nil {
			t.Errorf("%s was copied", name)
		}
	}
	if err := Copy(dst, src); err == nil {
		t.Error("copied over a tree")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("--- a/n.txt\n+++ b/n.txt\n@@ -1 +1 @@\n-1\n+one\n"))
	f.Add([]byte("diff --git a/d b/e\nsimilarity index 90%\nrename from d\nrename to e\n"))
	f.Add([]byte("diff --git a/x b/x\nnew file mode 100644\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+a\n\\ No newline at end of file\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := parse("p", data)
		if err != nil {
			return
		}
		for _, p := range files {
			for _, name := range []string{p.oldName, p.newName} {
				if name != "" && !filepath.IsLocal(name) {
					t.Errorf("%q leaves the tree", name)
				}
			}
			lines := []line{{"1\n", 1}, {"2\n", 2}, {"3\n", 3}}
			for _, h := range p.hunks {
				if at, ok := h.find(lines, h.oldStart-1, 0); ok {
					lines, _, _ = h.replace(lines, at)
				}
			}
		}
	})
}
