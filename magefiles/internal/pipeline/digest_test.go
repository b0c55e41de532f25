package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// bigTree makes a tree of folders with 100 files of 8 KiB each.
func bigTree(tb testing.TB, folders int) string {
	tb.Helper()
	root := tb.TempDir()
	for i := range folders {
		dir := filepath.Join(root, fmt.Sprintf("dir%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		for j := range 100 {
			data := bytes.Repeat([]byte{byte(i), byte(j), 7, '\n'}, 2<<10)
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%d.c", j)), data, 0o644); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return root
}

// TestDigestTree: what counts and what does not, on any number of processors.
func TestDigestTree(t *testing.T) {
	root := bigTree(t, 3)
	digest := func(skip ...string) treeState {
		t.Helper()
		s, err := digestTree(root, skip...)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	first := digest()
	for _, n := range []int{1, 2, 16} {
		old := runtime.GOMAXPROCS(n)
		if got := digest(); got != first {
			t.Errorf("on %d processors the digest is another", n)
		}
		runtime.GOMAXPROCS(old)
	}
	file := filepath.Join(root, "dir1/file7.c")
	do(os.Chtimes(file, time.Now(), time.Unix(1<<33, 0)))
	do(os.Chmod(file, 0o600))
	do(os.Mkdir(filepath.Join(root, ".git"), 0o755))
	do(os.WriteFile(filepath.Join(root, ".git/index"), nil, 0o644))
	if got := digest(); got.digest != first.digest || got.newest != 1<<33 {
		t.Error("times, permissions of others and .git count")
	}
	last := first.digest
	for _, change := range []struct {
		name string
		do   func() error
	}{
		{"content", func() error { return os.WriteFile(file, []byte("x"), 0o644) }},
		{"what may be run", func() error { return os.Chmod(file, 0o755) }},
		{"a name", func() error { return os.Rename(file, file+"c") }},
		{"an empty folder", func() error { return os.Mkdir(filepath.Join(root, "empty"), 0o755) }},
		{"a link", func() error { return os.Symlink("a", filepath.Join(root, "link")) }},
		{"where a link leads", func() error {
			return errors.Join(os.Remove(filepath.Join(root, "link")), os.Symlink("b", filepath.Join(root, "link")))
		}},
		{"a file for a folder", func() error {
			return errors.Join(os.Remove(filepath.Join(root, "empty")), os.WriteFile(filepath.Join(root, "empty"), nil, 0o644))
		}},
	} {
		do(change.do())
		now := digest().digest
		if now == last {
			t.Errorf("%s does not count", change.name)
		}
		last = now
	}
	if digest(filepath.Join(root, "dir2")).digest == last {
		t.Error("what is left out counts")
	}
	do(os.Symlink("/nowhere", filepath.Join(root, "broken")))
	digest()
	if _, err := digestTree(filepath.Join(root, "missing")); err == nil {
		t.Error("a tree that is missing has a digest")
	}
}

func BenchmarkDigestTree(b *testing.B) {
	root := bigTree(b, 50)
	b.SetBytes(50 * 100 * 8 << 10)
	for b.Loop() {
		if _, err := digestTree(root); err != nil {
			b.Fatal(err)
		}
	}
}
