package source

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ApplyError says that a hunk, or a whole file if Hunk is empty, does not
// apply.
type ApplyError struct {
	Patch  string
	File   string
	Hunk   string // the @@ line
	Reason string
}

func (e *ApplyError) Error() string {
	s := e.Patch + ": " + e.File + ": "
	if e.Hunk != "" {
		s += "hunk " + e.Hunk + ": "
	}
	return s + e.Reason
}

// Hint says what the user can do.
func (e *ApplyError) Hint() string {
	return "is the fix made for this version of the source? Context has to match to the letter: patch -p1 -F0 --dry-run says the same"
}

// Result is what Apply did.
type Result struct {
	// Files are the files that were changed, added or removed, relative to the
	// tree, sorted.
	Files []string
	// Moved tells of each hunk that was found elsewhere than its header says.
	Moved []string
}

// line is a line of a file that is being patched.
type line struct {
	text string
	orig int // its number in the file before all patches; 0: added
}

// file is a file that is being patched.
type file struct {
	lines   []line
	mode    fs.FileMode
	exists  bool
	touched bool
}

// tree is the part of a source tree that patches touch, in memory.
type tree struct {
	root  *os.Root
	files map[string]*file
	moved []string
}

// maxSource bounds a source file that is patched, in bytes.
const maxSource = 256 << 20

// Apply applies patch files to the tree in dir, in order, as patch -p1 does.
// If one hunk of one patch does not apply, nothing in the tree is changed and
// the error joins one [*ApplyError] for each hunk; a patch that cannot be read
// gives a [*SyntaxError]. Names and symbolic links that lead out of the tree
// are refused.
func Apply(dir string, patches []string) (*Result, error) {
	return run(dir, patches, (*tree).write)
}

// Check says what [Apply] would do and whether it can, and changes nothing.
func Check(dir string, patches []string) (*Result, error) {
	return run(dir, patches, func(t *tree) (*Result, error) { return t.result(), nil })
}

// run applies the patches to the tree in memory, and then does what there is
// to do with it.
func run(dir string, patches []string, do func(*tree) (*Result, error)) (*Result, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	t := &tree{root: root, files: map[string]*file{}}
	var errs []error
	for _, path := range patches {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files, err := parse(filepath.Base(path), data)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			errs = append(errs, t.apply(f)...)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return do(t)
}

// get returns the file called name, which need not exist.
func (t *tree) get(name string) (*file, error) {
	name = filepath.Clean(name)
	if f, ok := t.files[name]; ok {
		return f, nil
	}
	f := &file{mode: 0o644}
	info, err := t.root.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.files[name] = f
		return f, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Size() > maxSource:
		return nil, fmt.Errorf("%d bytes: at most %d can be patched", info.Size(), maxSource)
	}
	data, err := t.root.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f.exists, f.mode = true, info.Mode().Perm()
	if len(data) > 0 {
		for i, s := range splitLines(string(data)) {
			f.lines = append(f.lines, line{s, i + 1})
		}
	}
	t.files[name] = f
	return f, nil
}

// apply applies p to the tree in memory.
func (t *tree) apply(p *filePatch) []error {
	from, to := p.oldName, p.newName
	if !p.isNew && !p.isDelete && !p.isRename && !p.isCopy {
		// A difference between x.c.orig and x.c is about x.c.
		name := to
		if f, err := t.get(from); err == nil && f.exists {
			if g, err := t.get(to); err == nil && !g.exists {
				name = from
			}
		}
		from, to = name, name
	}
	if p.isNew {
		from = to
	}
	if p.isDelete {
		to = from
	}
	fail := func(name, reason string) []error {
		return []error{&ApplyError{Patch: p.patch, File: name, Reason: reason}}
	}
	f, err := t.get(from)
	if err != nil {
		return fail(from, err.Error())
	}
	if f.exists && p.isNew && len(f.lines) > 0 {
		return fail(from, "is to be created, but it is there")
	}
	if !f.exists && !p.isNew {
		return fail(from, "is not in the tree")
	}
	if from != to {
		g, err := t.get(to)
		if err != nil {
			return fail(to, err.Error())
		}
		if g.exists {
			return fail(to, "is to be created, but it is there")
		}
		*g = file{lines: slices.Clone(f.lines), mode: f.mode, exists: true, touched: true}
		if p.isRename {
			*f = file{touched: true}
		}
		f = g
	}
	errs := t.hunks(p, to, f)
	f.exists, f.touched = !p.isDelete, true
	if p.isDelete && len(f.lines) > 0 && errs == nil {
		return fail(from, "is to be removed, but has more in it than the patch says")
	}
	if p.mode != 0 {
		f.mode = p.mode
	}
	return errs
}

// hunks applies p's hunks to f.
func (t *tree) hunks(p *filePatch, name string, f *file) (errs []error) {
	low := 0    // lines before it belong to hunks that were applied
	offset := 0 // how far the last hunk was from where it should be
	for _, h := range p.hunks {
		want := h.oldStart - 1 + offset
		if h.old() == 0 {
			want++ // an insertion is after the line that it names
		}
		at, ok := h.find(f.lines, want, low)
		if !ok {
			errs = append(errs, &ApplyError{Patch: p.patch, File: name, Hunk: h.header, Reason: "its lines are not in the file"})
			continue
		}
		if at != want {
			t.moved = append(t.moved, fmt.Sprintf("%s: %s: hunk %s applied at line %d", p.patch, name, h.header, at+1))
		}
		var grown int
		f.lines, low, grown = h.replace(f.lines, at)
		offset += at - want + grown
	}
	return errs
}

// old returns the number of lines that h expects.
func (h *hunk) old() int {
	n := 0
	for _, l := range h.lines {
		if l.op != '+' {
			n++
		}
	}
	return n
}

// find returns the place nearest to want, and not before low, where h's
// context and removed lines are. A hunk without any goes where it says.
func (h *hunk) find(lines []line, want, low int) (int, bool) {
	n := h.old()
	if n == 0 {
		return want, want >= low && want <= len(lines)
	}
	if n > len(lines)-low {
		return 0, false
	}
	want = min(max(want, low), len(lines)-n)
	for d := 0; want-d >= low || want+d <= len(lines)-n; d++ {
		if h.matches(lines, want-d, low) {
			return want - d, true
		}
		if h.matches(lines, want+d, low) {
			return want + d, true
		}
	}
	return 0, false
}

func (h *hunk) matches(lines []line, at, low int) bool {
	if at < low {
		return false
	}
	for _, l := range h.lines {
		if l.op == '+' {
			continue
		}
		if at >= len(lines) || lines[at].text != l.text {
			return false
		}
		at++
	}
	return true
}

// replace applies h at index at. It returns the lines, the index after h's
// own, and by how many lines the file grew.
func (h *hunk) replace(lines []line, at int) (out []line, end, grown int) {
	var mid []line
	next := at
	for _, l := range h.lines {
		switch l.op {
		case '+':
			mid = append(mid, line{text: l.text})
		case '-':
			next++
		default:
			mid = append(mid, lines[next])
			next++
		}
	}
	out = slices.Concat(lines[:at], mid, lines[next:])
	return out, at + len(mid), len(mid) - (next - at)
}

func (t *tree) result() *Result {
	r := &Result{Moved: t.moved}
	for _, name := range slices.Sorted(maps.Keys(t.files)) {
		if t.files[name].touched {
			r.Files = append(r.Files, name)
		}
	}
	return r
}

// write writes the files that were touched.
func (t *tree) write() (*Result, error) {
	r := t.result()
	for _, name := range r.Files {
		if err := t.writeFile(name, t.files[name]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return r, nil
}

func (t *tree) writeFile(name string, f *file) error {
	if !f.exists {
		err := t.root.Remove(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if dir := filepath.Dir(name); dir != "." {
		if err := t.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	lines := f.lines
	if isC(name) {
		lines = keepLines(lines)
	}
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text)
	}
	// The name may be a symbolic or hard link to a file of another tree: the
	// file is replaced, not written to.
	if err := t.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return t.root.WriteFile(name, []byte(b.String()), f.mode)
}
