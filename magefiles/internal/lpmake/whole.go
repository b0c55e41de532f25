package lpmake

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/specs"
)

// whole sees to it that a build which is not clean makes everything anew that
// the fix touches: half a patch would be worse than none. A makefile may not
// know what a file is included by, and may not link a program again when its
// library changes.
type whole struct {
	run   *run
	names []string // the files that the fix touches, relative to run.Source

	original *compiler.Capture
	paths    map[string]string // of the touched files, with links resolved: their names
}

// of takes in the original build, before the fix is applied.
func (w *whole) of(original *compiler.Capture) {
	w.original, w.paths = original, map[string]string{}
	for _, name := range w.names {
		path := filepath.Join(w.run.Source, name)
		w.paths[path], w.paths[real(path)] = name, name
	}
}

// real returns path with symbolic links resolved, as far as it is there.
func real(path string) string {
	if p, err := filepath.EvalSymlinks(path); err == nil {
		return p
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		return filepath.Join(dir, filepath.Base(path))
	}
	return path
}

// touched returns the name of the touched file that a unit was made from, or
// an empty string.
func (w *whole) touched(u *compiler.Unit) string {
	if name, ok := w.paths[u.Source]; ok {
		return name
	}
	return w.paths[real(u.Source)]
}

// before refuses fixes of files that others are made from, before anything is
// built.
func (w *whole) before() error {
	includers, err := w.includers()
	if err != nil {
		return err
	}
	var reasons []string
	for _, name := range w.names {
		switch by := includers[filepath.Base(name)]; {
		case len(by) > 0:
			reasons = append(reasons, fmt.Sprintf("%s is included by other files (%s), and make may not build all of them again", name, some(by)))
		case !isUnit(name) && !isDocument(name):
			reasons = append(reasons, fmt.Sprintf("other files may be made from %s, and make may not build all of them again", name))
		}
	}
	return needsClean(reasons)
}

// some lists the first of many.
func some(names []string) string {
	const most = 3
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// isUnit reports whether a compiler makes an object of a file called name.
func isUnit(name string) bool {
	switch filepath.Ext(name) {
	case ".c", ".cc", ".cp", ".cxx", ".cpp", ".CPP", ".c++", ".C", ".s", ".S", ".sx":
		return true
	}
	return false
}

var documentName = regexp.MustCompile(`(?i)^(change(s|log)|news|readme|authors|copying|licen[cs]e|thanks|todo|history)(\.(md|rst|txt|in))?$|\.(md|rst|txt|texi|texinfo|adoc|html|pod|po|[1-8])$`)

// isDocument reports whether no program depends on a file called name.
func isDocument(name string) bool { return documentName.MatchString(filepath.Base(name)) }

var includeLine = regexp.MustCompile(`^[ \t]*(?:#|\.|%:)[ \t]*(?:include|include_next|import|incbin)[ \t]*["<]([^">]+)[">]`)

// maxScanned bounds a file that is searched for includes, in bytes.
const maxScanned = 16 << 20

// includers returns for the base name of each touched file the files of the
// trees that include one of that name, relative to their tree.
func (w *whole) includers() (map[string][]string, error) {
	wanted, found := map[string]bool{}, map[string][]string{}
	for _, name := range w.names {
		wanted[filepath.Base(name)] = true
	}
	r := w.run
	trees := []string{r.Source}
	if !inside(r.Dir, r.Source) {
		trees = append(trees, r.Dir)
	}
	skip := []string{r.Work, r.Original, r.Patched, r.Patchroot}
	for _, tree := range trees {
		err := filepath.WalkDir(tree, func(path string, d fs.DirEntry, err error) error {
			switch {
			case errors.Is(err, fs.ErrPermission):
				return nil
			case err != nil:
				return err
			case d.IsDir() && (slices.Contains(skip, path) || d.Name() == ".git"):
				return filepath.SkipDir
			case !d.Type().IsRegular() || !mayInclude(d.Name()):
				return nil
			}
			rel, err := filepath.Rel(tree, path)
			for name := range includesOf(path, wanted) {
				found[name] = append(found[name], rel)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// mayInclude reports whether a file called name may be one that a compiler or
// assembler reads.
func mayInclude(name string) bool {
	switch filepath.Ext(name) {
	case ".h", ".hh", ".hpp", ".hxx", ".inc", ".def", ".ipp", ".tcc", ".inl", ".x", ".y", ".l", ".in", ".m", ".mm", ".i", ".ii", ".tbl":
		return true
	}
	return isUnit(name)
}

// includesOf returns which of the wanted base names the file at path includes,
// all of them if that cannot be told.
func includesOf(path string, wanted map[string]bool) map[string]bool {
	found := map[string]bool{}
	f, err := os.Open(path)
	if err != nil {
		return found // then no compiler reads it
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() > maxScanned {
		return wanted // it may
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxScanned)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte("inc")) && !bytes.Contains(lines.Bytes(), []byte("import")) {
			continue
		}
		if m := includeLine.FindSubmatch(lines.Bytes()); m != nil {
			if base := filepath.Base(string(m[1])); wanted[base] {
				found[base] = true
			}
		}
	}
	if lines.Err() != nil {
		return wanted
	}
	return found
}

// after checks what the patched build made. The fix is still applied.
func (w *whole) after() error {
	patched, err := compiler.Load(w.run.store(), specs.StagePatched)
	if err != nil {
		return err
	}
	reasons := append(w.units(patched), w.links(patched)...)
	return needsClean(reasons)
}

// units says which units should have been compiled and were not.
func (w *whole) units(patched *compiler.Capture) (reasons []string) {
	fresh, known := map[[2]string]bool{}, map[string]bool{}
	for _, u := range patched.Units {
		if name := w.touched(u); name != "" && !u.Kept {
			fresh[[2]string{name, objectName(u)}] = true
		}
	}
	missing := map[string]bool{}
	for _, u := range w.original.Units {
		name := w.touched(u)
		if name == "" {
			continue
		}
		known[name] = true
		if !fresh[[2]string{name, objectName(u)}] {
			missing[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		reasons = append(reasons, name+" was not compiled again")
	}
	for _, key := range slices.SortedFunc(maps.Keys(fresh), func(a, b [2]string) int { return strings.Compare(a[0], b[0]) }) {
		if name := key[0]; !known[name] && !missing[name] && !w.isNew(name) {
			missing[name] = true
			reasons = append(reasons, name+" was compiled before, without capture")
		}
	}
	return reasons
}

// isNew reports whether the fix adds the file, whose first build is the
// patched one.
func (w *whole) isNew(name string) bool {
	s, err := unfinished(w.run.kept())
	if err != nil || s == nil {
		return false
	}
	return slices.ContainsFunc(s.journal.Files, func(f saved) bool { return f.Name == name && f.Kept == "" && f.Link == "" })
}

// objectName returns where a unit's object is, or an empty string if the
// compiler made the name up.
func objectName(u *compiler.Unit) string {
	if u.Temporary() {
		return ""
	}
	return u.ObjectPath
}

// links says which targets should have been linked again and were not.
func (w *whole) links(patched *compiler.Capture) (reasons []string) {
	kept := map[string]bool{}
	for _, l := range patched.Deliverables() {
		kept[l.Output] = l.Kept
	}
	for _, l := range w.original.Deliverables() {
		if !kept[l.Output] {
			continue
		}
		for _, u := range l.Units() {
			if name := w.touched(u); name != "" {
				reasons = append(reasons, fmt.Sprintf("%s has %s in it and was not linked again", l.Output, name))
				break
			}
		}
	}
	return reasons
}
