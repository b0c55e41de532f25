package registry

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// cache is a client's private folder for one registry. Everything in it was
// verified before it was written, and is verified again when it is read.
type cache struct{ dir string }

const (
	tempDir = "tmp"
	// tempAge is when a file that a killed client left is removed.
	tempAge = 24 * time.Hour
)

// openCache makes the folder, which only its owner may see, for the registry
// that a root.json belongs to.
func openCache(state, id string) (*cache, error) {
	c := &cache{filepath.Join(state, id)}
	if state == "" {
		return nil, fail(ErrState, "state", "no folder given")
	}
	for _, dir := range []string{"", metadataDir, bundlesDir, tempDir} {
		if err := os.MkdirAll(filepath.Join(c.dir, dir), 0o700); err != nil {
			return nil, &Error{ErrState, state, err}
		}
	}
	for _, dir := range []string{state, c.dir} {
		info, err := os.Stat(dir)
		if err != nil {
			return nil, &Error{ErrState, dir, err}
		}
		if why := othersWrite(info); why != "" {
			return nil, fail(ErrState, dir, "%s", why)
		}
	}
	c.sweep()
	return c, nil
}

// sweep removes what killed clients left half fetched.
func (c *cache) sweep() {
	entries, _ := os.ReadDir(filepath.Join(c.dir, tempDir))
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > tempAge {
			os.RemoveAll(filepath.Join(c.dir, tempDir, e.Name()))
		}
	}
}

func (c *cache) path(name string) string { return filepath.Join(c.dir, filepath.FromSlash(name)) }

func (c *cache) get(name string, max int64) []byte {
	data, err := readRegular(c.path(name), max)
	if err != nil {
		return nil
	}
	return data
}

// put writes a file that was verified. Only the timestamp must outlive a loss
// of power: it is what tells older ones.
func (c *cache) put(name string, data []byte) error {
	p := c.path(name)
	if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
		return &Error{ErrState, p, err}
	}
	if err := writeAtomic(c.path(tempDir), p, data, 0o600, name == timestampFile); err != nil {
		return fail(ErrState, p, "%w", err)
	}
	return nil
}

// unversioned returns the name that the versions of one file share: names are
// VERSION.ROLE.json and DIGEST.SHARD.json.
func unversioned(name string) string {
	dir, base := path.Split(name)
	if _, rest, ok := strings.Cut(base, "."); ok && strings.Count(base, ".") == 2 {
		return dir + rest
	}
	return name
}

// prune removes other versions of the files in use. Roots stay: each proves
// the next.
func (c *cache) prune(used []string) {
	current := map[string]string{}
	for _, name := range used {
		current[unversioned(name)] = name
	}
	_ = fs.WalkDir(os.DirFS(c.dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(name, ".root.json") {
			return nil
		}
		if keep, ok := current[unversioned(name)]; ok && keep != name && unversioned(name) != name {
			os.Remove(c.path(name))
		}
		return nil
	})
}

// none is a cache that keeps nothing.
type none struct{}

func (none) get(string, int64) []byte { return nil }
func (none) put(string, []byte) error { return nil }

// othersWrite says who else can change a file, "" if nobody.
func othersWrite(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && st.Uid != uint32(os.Geteuid()) {
		return fmt.Sprintf("belongs to user %d", st.Uid)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Sprintf("others can change it (mode %#o)", info.Mode().Perm())
	}
	return ""
}
