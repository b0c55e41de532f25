package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fother/fother/specs"
)

// put writes an archive and returns its path.
func put(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// fetch calls Fetch for a folder that is alone in its folder, and holds that
// after an error nothing is there.
func fetch(ctx context.Context, t testing.TB, archive, checksum string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	dst := filepath.Join(dir, "dst")
	err := Fetch(ctx, dst, archive, checksum)
	entries, e := os.ReadDir(dir)
	if e != nil {
		t.Fatal(e)
	}
	for _, e := range entries {
		if err != nil || e.Name() != "dst" {
			t.Errorf("left behind: %s (error %v)", e.Name(), err)
		}
	}
	return dst, err
}

// listing lists a tree as lines of mode, name and content or target.
func listing(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		what := ""
		switch {
		case info.Mode().IsRegular():
			what = fmt.Sprintf("%q", read(t, path))
		case info.Mode()&fs.ModeSymlink != 0:
			what, err = os.Readlink(path)
		}
		if d.Type() != fs.ModeSymlink && !info.ModTime().Equal(old) {
			t.Errorf("%s is of %v, want %v", rel, info.ModTime(), old)
		}
		fmt.Fprintf(&b, "%v %s %s\n", info.Mode(), rel, what)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(b.String(), " \n", "\n")
}

const projectListing = `drwxr-xr-x .
-rwxr-xr-x configure "#!/bin/sh\n"
-rw-r--r-- hard.c "int main;\n"
Lrwxrwxrwx later sub/generated
-rw-r--r-- main.c "int main;\n"
drwxr-xr-x sub
drwxr-xr-x sub/a
-rw-r--r-- sub/a/b.c "b\n"
Lrwxrwxrwx sub/up.c ../main.c
`

func TestFetchArchive(t *testing.T) {
	for _, name := range []string{"a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2", "a.tar.zst"} {
		t.Run(name, func(t *testing.T) {
			data := packed(t, name, project(t))
			archive := put(t, name, data)
			dst, err := fetch(t.Context(), t, archive, "sha256:"+specs.DigestOf(data).String())
			if err != nil {
				t.Fatal(err)
			}
			if got := listing(t, dst); got != projectListing {
				t.Errorf("got\n%swant\n%s", got, projectListing)
			}
		})
	}
	t.Run("a.zip", func(t *testing.T) {
		dst, err := fetch(t.Context(), t, put(t, "a.zip", zipOf(t, dirOf("p/"), fileOf("p/x.c", "x"), linkOf("p/l", "x.c"))), "")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := listing(t, dst), "drwxr-xr-x .\nLrwxrwxrwx l x.c\n-rw------- x.c \"x\"\n"; got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	})
}

// TestFetchUmask: a tree does not depend on who fetches it.
func TestFetchUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dst, err := fetch(t.Context(), t, put(t, "a.tar", project(t)), "")
	if err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dst); got != projectListing {
		t.Errorf("got\n%s", got)
	}
	dir, commits := gitRepository(t, "sha1")
	if dst, err = fetch(t.Context(), t, "git::file://"+dir+"?ref="+commits[0], ""); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dst); got != gitListing(0) {
		t.Errorf("got\n%s", got)
	}
}

// TestFetchTop: only a folder that is alone is the tree.
func TestFetchTop(t *testing.T) {
	for _, test := range []struct {
		name    string
		entries []tar.Header
		want    string // a file of the tree
	}{
		{"one folder", []tar.Header{fileOf("p/x/y", "")}, "x/y"},
		{"one file", []tar.Header{fileOf("x", "")}, "x"},
		{"two folders", []tar.Header{fileOf("p/x", ""), fileOf("q/x", "")}, "p/x"},
		{"folder and file", []tar.Header{fileOf("p/x", ""), fileOf("y", "")}, "p/x"},
		{"dot", []tar.Header{dirOf("./"), fileOf("./p/x", "")}, "x"},
		{"link to the folder", []tar.Header{fileOf("p/x", ""), linkOf("q", "p")}, "q/x"},
		{"twice the same", []tar.Header{fileOf("x", "1"), fileOf("x", ""), linkOf("l", "x"), fileOf("l", "")}, "l"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dst, err := fetch(t.Context(), t, put(t, "a.tar", tarOf(t, test.entries...)), "")
			if err != nil {
				t.Fatal(err)
			}
			if text := read(t, filepath.Join(dst, test.want)); text != "" {
				t.Errorf("%s has %q", test.want, text)
			}
		})
	}
}

// TestFetchRefuses gives archives of which nothing must be unpacked.
func TestFetchRefuses(t *testing.T) {
	good := project(t)
	long := strings.Repeat("x/", 300)
	ok := fileOf("ok", "ok")
	fifo := tar.Header{Name: "f", Typeflag: tar.TypeFifo}
	tests := []struct {
		name, file string
		data       []byte
		want       string
	}{
		{"up", "a.tar", tarOf(t, ok, fileOf("../x", "")), `entry "../x" leads out of the tree`},
		{"up inside", "a.tar", tarOf(t, ok, fileOf("a/../../x", "")), `leads out of the tree`},
		{"absolute", "a.tar", tarOf(t, ok, fileOf("/tmp/x", "")), `entry "/tmp/x" leads out of the tree`},
		{"absolute folder", "a.tar", tarOf(t, ok, dirOf("/x/")), `leads out of the tree`},
		{"link up", "a.tar", tarOf(t, ok, linkOf("l", "../x")), `entry "l" is a link that leads out of the tree, to ../x`},
		{"link absolute", "a.tar", tarOf(t, ok, linkOf("l", "/etc/passwd")), `is a link that leads out of the tree, to /etc/passwd`},
		{"link out of the one folder", "a.tar", tarOf(t, linkOf("p/l", "../x"), fileOf("p/x", "")), `is a link that leads out of the tree`},
		{"link by link", "a.tar", tarOf(t, ok, linkOf("a/b/top", "../.."), linkOf("a/b/out", "top/../x")), `by way of another`},
		{"link that may lead out later", "a.tar", tarOf(t, ok, linkOf("l", "missing/../../x")), `leads out of the tree`},
		{"through link", "a.tar", tarOf(t, ok, dirOf("d"), linkOf("l", "d"), fileOf("l/x", "")), `is a symbolic link that other entries go through`},
		{"through link out", "a.tar", tarOf(t, ok, linkOf("l", "/tmp"), fileOf("l/x", "")), `go through`},
		{"folder over link", "a.tar", tarOf(t, ok, linkOf("l", "/tmp"), dirOf("l")), `in the place of a symbolic link`},
		{"hard link out", "a.tar", tarOf(t, ok, hardOf("h", "../../etc/passwd")), `is a link that leads out`},
		{"hard link absolute", "a.tar", tarOf(t, ok, hardOf("h", "/etc/passwd")), `is a link that leads out`},
		{"hard link to nothing", "a.tar", tarOf(t, ok, hardOf("h", "none")), `is a hard link to "none", which is no file before it`},
		{"hard link to link", "a.tar", tarOf(t, ok, linkOf("l", "/etc/passwd"), hardOf("h", "l")), `is no file before it`},
		{"hard link through link", "a.tar", tarOf(t, ok, linkOf("l", "/etc"), hardOf("h", "l/passwd")), `is no file before it`},
		{"file is folder", "a.tar", tarOf(t, ok, fileOf("a", ""), fileOf("a/b", "")), `is both a file and a folder`},
		{"folder is file", "a.tar", tarOf(t, ok, fileOf("a/b", ""), fileOf("a", "")), `is both a file and a folder`},
		{"top is file", "a.tar", tarOf(t, ok, fileOf(".", "")), `is both a file and a folder`},
		{"fifo", "a.tar", tarOf(t, ok, fifo), `entry "f" is of type '6'`},
		{"device", "a.tar", tarOf(t, ok, tar.Header{Name: "d", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}), `is of type '3'`},
		{"deep", "a.tar", tarOf(t, ok, fileOf(long+"x", "")), `has a name that is too long`},
		{"backslash", "a.zip", zipOf(t, ok, fileOf(`a\b`, "")), `backslash`},
		{"zip up", "a.zip", zipOf(t, ok, fileOf("../x", "")), `leads out of the tree`},
		{"zip absolute", "a.zip", zipOf(t, ok, fileOf("/x", "")), `leads out of the tree`},
		{"zip link", "a.zip", zipOf(t, ok, linkOf("l", "/etc")), `is a link that leads out of the tree`},
		{"zip fifo", "a.zip", zipOf(t, ok, fifo), `is a device or the like`},
		{"zip truncated", "a.zip", zipOf(t, ok)[:60], `broken archive`},
		{"zip empty", "a.zip", zipOf(t), `the archive is empty`},
		{"truncated", "a.tar", good[:len(good)-2000], `broken archive: unexpected EOF`},
		{"no end", "a.tar", good[:len(good)-1024], `broken archive: unexpected EOF`},
		{"gz truncated", "a.tar.gz", cut(packed(t, ".gz", good), 4), `broken archive: unexpected EOF`},
		{"gz damaged", "a.tar.gz", flip(packed(t, ".gz", good), -6), `broken archive: gzip: invalid checksum`},
		{"xz truncated", "a.tar.xz", cut(packed(t, ".xz", good), 30), `broken archive`},
		{"zst truncated", "a.tar.zst", cut(packed(t, ".zst", good), 5), `broken archive`},
		{"bz2 truncated", "a.tar.bz2", cut(packed(t, ".bz2", good), 9), `broken archive`},
		{"empty tar", "a.tar", make([]byte, 10240), `the archive is empty`},
		{"only the folder", "a.tar", tarOf(t, dirOf("./")), `the archive is empty`},
		{"empty file", "a.tar", nil, `not an archive that is known`},
		{"text", "a.tar.gz", []byte("<html>not found</html>"), `not an archive that is known`},
		{"compressed text", "a.tar.gz", packed(t, ".gz", []byte("<html>")), `broken archive`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			archive := put(t, test.file, test.data)
			_, err := fetch(t.Context(), t, archive, "")
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got  %v\nwant %s", err, test.want)
			}
			if !strings.HasPrefix(err.Error(), archive+": ") || strings.Count(err.Error(), "\n") > 0 {
				t.Errorf("not one line about the archive: %v", err)
			}
		})
	}
}

func cut(b []byte, n int) []byte { return b[:len(b)-n] }

// flip changes the byte at i, from the end if negative.
func flip(b []byte, i int) []byte {
	b[(i+len(b))%len(b)] ^= 0x55
	return b
}

// zeros is a bomb: a tar archive with a file of n zero bytes.
func zeros(t testing.TB, n int64) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Typeflag: tar.TypeReg, Size: n, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 1<<20)
	for left := n; left > 0; left -= int64(len(block)) {
		if _, err := w.Write(block[:min(left, int64(len(block)))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestFetchBombs: what is out of proportion ends early.
func TestFetchBombs(t *testing.T) {
	defer func(was int64) { freeSize = was }(freeSize)
	freeSize = 4 << 20
	const bomb = 20 << 20 // shrinks to a thousandth
	links := []tar.Header{fileOf("f", strings.Repeat("x", 1<<20))}
	for i := range 10 {
		links = append(links, hardOf(fmt.Sprint(i), "f"))
	}
	zipped := zipOf(t, fileOf("f", strings.Repeat("x", bomb)))
	for name, data := range map[string][]byte{
		"zeros":         zeros(t, bomb),
		"hard links":    packed(t, ".gz", tarOf(t, links...)),
		"after the end": packed(t, ".gz", append(tarOf(t, fileOf("s", "x")), make([]byte, bomb)...)),
		"zst":           packed(t, ".zst", make([]byte, bomb)),
		"xz":            packed(t, ".xz", append(tarOf(t, fileOf("s", "x")), make([]byte, bomb)...)),
		"zip":           zipped,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := fetch(t.Context(), t, put(t, "archive", data), ""); !errors.Is(err, ErrTooLarge) {
				t.Errorf("got %v, want %v", err, ErrTooLarge)
			}
		})
	}
}

func TestFetchBounds(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	w := newWriter(root, 0)
	w.entries = maxEntries
	if err := w.put(entry{name: "x", kind: folder}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one entry too many: %v", err)
	}
	w = newWriter(root, 0)
	w.names = maxNames
	if err := w.put(entry{name: "x", kind: folder}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("names that are too long: %v", err)
	}
}

// TestFetchLocal gives what is wrong before anything is unpacked.
func TestFetchLocal(t *testing.T) {
	archive := put(t, "a.tar", project(t))
	var sum *ChecksumError
	for _, test := range []struct{ archive, checksum, want string }{
		{archive, "sha256:" + strings.Repeat("0", 64), "checksum is sha256:"},
		{archive, "sha512:" + strings.Repeat("0", 128), "checksum is sha512:"},
		{archive, "md5:00", "want ALGORITHM:HEX"},
		{archive, "git:" + strings.Repeat("0", 40), "an archive has none"},
		{archive + ".none", "", "no such file"},
		{filepath.Dir(archive), "", "not a regular file"},
		{"/dev/zero", "", "not a regular file"},
		{"s3::https://h/x", "", "want one of"},
		{"https://h/x", "", "checksum is missing"},
	} {
		_, err := fetch(t.Context(), t, test.archive, test.checksum)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.archive, err, test.want)
		}
		if wrong := strings.HasPrefix(test.want, "checksum is sha"); wrong && (!errors.As(err, &sum) || !strings.Contains(sum.Hint(), sum.Got.String())) {
			t.Errorf("the right checksum is not told: %v", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fetch(ctx, t, archive, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// cancelAt is an archive that cancels the context when it is read at or behind
// an offset.
type cancelAt struct {
	*bytes.Reader
	offset int64
	cancel context.CancelFunc
}

func (c cancelAt) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= c.offset {
		c.cancel()
	}
	return c.Reader.ReadAt(p, offset)
}

// TestUnpackCancelled: a context that ends in the middle ends the unpacking.
func TestUnpackCancelled(t *testing.T) {
	var all []tar.Header
	random := rand.NewChaCha8([32]byte{})
	for i := range 100 {
		content := make([]byte, 4096) // nothing makes it smaller
		random.Read(content)
		all = append(all, fileOf(fmt.Sprint(i), string(content)))
	}
	for name, data := range map[string][]byte{"tar": tarOf(t, all...), "gz": packed(t, ".gz", tarOf(t, all...)), "zip": zipOf(t, all...)} {
		ctx, cancel := context.WithCancel(t.Context())
		dir := filepath.Join(t.TempDir(), "d")
		offset := int64(len(data) / 3)
		if name == "zip" { // its directory is at the end, and read first
			offset = 0
		}
		err := unpack(ctx, dir, cancelAt{bytes.NewReader(data), offset, cancel}, int64(len(data)))
		if !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "broken") {
			t.Errorf("%s: got %v", name, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > len(all)/2 {
			t.Errorf("%s: %d files were unpacked (%v)", name, len(entries), err)
		}
	}
}

// TestFetchNoGit: what is missing is named, with what to do.
func TestFetchNoGit(t *testing.T) {
	t.Setenv("PATH", "/nowhere")
	_, err := fetch(t.Context(), t, "git::https://h/a?ref="+strings.Repeat("0", 40), "")
	var hint interface{ Hint() string }
	if !errors.Is(err, exec.ErrNotFound) || !errors.As(err, &hint) || !strings.Contains(hint.Hint(), "install git") {
		t.Errorf("got %v", err)
	}
}

// TestFetchDestination: dst may be an empty folder, but what is in it is kept.
func TestFetchDestination(t *testing.T) {
	archive := put(t, "a.tar", project(t))
	dst := filepath.Join(t.TempDir(), "new", "dst")
	if err := os.MkdirAll(dst, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Fetch(t.Context(), dst, archive, ""); err != nil {
		t.Fatal(err)
	}
	if got := listing(t, dst); got != projectListing {
		t.Errorf("got\n%s", got)
	}
	if err := Fetch(t.Context(), dst, archive, ""); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a second time: %v", err)
	}
	if got := listing(t, dst); got != projectListing {
		t.Errorf("after a second time\n%s", got)
	}
}

// BenchmarkFetch unpacks a tree of 1000 files of 10 KB.
func BenchmarkFetch(b *testing.B) {
	var all []tar.Header
	for i := range 1000 {
		all = append(all, fileOf(fmt.Sprintf("p/%d/%d.c", i%30, i), strings.Repeat("int f(void) { return 1; }\n", 400)))
	}
	data := tarOf(b, all...)
	for _, name := range []string{"a.tar", "a.tar.gz", "a.tar.xz", "a.tar.zst"} {
		b.Run(name, func(b *testing.B) {
			archive := put(b, name, packed(b, name, data))
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if err := Fetch(b.Context(), filepath.Join(b.TempDir(), "d"), archive, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// FuzzUnpack: whatever the archive, what is unpacked is files, folders and
// links inside the tree, and after an error nothing.
func FuzzUnpack(f *testing.F) {
	for _, name := range []string{".tar", ".gz", ".xz", ".zst"} {
		f.Add(packed(f, name, project(f)))
	}
	f.Add(zipOf(f, dirOf("p/"), fileOf("p/x.c", "x"), linkOf("p/l", "x.c")))
	f.Add(tarOf(f, linkOf("l", "a/.."), fileOf("a/x", ""), linkOf("a/up", ".."), hardOf("h", "a/x")))
	f.Fuzz(func(t *testing.T, data []byte) {
		dst, err := fetch(t.Context(), t, put(t, "a", data), "")
		if err != nil {
			return
		}
		root, err := os.OpenRoot(dst)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if err := filepath.WalkDir(dst, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			switch d.Type() {
			case 0, fs.ModeDir:
			case fs.ModeSymlink:
				real, err := filepath.EvalSymlinks(path)
				if rel, e := filepath.Rel(dst, real); err == nil && (e != nil || !filepath.IsLocal(rel)) {
					t.Errorf("%s leads to %s", path, real)
				}
			default:
				t.Errorf("%s is a %v", path, d.Type())
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}
