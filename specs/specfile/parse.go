package specfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"gopkg.in/yaml.v3"

	"github.com/fother/fother/specs"
)

// Bounds on a spec, so that a hostile one costs nothing.
const (
	maxSize     = 1 << 20 // bytes of the file
	maxEntries  = 1000    // of one list
	maxProblems = 100     // told of; who has more has written no spec
)

// Read reads the spec in the file at path. Relative paths in it are relative
// to the folder of the file.
func Read(path string) (specs.Spec, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is refused, not waited for
	if err != nil {
		return specs.Spec{}, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return specs.Spec{}, err
	} else if !info.Mode().IsRegular() {
		return specs.Spec{}, fmt.Errorf("%s: not a file that can be read as a spec", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return specs.Spec{}, fmt.Errorf("%s: %w", path, err)
	}
	return Parse(path, filepath.Dir(path), data)
}

// Parse reads the spec in data. Relative paths in it are relative to dir, file
// is the name for errors. The paths that it names must exist.
func Parse(file, dir string, data []byte) (specs.Spec, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return specs.Spec{}, fmt.Errorf("%s: %w", file, err)
	}
	p := &parser{file: Error{File: file}, dir: abs}
	root := p.document(data)
	var s specs.Spec
	if root != nil {
		s = p.spec(root)
	}
	if len(p.file.Problems) > 0 {
		p.file.sort()
		return specs.Spec{}, &p.file
	}
	return s, nil
}

// A parser collects the problems of one spec.
type parser struct {
	file Error
	dir  string // folder of the spec, absolute
	// source and checksum are the values of these keys, nil if they are not
	// there. They are read together.
	source, checksum *yaml.Node
}

func (p *parser) problem(n *yaml.Node, format string, args ...any) {
	if len(p.file.Problems) == maxProblems {
		return
	}
	p.file.Problems = append(p.file.Problems, Problem{max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)})
}

// yamlLine finds the place in an error of the YAML library, which has no type.
var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// document returns the mapping that is the whole of the spec, or nil.
func (p *parser) document(data []byte) *yaml.Node {
	top := &yaml.Node{Line: 1, Column: 1}
	if len(data) > maxSize {
		p.problem(top, "the spec is larger than %d bytes", maxSize)
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		p.problem(top, "the spec is empty: want keys such as %s", strings.Join(keys[:4], ", "))
		return nil
	} else if err != nil {
		p.syntax(err)
		return nil
	}
	if err := dec.Decode(&second); err == nil {
		p.problem(&second, "a second document: want one spec in a file")
	} else if !errors.Is(err, io.EOF) {
		p.syntax(err)
	}
	root := doc.Content[0]
	if !p.plain(root) {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		p.problem(root, "want a mapping, a line of the form KEY: VALUE for each of %s", strings.Join(keys, ", "))
		return nil
	}
	return root
}

func (p *parser) syntax(err error) {
	place, text := &yaml.Node{}, err.Error()
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		place.Line, _ = strconv.Atoi(m[1])
		text = text[len(m[0]):]
	}
	p.problem(place, "not YAML: %s", text)
}

// plain reports whether n is free of anchors, aliases and tags of its own.
func (p *parser) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		p.problem(n, "alias *%s: write the value out, a spec has no aliases", n.Value)
	case n.Anchor != "":
		p.problem(n, "anchor &%s: a spec has no anchors", n.Anchor)
	case n.Style&yaml.TaggedStyle != 0:
		p.problem(n, "tag %s: a spec has no tags", n.Tag)
	default:
		return true
	}
	return false
}

// pairs gives the keys and values of a mapping, repeated keys once only. Keys
// that are no plain words are problems.
func (p *parser) pairs(n *yaml.Node, yield func(key, value *yaml.Node)) {
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !p.plain(key) {
			continue
		}
		if key.Kind != yaml.ScalarNode {
			p.problem(key, "want a word as key")
			continue
		}
		if line, again := seen[key.Value]; again {
			p.problem(key, "%q is here a second time, the first is in line %d", key.Value, line)
			continue
		}
		seen[key.Value] = key.Line
		yield(key, value)
	}
}

func (p *parser) spec(root *yaml.Node) specs.Spec {
	s := specs.Spec{Build: []string{"make"}, Series: specs.DefaultSeries, Level: 1}
	missing := map[string]bool{}
	for _, f := range fields {
		missing[f.key] = f.required
	}
	p.pairs(root, func(key, value *yaml.Node) {
		i := slices.Index(keys, key.Value)
		if i < 0 {
			p.unknown(key, "key", keys)
			return
		}
		missing[key.Value] = false
		if p.plain(value) {
			fields[i].set(p, &s, value)
		}
	})
	for _, key := range keys {
		if missing[key] {
			p.problem(root, "%q is missing", key)
		}
	}
	p.origin(&s)
	return s
}

// unknown reports a word that is none of the known ones.
func (p *parser) unknown(n *yaml.Node, what string, known []string) {
	if near := nearest(strings.ToLower(n.Value), known); near != "" {
		p.problem(n, "unknown %s %.100q: did you mean %q?", what, n.Value, near)
		return
	}
	p.problem(n, "unknown %s %.100q: want one of %s", what, n.Value, strings.Join(known, ", "))
}
