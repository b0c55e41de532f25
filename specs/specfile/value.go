package specfile

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"

	"github.com/fother/fother/specs"
)

var (
	cvePattern = regexp.MustCompile(`^CVE-[0-9]{4}-[0-9]{4,19}$`)
	envPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	// In symbols gcc allows letters of all scripts and $, and appends suffixes
	// such as .isra.0.
	functionPattern = regexp.MustCompile(`^[\pL_$.][\pL\pN_$.]*$`)
)

// ownEnv are the variables through which the build is captured, and the one
// that says where to install.
var ownEnv = []string{"COMPILER_PATH", "KPATCH_STAGE", "DESTDIR"}

// str returns the value of a string, or "" after a problem.
func (p *parser) str(n *yaml.Node, want string) string {
	switch {
	case !p.plain(n):
	case n.Kind == yaml.MappingNode:
		p.problem(n, "want %s; a text with \": \" in it needs quotes", want)
	case n.Kind != yaml.ScalarNode || n.Tag == "!!null":
		p.problem(n, "want %s", want)
	case n.Tag != "!!str":
		p.problem(n, "want %s: put %s in quotes", want, n.Value)
	case strings.TrimSpace(n.Value) == "":
		p.problem(n, "want %s, not an empty one", want)
	case strings.ContainsRune(n.Value, 0):
		p.problem(n, "want %s without a NUL character", want)
	default:
		return n.Value
	}
	return ""
}

// list returns the elements of a sequence of at least least entries. One value
// alone is not taken for a list of one: it is most often a forgotten bracket.
func (p *parser) list(n *yaml.Node, what string, least int, element func(*yaml.Node) string) []string {
	if n.Kind != yaml.SequenceNode {
		p.problem(n, "want a list of %s, such as [a, b]", what)
		return nil
	}
	if len(n.Content) < least {
		p.problem(n, "want a list of %s with at least %d entry", what, least)
	}
	if len(n.Content) > maxEntries {
		p.problem(n, "want a list of %s with at most %d entries", what, maxEntries)
		return nil
	}
	var all []string
	for _, e := range n.Content {
		all = append(all, element(e))
	}
	return all
}

// unique reports entries of the list n that occur twice.
func unique(p *parser, n *yaml.Node, all []string) []string {
	for i, s := range all {
		if s != "" && slices.Contains(all[:i], s) {
			p.problem(n.Content[i], "%q is in the list already", s)
		}
	}
	return all
}

func (p *parser) name(n *yaml.Node) string {
	s := p.str(n, "a name")
	// A name stands in file names and on command lines, as a series does.
	if _, err := specs.ParseSeries(s); err != nil && s != "" {
		p.problem(n, "name %q: want 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or digit", s)
	}
	return s
}

func (p *parser) series(n *yaml.Node) specs.Series {
	s := p.str(n, "the name of a series")
	if s == "" {
		return ""
	}
	series, err := specs.ParseSeries(s)
	if err != nil {
		p.problem(n, "%v", err)
	}
	return series
}

func (p *parser) level(n *yaml.Node) specs.Level {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" {
		p.problem(n, "want a level, a number from 1")
		return 0
	}
	level, err := specs.ParseLevel(n.Value)
	if err != nil {
		p.problem(n, "%v", err)
	}
	return level
}

// text is for people: it may have several lines, but nothing that would
// command their terminals.
func (p *parser) text(n *yaml.Node) string {
	s := p.str(n, "a text")
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }) {
		p.problem(n, "want a text without control characters")
	}
	return strings.TrimSpace(s)
}

func (p *parser) command(n *yaml.Node) string { return p.str(n, "a shell command") }

func (p *parser) cve(n *yaml.Node) string {
	s := p.str(n, "a CVE number")
	if s != "" && !cvePattern.MatchString(s) {
		p.problem(n, "CVE number %q: want the form CVE-2026-12345", s)
	}
	return s
}

func (p *parser) target(n *yaml.Node) string {
	s := p.str(n, "the path of a target")
	if s == "" {
		return ""
	}
	if !filepath.IsLocal(s) || filepath.Clean(s) == "." {
		p.problem(n, "target %q: want a path inside the source tree", s)
	}
	return filepath.Clean(s)
}

// env returns the variables of a mapping as KEY=VALUE. Values may be written
// as numbers.
func (p *parser) env(n *yaml.Node) []string {
	if n.Kind != yaml.MappingNode || len(n.Content) > 2*maxEntries {
		p.problem(n, "want a mapping of variables to values, such as {CFLAGS: -O2}")
		return nil
	}
	var env []string
	p.pairs(n, func(key, value *yaml.Node) {
		switch {
		case !envPattern.MatchString(key.Value):
			p.problem(key, "variable %q: want letters, digits and '_', not beginning with a digit", key.Value)
		case slices.Contains(ownEnv, key.Value):
			p.problem(key, "variable %s: this one is set for the commands", key.Value)
		case !p.plain(value):
		case value.Kind != yaml.ScalarNode || value.Tag == "!!null" || strings.ContainsRune(value.Value, 0):
			p.problem(value, "variable %s: want a value, \"\" for an empty one", key.Value)
		default:
			env = append(env, key.Value+"="+value.Value)
		}
	})
	return env
}

// wantFile and wantTree say what a path has to lead to.
func wantFile(info os.FileInfo) string {
	if !info.Mode().IsRegular() {
		return "a file"
	}
	if info.Size() == 0 {
		return "a file that is not empty"
	}
	return ""
}

func wantTree(info os.FileInfo) string {
	if info.IsDir() || info.Mode().IsRegular() && isArchive(info.Name()) {
		return ""
	}
	return "a folder or an archive (" + strings.Join(archiveSuffixes, ", ") + ")"
}

// path returns the absolute form of the path of something that is there. What
// want does not accept is a problem.
func (p *parser) path(n *yaml.Node, want func(os.FileInfo) string) string {
	s := p.str(n, "a path")
	if s == "" {
		return ""
	}
	abs := filepath.Clean(s)
	if !filepath.IsAbs(s) {
		abs = filepath.Join(p.dir, s)
		if !p.inside(s) {
			p.problem(n, "path %q leads out of the spec's folder: want one inside it, or an absolute one", s)
			return ""
		}
	}
	info, err := os.Stat(abs)
	if err != nil {
		p.problem(n, "%v", err)
		return ""
	}
	if w := want(info); w != "" {
		p.problem(n, "path %q: want %s", s, w)
	}
	return abs
}

// inside reports whether the relative path s stays in the spec's folder, also
// by way of symbolic links. What does not exist stays where it is written.
func (p *parser) inside(s string) bool {
	if !filepath.IsLocal(s) {
		return false
	}
	real, err := filepath.EvalSymlinks(filepath.Join(p.dir, s))
	if err != nil {
		return true // os.Stat says why
	}
	dir, err := filepath.EvalSymlinks(p.dir)
	if err != nil {
		return false
	}
	rel, err := filepath.Rel(dir, real)
	return err == nil && filepath.IsLocal(rel)
}
