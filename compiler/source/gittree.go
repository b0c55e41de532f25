package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/fother/fother/specs"
)

// maxModules bounds the submodules of a tree, those of submodules included.
const maxModules = 4096

// gitTree counts what the commits of a repository and of its submodules would
// fill the disk with, before they do: few objects can make any number of files.
type gitTree struct {
	entries, modules int
	names, size      int64 // bytes
}

// checkout puts the files of a commit that was fetched into the work tree, and
// those of its submodules.
func (t *gitTree) checkout(ctx context.Context, r repository, commit string) error {
	l := gitList{tree: t, links: map[string]string{}}
	err := r.run(ctx, &l, "ls-tree", "-r", "-t", "-l", "-z", "--full-tree", commit)
	if err := errors.Join(l.err, context.Cause(ctx)); err != nil {
		return err // and git ended for want of a reader
	}
	if err != nil {
		return err
	}
	if _, err := r.git(ctx, "checkout", "-q", "--detach", commit, "--"); err != nil || len(l.links) == 0 || !l.named {
		return err
	}
	return t.submodules(ctx, r, commit, l.links)
}

// submodules fetches the submodules of a commit; links has their paths and
// commits. git's own way would check them out before they are counted.
func (t *gitTree) submodules(ctx context.Context, r repository, commit string, links map[string]string) error {
	if t.modules += len(links); t.modules > maxModules {
		return ErrTooLarge
	}
	// It checks names and paths, and finds what relative addresses mean.
	if _, err := r.git(ctx, "submodule", "-q", "init"); err != nil {
		return err
	}
	own, err := r.settings(ctx, "--local")
	if err != nil {
		return err
	}
	theirs, err := r.settings(ctx, "--blob="+commit+":.gitmodules")
	if err != nil {
		return err
	}
	at := map[string]string{} // names by path
	for key, path := range theirs {
		if name, ok := strings.CutSuffix(key, ".path"); ok {
			at[strings.TrimRight(path, "/")] = name
		}
	}
	for _, path := range slices.Sorted(maps.Keys(links)) {
		if own[at[path]+".update"] == "none" {
			continue
		}
		if err := t.submodule(ctx, r, path, own[at[path]+".url"], links[path]); err != nil {
			return fmt.Errorf("submodule %.200q: %w", path, err)
		}
	}
	return nil
}

// submodule fetches a commit from url into the folder path of a work tree.
func (t *gitTree) submodule(ctx context.Context, r repository, path, url, commit string) error {
	if url == "" {
		return errors.New("has no address")
	}
	dir := filepath.Join(r.dir, path)
	top, err := filepath.EvalSymlinks(r.dir)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(dir); err != nil {
		return err
	} else if !filepath.IsLocal(path) || real != filepath.Join(top, path) {
		return &UnsafeError{path, "is a submodule behind a link"}
	}
	// No user has asked for its address, so not all protocols are allowed.
	sub := repository{dir: dir, env: []string{"GIT_PROTOCOL_FROM_USER=0"}}
	o := specs.Origin{URL: url, Checksum: specs.Checksum{Algorithm: specs.ChecksumGit, Digits: commit}}
	if err := sub.init(ctx, o); err != nil {
		return err
	}
	if _, err := sub.fetch(ctx, o); err != nil {
		return err
	}
	return t.checkout(ctx, sub, commit)
}

// settings returns the settings of submodules, by their keys without
// "submodule.". Of a key that is there twice the last counts, as for git.
func (r repository) settings(ctx context.Context, from string) (map[string]string, error) {
	out, err := r.git(ctx, "config", "--no-includes", from, "-z", "--get-regexp", `^submodule\..*\.(url|update|path)$`)
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for setting := range strings.SplitSeq(out, "\x00") {
		key, value, _ := strings.Cut(setting, "\n")
		all[strings.TrimPrefix(key, "submodule.")] = value
	}
	return all, nil
}

// gitList reads what git ls-tree -r -t -l -z prints, and ends it with an error
// when it is too much.
type gitList struct {
	tree  *gitTree
	links map[string]string // commits of submodules by path
	named bool              // there is a .gitmodules
	rest  []byte            // of an entry
	err   error
}

// Write takes what is printed next. It keeps no more than one entry of it.
func (l *gitList) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for l.err == nil {
		entry, rest, ok := bytes.Cut(l.rest, []byte{0})
		if !ok {
			break
		}
		l.rest = rest
		l.err = l.add(string(entry))
	}
	const maxHead = 256 // bytes in front of a name
	if l.err == nil && len(l.rest) > maxHead+maxName {
		l.err = ErrTooLarge
	}
	l.rest = bytes.Clone(l.rest)
	return len(p), l.err
}

// add counts one entry: mode, type, object and size, a tab, and the path.
func (l *gitList) add(entry string) error {
	head, path, _ := strings.Cut(entry, "\t")
	f := strings.Fields(head)
	if len(f) != 4 {
		return fmt.Errorf("git ls-tree: %.200q: want four fields and a path", entry)
	}
	t := l.tree
	t.entries++
	t.names += int64(len(path))
	switch f[1] {
	case "blob":
		n, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("git ls-tree: %.200q: want a size", entry)
		}
		t.size += min(n, maxSize+1)
		l.named = l.named || path == ".gitmodules"
	case "commit":
		l.links[path] = f[2]
	}
	if t.entries > maxEntries || t.names > maxNames || t.size > maxSize || len(path) > maxName {
		return ErrTooLarge
	}
	return nil
}

// init makes r.dir a repository that can hold the commit of o, and knows where
// it is from.
func (r repository) init(ctx context.Context, o specs.Origin) error {
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	if _, err := r.git(ctx, initArgs(o.Checksum)...); err != nil {
		return err
	}
	_, err := r.git(ctx, "remote", "add", "--", "origin", o.URL)
	return err
}
