package pipeline

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/fother/fother/specs"
)

// treeState is what a folder holds.
type treeState struct {
	digest specs.Digest
	newest int64 // time of modification of the newest regular file, in seconds since 1970
}

// entry is a file, folder or symbolic link of a tree.
type entry struct {
	name   string // relative to the tree
	kind   byte   // 'd', 'f', 'x' for a file that its owner may run, 'l'
	digest specs.Digest
}

// digestTree reads a tree: names, content, what may be run and where links
// lead. Times do not count, and neither do the folders of version control
// systems, whose content changes with every look at them, and what is at the
// absolute paths skip. All processors take part; the digest does not depend on
// how many there are.
func digestTree(root string, skip ...string) (treeState, error) {
	var t treeState
	var entries []entry
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		if slices.Contains(skip, path) || d.IsDir() && isVCS(d.Name()) {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		e, mtime, err := newEntry(root, path, d)
		if err == nil && e.kind != 0 {
			entries = append(entries, e)
			t.newest = max(t.newest, mtime)
		}
		return err
	})
	if err != nil {
		return t, err
	}
	if err := digestEntries(root, entries); err != nil {
		return t, err
	}
	h := sha256.New()
	for _, e := range entries { // in the order of WalkDir, which sorts
		fmt.Fprintf(h, "%c %s %q\n", e.kind, e.digest, e.name)
	}
	t.digest = specs.Digest(h.Sum(nil))
	return t, nil
}

func isVCS(name string) bool { return slices.Contains([]string{".git", ".hg", ".svn", ".bzr"}, name) }

// newEntry describes the file at path but for the content of regular files.
// The kind is 0 for what is neither file nor folder nor link.
func newEntry(root, path string, d fs.DirEntry) (e entry, mtime int64, err error) {
	if e.name, err = filepath.Rel(root, path); err != nil {
		return e, 0, err
	}
	switch {
	case d.IsDir():
		e.kind = 'd'
	case d.Type()&fs.ModeSymlink != 0:
		e.kind = 'l'
		to, err := os.Readlink(path)
		if err != nil {
			return e, 0, err
		}
		e.digest = specs.DigestOf([]byte(to))
	case d.Type().IsRegular():
		info, err := d.Info()
		if err != nil {
			return e, 0, err
		}
		e.kind, mtime = 'f', info.ModTime().Unix()
		if info.Mode()&0o100 != 0 {
			e.kind = 'x'
		}
	}
	return e, mtime, nil
}

// digestEntries fills in the digests of regular files.
func digestEntries(root string, entries []entry) error {
	work := make(chan *entry)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for e := range work {
				d, err := digestFile(filepath.Join(root, e.name))
				e.digest = d
				if err != nil {
					mu.Lock()
					first = err
					mu.Unlock()
				}
			}
		})
	}
	for i := range entries {
		if k := entries[i].kind; k == 'f' || k == 'x' {
			work <- &entries[i]
		}
	}
	close(work)
	wg.Wait()
	return first
}

// buffers are what files are read through: many small files are one read each.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

func digestFile(path string) (specs.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return specs.Digest{}, err
	}
	defer f.Close()
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	h := sha256.New()
	// Only Read and Write: else Copy makes a buffer of its own.
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, buf[:]); err != nil {
		return specs.Digest{}, err
	}
	return specs.Digest(h.Sum(nil)), nil
}

// digestListing returns a digest of the names and sizes of what a folder
// holds, for folders whose files are named by their content. What is at the
// absolute paths skip does not count.
func digestListing(root string, skip ...string) (specs.Digest, error) {
	h := sha256.New()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains(skip, path) {
				return filepath.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err == nil {
			fmt.Fprintf(h, "%q %d\n", strings.TrimPrefix(path, root), info.Size())
		}
		return err
	})
	return specs.Digest(h.Sum(nil)), err
}

// commit returns what a git checkout at dir has checked out, for builds that
// ask git for a version, or "" if dir is none.
func commit(dir string) string {
	git := filepath.Join(dir, ".git")
	head, err := os.ReadFile(filepath.Join(git, "HEAD"))
	if err != nil {
		return ""
	}
	ref, ok := strings.CutPrefix(strings.TrimSpace(string(head)), "ref: ")
	if !ok || !filepath.IsLocal(ref) {
		return string(head)
	}
	at, err := os.ReadFile(filepath.Join(git, ref))
	if errors.Is(err, fs.ErrNotExist) {
		at, _ = os.ReadFile(filepath.Join(git, "packed-refs"))
	}
	return string(head) + string(at)
}
