package source

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// filePatch is what a patch does to one file. Names are relative to the tree;
// an empty one stands for a file that is not there.
type filePatch struct {
	patch    string // name of the patch, for errors
	oldName  string
	newName  string
	isNew    bool
	isDelete bool
	isRename bool
	isCopy   bool
	mode     fs.FileMode // of the new file, 0 if not given
	hunks    []hunk
	// oldEpoch and newEpoch tell that the time behind the name is the epoch.
	oldEpoch, newEpoch bool
}

// hunk is one @@ part.
type hunk struct {
	header   string
	oldStart int // 1-based; of an insertion into an empty file 0
	newStart int // 1-based; where nothing is left 0
	lines    []hunkLine
}

type hunkLine struct {
	op   byte   // ' ', '-' or '+'
	text string // with its newline, if it has one
}

// SyntaxError says that a patch is not a unified diff.
type SyntaxError struct {
	Patch  string
	Line   int // 1-based
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s:%d: %s", e.Patch, e.Line, e.Reason) }

// Hint says what the user can do.
func (e *SyntaxError) Hint() string {
	return "make the patch with diff -u or git diff; names are taken as by patch -p1, and stay in the tree"
}

// parser reads a patch line by line.
type parser struct {
	name  string
	lines []string // with newlines
	n     int      // index of the next line
}

// parse reads a patch: any text, and in it the parts that begin with
// "diff --git" or "---".
func parse(name string, data []byte) (files []*filePatch, err error) {
	p := &parser{name: name, lines: splitLines(string(data))}
	for p.n < len(p.lines) {
		line := p.peek(0)
		var f *filePatch
		switch {
		case strings.HasPrefix(line, "diff --git "):
			f, err = p.gitFile()
		case p.atNames():
			f, err = p.plainFile()
		case strings.HasPrefix(line, "@@ -"):
			err = p.fail("a hunk without a file name before it")
		default:
			p.n++
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, &SyntaxError{Patch: name, Line: 1, Reason: "no changes in it: want a unified diff"}
	}
	return files, nil
}

func splitLines(s string) []string {
	lines := strings.SplitAfter(s, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func (p *parser) peek(n int) string {
	if p.n+n < len(p.lines) {
		return p.lines[p.n+n]
	}
	return ""
}

func (p *parser) fail(format string, args ...any) error {
	return &SyntaxError{Patch: p.name, Line: min(p.n, len(p.lines)-1) + 1, Reason: fmt.Sprintf(format, args...)}
}

// atNames reports whether the next lines are --- and +++ and a hunk.
func (p *parser) atNames() bool {
	return strings.HasPrefix(p.peek(0), "--- ") && strings.HasPrefix(p.peek(1), "+++ ") && strings.HasPrefix(p.peek(2), "@@ -")
}

// names reads the --- and +++ lines.
func (p *parser) names(f *filePatch) (err error) {
	oldLine, newLine := p.peek(0), p.peek(1)
	oldName, oldNone, err := p.fileName(strings.TrimPrefix(oldLine, "--- "))
	if err != nil {
		return err
	}
	p.n++
	newName, newNone, err := p.fileName(strings.TrimPrefix(newLine, "+++ "))
	if err != nil {
		return err
	}
	p.n++
	if f.isRename || f.isCopy {
		return nil // the extended header has the names
	}
	f.oldName, f.newName = oldName, newName
	f.isNew, f.isDelete = f.isNew || oldNone, f.isDelete || newNone
	f.oldEpoch, f.newEpoch = epoch(oldLine), epoch(newLine)
	return nil
}

func (p *parser) plainFile() (*filePatch, error) {
	f := &filePatch{patch: p.name}
	if err := p.names(f); err != nil {
		return nil, err
	}
	if err := p.hunks(f); err != nil {
		return nil, err
	}
	f.absent()
	return f, p.check(f)
}

// gitFile reads git's extended header (git-diff(1), "Generating patch text
// with -p") and what follows it.
func (p *parser) gitFile() (*filePatch, error) {
	f := &filePatch{patch: p.name}
	header := strings.TrimRight(strings.TrimPrefix(p.peek(0), "diff --git "), "\r\n")
	p.n++
	for p.n < len(p.lines) {
		line := strings.TrimRight(p.peek(0), "\r\n")
		if p.atNames() {
			if err := p.names(f); err != nil {
				return nil, err
			}
			if err := p.hunks(f); err != nil {
				return nil, err
			}
			return f, p.check(f)
		}
		known, err := p.extended(f, line)
		if err != nil {
			return nil, err
		}
		if !known {
			break
		}
		p.n++
	}
	return f, p.withoutHunks(f, header)
}

// extended reads one line of git's extended header.
func (p *parser) extended(f *filePatch, line string) (known bool, err error) {
	cut := func(prefix string) (string, bool) { return strings.CutPrefix(line, prefix) }
	mode := func(s string) error {
		m, err := strconv.ParseUint(s, 8, 32)
		if err != nil || m&0o170000 != 0o100000 {
			return p.fail("mode %q: only regular files can be patched", s)
		}
		f.mode = fs.FileMode(m & 0o777)
		return nil
	}
	if v, ok := cut("new file mode "); ok {
		f.isNew = true
		return true, mode(v)
	}
	if _, ok := cut("deleted file mode "); ok {
		f.isDelete = true
		return true, nil
	}
	if v, ok := cut("new mode "); ok {
		return true, mode(v)
	}
	for _, prefix := range []string{"rename from ", "copy from "} {
		if v, ok := cut(prefix); ok {
			f.oldName, f.isRename, f.isCopy = unquote(v), prefix[0] == 'r', prefix[0] == 'c'
			return true, nil
		}
	}
	for _, prefix := range []string{"rename to ", "copy to "} {
		if v, ok := cut(prefix); ok {
			f.newName = unquote(v)
			return true, nil
		}
	}
	if strings.HasPrefix(line, "GIT binary patch") || strings.HasPrefix(line, "Binary files ") {
		return false, p.fail("a binary patch: only text can be patched")
	}
	for _, prefix := range []string{"index ", "old mode ", "similarity index ", "dissimilarity index "} {
		if _, ok := cut(prefix); ok {
			return true, nil
		}
	}
	return false, nil
}

// withoutHunks completes a part that has no --- and +++ lines: an empty new or
// removed file, a rename, a mode.
func (p *parser) withoutHunks(f *filePatch, header string) error {
	if f.oldName == "" && f.newName == "" {
		// Both names are the same, a/NAME b/NAME.
		half := len(header) / 2
		if len(header)%2 == 0 || header[half] != ' ' {
			return p.fail("names of %q cannot be told apart", header)
		}
		a, okA := stripFirst(header[:half])
		b, okB := stripFirst(header[half+1:])
		if !okA || !okB || a != b {
			return p.fail("names of %q cannot be told apart", header)
		}
		f.oldName, f.newName = a, a
		if f.isNew {
			f.oldName = ""
		}
		if f.isDelete {
			f.newName = ""
		}
	}
	return p.check(f)
}

// check sees to it that no name leaves the tree.
func (p *parser) check(f *filePatch) error {
	if f.oldName == "" && f.newName == "" {
		return p.fail("both files are /dev/null")
	}
	for _, name := range []string{f.oldName, f.newName} {
		if name != "" && !filepath.IsLocal(name) {
			return p.fail("%q is outside the source tree", name)
		}
	}
	return nil
}

// headerTime matches the time that diff writes after a name and a tab, where the tab
// became spaces.
var headerTime = regexp.MustCompile(` +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?( [+-]\d{4})?$`)

// fileName reads the name on a --- or +++ line without its first component.
// What follows a tab is a time stamp.
func (p *parser) fileName(s string) (name string, none bool, err error) {
	s = strings.TrimRight(s, "\r\n")
	if !strings.HasPrefix(s, `"`) {
		s, _, _ = strings.Cut(s, "\t")
		s = headerTime.ReplaceAllString(s, "")
	}
	s = unquote(strings.TrimRight(s, " "))
	if s == "/dev/null" {
		return "", true, nil
	}
	name, ok := stripFirst(s)
	if !ok {
		return "", false, p.fail("%q has no first component to strip: want names as patch -p1 takes them, a/FILE", s)
	}
	return name, false, nil
}

func stripFirst(s string) (string, bool) {
	_, rest, ok := strings.Cut(s, "/")
	return rest, ok && rest != ""
}

// unquote undoes git's quoting of unusual names.
func unquote(s string) string {
	if q, err := strconv.Unquote(s); err == nil && strings.HasPrefix(s, `"`) {
		return q
	}
	return s
}

func (p *parser) hunks(f *filePatch) error {
	for strings.HasPrefix(p.peek(0), "@@ -") {
		h, err := p.hunk()
		if err != nil {
			return err
		}
		f.hunks = append(f.hunks, h)
	}
	return nil
}

var errHeader = errors.New("bad hunk header: want @@ -LINE,COUNT +LINE,COUNT @@")

// hunkHeader reads "@@ -10,7 +10,9 @@ …".
func hunkHeader(line string) (oldStart, oldCount, newStart, newCount int, err error) {
	rest, ok := strings.CutPrefix(line, "@@ -")
	ranges, _, ok2 := strings.Cut(rest, " @@")
	before, after, ok3 := strings.Cut(ranges, " +")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, 0, errHeader
	}
	if oldStart, oldCount, err = hunkRange(before); err != nil {
		return 0, 0, 0, 0, err
	}
	newStart, newCount, err = hunkRange(after)
	return oldStart, oldCount, newStart, newCount, err
}

func hunkRange(s string) (start, count int, err error) {
	a, b, ok := strings.Cut(s, ",")
	if !ok {
		b = "1"
	}
	start, err = strconv.Atoi(a)
	if err == nil {
		count, err = strconv.Atoi(b)
	}
	if err != nil || start < 0 || count < 0 {
		return 0, 0, errHeader
	}
	return start, count, nil
}

func (p *parser) hunk() (hunk, error) {
	h := hunk{header: strings.TrimRight(p.peek(0), "\r\n")}
	oldStart, oldCount, newStart, newCount, err := hunkHeader(h.header)
	if err != nil {
		return h, p.fail("%v", err)
	}
	h.oldStart, h.newStart = oldStart, newStart
	p.n++
	for oldCount > 0 || newCount > 0 {
		line := p.peek(0)
		if line == "" {
			return h, p.fail("the patch ends within hunk %s", h.header)
		}
		op, text := line[0], line[1:]
		switch op {
		case '\n', '\t': // a context line whose blank an editor took away
			op, text = ' ', line
			oldCount, newCount = oldCount-1, newCount-1
		case ' ':
			oldCount, newCount = oldCount-1, newCount-1
		case '-':
			oldCount--
		case '+':
			newCount--
		case '\\':
			h.chop()
			p.n++
			continue
		default:
			return h, p.fail("a line of hunk %s begins with %q", h.header, op)
		}
		if oldCount < 0 || newCount < 0 {
			return h, p.fail("hunk %s has more lines than its header says", h.header)
		}
		h.lines = append(h.lines, hunkLine{op, text})
		p.n++
	}
	if strings.HasPrefix(p.peek(0), "\\ ") {
		h.chop()
		p.n++
	}
	return h, nil
}

// chop takes the newline off the last line: "\ No newline at end of file".
func (h *hunk) chop() {
	if n := len(h.lines); n > 0 {
		h.lines[n-1].text = strings.TrimSuffix(h.lines[n-1].text, "\n")
	}
}
