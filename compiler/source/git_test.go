package source

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/specs"
)

// gitPiped runs git in dir with in as its input.
func gitPiped(t *testing.T, dir, in string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %s: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

// gitBomb makes a commit of 8 folders in each of 8 folders, and so on, n deep,
// at the bottom of which is a file of 16 MiB, or nothing if empty.
func gitBomb(t *testing.T, dir string, n int, empty bool) (commit string) {
	t.Helper()
	tree := gitPiped(t, dir, "", "mktree")
	if !empty {
		blob := gitPiped(t, dir, strings.Repeat("\x00", 16<<20), "hash-object", "-w", "--stdin")
		tree = gitPiped(t, dir, "100644 blob "+blob+"\tf\n", "mktree")
	}
	for range n {
		var list strings.Builder
		for i := range 8 {
			fmt.Fprintf(&list, "040000 tree %s\td%d\n", tree, i)
		}
		tree = gitPiped(t, dir, list.String(), "mktree")
	}
	commit = gitIn(t, dir, "commit-tree", "-m", "bomb", tree)
	gitIn(t, dir, "branch", "-f", "bomb", commit)
	return commit
}

// filled is how many bytes of files are below a folder, .git left out.
func filled(t *testing.T, dir string) (size int64) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == ".git" {
			return filepath.SkipDir
		}
		if info, e := os.Lstat(path); err == nil && e == nil && !d.IsDir() {
			size += info.Size()
		}
		return nil
	})
	return size
}

// TestGitBombs: what a few objects would make too much of is refused before it
// is on the disk, in a submodule too.
func TestGitBombs(t *testing.T) {
	dir, _ := gitRepository(t, "sha1")
	for name, test := range map[string]struct {
		depth int
		empty bool
	}{"bytes": {5, false}, "files": {9, false}, "folders": {9, true}} {
		t.Run(name, func(t *testing.T) {
			commit := gitBomb(t, dir, test.depth, test.empty)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			work := filepath.Join(t.TempDir(), "tree")
			r := repository{dir: work}
			o := specs.Origin{URL: "file://" + dir, Checksum: specs.Checksum{Algorithm: specs.ChecksumGit, Digits: commit}}
			if err := r.init(ctx, o); err != nil {
				t.Fatal(err)
			}
			if _, err := r.fetch(ctx, o); err != nil {
				t.Fatal(err)
			}
			if err := new(gitTree).checkout(ctx, r, commit); !errors.Is(err, ErrTooLarge) {
				t.Errorf("error %v, want ErrTooLarge", err)
			}
			if n := filled(t, work); n > 0 {
				t.Errorf("%d bytes were written", n)
			}
			if _, err := fetch(ctx, t, "git::file://"+dir+"?ref="+commit, ""); !errors.Is(err, ErrTooLarge) {
				t.Errorf("Fetch: %v, want ErrTooLarge", err)
			}
		})
	}
}

// TestGitSubmodules: a tree has its submodules, and theirs, as far as they are
// no bombs.
func TestGitSubmodules(t *testing.T) {
	inner, commits := gitRepository(t, "sha1")
	outer, _ := gitRepository(t, "sha1")
	top := t.TempDir()
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(top)))
	server := httptest.NewServer(mux)
	defer server.Close()
	serve := func(dir, name string) {
		os.RemoveAll(filepath.Join(top, name))
		gitIn(t, top, "clone", "-q", "--bare", dir, name)
		gitIn(t, filepath.Join(top, name), "update-server-info")
	}
	add := func(commit string) string {
		write(t, filepath.Join(outer, ".gitmodules"), "[submodule \"a b\"]\n\tpath = in/x\n\turl = ../inner.git\n[submodule \"off\"]\n\tpath = off\n\turl = ../none.git\n\tupdate = none\n")
		gitIn(t, outer, "add", ".gitmodules")
		gitIn(t, outer, "update-index", "--add", "--cacheinfo", "160000,"+commit+",in/x", "--cacheinfo", "160000,"+commit+",off")
		gitIn(t, outer, "commit", "-q", "-m", "submodule")
		serve(outer, "outer.git")
		return gitIn(t, outer, "rev-parse", "HEAD")
	}
	serve(inner, "inner.git")
	dst, err := fetch(t.Context(), t, "git::"+server.URL+"/outer.git?ref="+add(commits[0]), "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := listing(t, filepath.Join(dst, "in", "x")), gitListing(0); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	bomb := gitBomb(t, inner, 5, false)
	serve(inner, "inner.git")
	if _, err := fetch(t.Context(), t, "git::"+server.URL+"/outer.git?ref="+add(bomb), ""); !errors.Is(err, ErrTooLarge) || !strings.Contains(err.Error(), `submodule "in/x"`) {
		t.Errorf("a bomb: %v", err)
	}
}

// TestGitStalls: a server that takes the connection and says nothing is not
// waited for.
func TestGitStalls(t *testing.T) {
	_, commits := gitRepository(t, "sha1")
	idle := idleTime
	defer func() { idleTime = idle }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	for _, scheme := range []string{"http", "git"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		o := specs.Origin{URL: scheme + "://" + l.Addr().String() + "/x", Checksum: specs.Checksum{Algorithm: specs.ChecksumGit, Digits: commits[0]}}
		r := repository{dir: filepath.Join(t.TempDir(), "tree")}
		if err := r.init(ctx, o); err != nil {
			t.Fatal(err)
		}
		idleTime = 500 * time.Millisecond
		_, err := r.fetch(ctx, o)
		idleTime = idle
		if err == nil || !strings.Contains(err.Error(), "the server sent nothing for 500ms") {
			t.Errorf("%s: %v", scheme, err)
		}
		cancel()
	}
}

// TestGitEndlessPack: what comes is bounded too.
func TestGitEndlessPack(t *testing.T) {
	dir, commits := gitRepository(t, "sha1")
	o := specs.Origin{URL: "file://" + dir, Checksum: specs.Checksum{Algorithm: specs.ChecksumGit, Digits: commits[0]}}
	r := repository{dir: filepath.Join(t.TempDir(), "tree")}
	if err := r.init(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := r.fetch(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	defer func(body int64) { maxBody = body }(maxBody)
	maxBody = r.packs() - 1
	ctx, cancel := context.WithCancelCause(t.Context())
	r.watch(ctx, os.Getpid(), cancel) // as if it were still coming
	if err := context.Cause(ctx); maxBody <= 0 || err != ErrTooLarge {
		t.Errorf("%d bytes: %v, want ErrTooLarge", maxBody+1, err)
	}
}
