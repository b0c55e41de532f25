package compiler

import (
	"bytes"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/fother/fother/specs"
)

// Pair is one deliverable in both builds.
type Pair struct {
	Original, Patched *Link
	// Units are paired by source and object, in link order. Each unit is there
	// once.
	Units []UnitPair
	// Unseen are the objects that capture did not see being made, and that are
	// the same in both builds: start-up code, system archives.
	Unseen []string
}

// UnitPair is one unit in both builds. Original is nil for a unit that only
// the patched build has, Patched for one that only the original has.
type UnitPair struct{ Original, Patched *Unit }

// Same reports whether both builds have the unit with the same text.
func (p UnitPair) Same() bool {
	return p.Original != nil && p.Patched != nil && p.Original.TextDigest == p.Patched.TextDigest
}

// Changed reports whether the builds of p's deliverable differ at all.
func (p Pair) Changed() bool { return p.Original.Digest != p.Patched.Digest }

// Compare pairs the deliverables of two builds by path, sorted by path, and
// their units. Targets, if any, are the absolute paths of the only deliverables
// to look at; one may be a symbolic link to a deliverable, as libx.so.1 is, if
// the tree is still there. Programs that only the patched build has are left
// out; see [Added].
//
// The error joins every reason why the difference cannot be told whole:
// [ErrUnseen], [ErrNoText], [ErrNoBuildID], [ErrIncomplete] for deliverables
// that differ, [ErrNoTarget], each with the name of the object or file.
func Compare(orig, patched *Capture, targets ...string) ([]Pair, error) {
	targets = resolveTargets(targets, orig)
	wanted := func(path string) bool { return len(targets) == 0 || slices.Contains(targets, path) }
	after := map[string]*Link{}
	for _, l := range patched.Deliverables() {
		after[l.Output] = l
	}
	var pairs []Pair
	var errs []error
	found := map[string]bool{}
	for _, o := range orig.Deliverables() {
		if !wanted(o.Output) {
			continue
		}
		found[o.Output] = true
		p := after[o.Output]
		if p == nil {
			errs = append(errs, hint("do both builds make the same files?", "%s: %w: only the original build linked it", o.Output, ErrIncomplete))
			continue
		}
		pair := Pair{Original: o, Patched: p}
		errs = append(errs, pair.compare()...)
		pairs = append(pairs, pair)
	}
	for _, t := range targets {
		if !found[t] {
			errs = append(errs, hint("targets are the paths of programs and libraries as the build links them, in the tree, or below DESTDIR: here "+outputs(orig, t),
				"target %s: %w", t, ErrNoTarget))
		}
	}
	errs = append(errs, compareUnseen(orig, patched, wanted)...)
	slices.SortFunc(pairs, func(a, b Pair) int { return bytes.Compare([]byte(a.Original.Output), []byte(b.Original.Output)) })
	return pairs, errors.Join(errs...)
}

// outputs lists deliverables of c for a message, those with the base name of the
// path that was meant first.
func outputs(c *Capture, meant string) string {
	const most = 10
	var names []string
	for _, l := range c.Deliverables() {
		if filepath.Base(l.Output) == filepath.Base(meant) {
			names = slices.Insert(names, 0, l.Output)
		} else {
			names = append(names, l.Output)
		}
	}
	if len(names) > most {
		return strings.Join(names[:most], ", ") + " and others"
	}
	return strings.Join(names, ", ")
}

// Added returns the paths of the deliverables that only the patched build has,
// sorted. Nothing that runs can be patched to them.
func Added(orig, patched *Capture) []string {
	before := map[string]bool{}
	for _, l := range orig.Deliverables() {
		before[l.Output] = true
	}
	var added []string
	for _, l := range patched.Deliverables() {
		if !before[l.Output] {
			added = append(added, l.Output)
		}
	}
	slices.Sort(added)
	return added
}

// resolveTargets replaces targets that are symbolic links to deliverables of c
// by those.
func resolveTargets(targets []string, c *Capture) []string {
	var out []string
	for _, t := range targets {
		t = filepath.Clean(t)
		if real, err := filepath.EvalSymlinks(t); err == nil && !c.linked[t] && c.linked[real] {
			t = real
		}
		out = append(out, t)
	}
	return out
}

const (
	hintUnseen = "clang and ccache by absolute path, clang -flto, gcc -B and compilers by absolute linker path go round the shims; set CC=fother-cc, and build without -flto with clang"
	hintNoText = "with clang, build without -flto, without instrumentation, and this file with -fno-integrated-as or with gcc"
)

// compareUnseen compares the linked files that no captured link made.
func compareUnseen(orig, patched *Capture, wanted func(string) bool) []error {
	before := map[string]specs.Digest{}
	for _, u := range orig.Unseen {
		before[u.Path] = u.Digest
	}
	var errs []error
	for _, u := range patched.Unseen {
		if d, ok := before[u.Path]; wanted(u.Path) && (!ok || d != u.Digest) {
			errs = append(errs, hint(hintUnseen, "%s: linked file differs, and was %w", u.Path, ErrUnseen))
		}
	}
	return errs
}

// compare fills p's units and returns what stands in the way of a patch.
func (p *Pair) compare() []error {
	name := p.Original.Output
	errs := p.pairInputs()
	if !p.Changed() {
		return nil
	}
	if p.Original.BuildID == "" {
		errs = append(errs, hint(hintBuildID, "%s: %w", name, ErrNoBuildID))
	}
	for _, l := range []*Link{p.Original, p.Patched} {
		if l.NoSymbols != "" {
			errs = append(errs, hint("link without -s, and strip afterwards", "%s: %w: %s", name, ErrIncomplete, l.NoSymbols))
		}
		if l.NoInputs != "" {
			errs = append(errs, hint("link without -Map, or with a linker whose map files are known: ld.bfd, gold, lld, mold",
				"%s: %w: what went into it cannot be told: %s", name, ErrIncomplete, l.NoInputs))
		}
	}
	same := true
	for _, u := range p.Units {
		same = same && u.Same()
		if u.Same() && u.Original.ObjectDigest != u.Patched.ObjectDigest {
			errs = append(errs, u.sameTextError(name))
		}
	}
	if same && len(errs) == 0 {
		if moved, err := p.namesMoved(); err == nil && moved {
			return nil
		}
		errs = append(errs, hint("does the fix change options of the link, a linker script or data that is linked as it is? Those cannot be patched",
			"%s: %w: it differs, but no unit that went into it does", name, ErrIncomplete))
	}
	return errs
}

// sameTextError says why the objects of one text differ.
func (p UnitPair) sameTextError(deliverable string) error {
	for i, inc := range p.Original.Includes {
		if i < len(p.Patched.Includes) && p.Patched.Includes[i].Digest != inc.Digest {
			return hint("a live patch cannot change data that assembly takes in with .incbin or .include",
				"%s: %s: %w: its included file %s differs", deliverable, p.Original.Source, ErrIncomplete, inc.Path)
		}
	}
	return hint("are both builds run with the same options and the same assembler?",
		"%s: %s: %w: one text, but two different objects", deliverable, p.Original.Source, ErrIncomplete)
}

// inputKey is what an input keeps from one build to the next. n counts those
// of one key.
type inputKey struct {
	path, member, source string
	n                    int
}

var ltransName = regexp.MustCompile(`\.ltrans[0-9]+\.`)

// clangTemp matches the names that clang makes up for objects: the source's,
// six hexadecimal digits or more, and a suffix.
var clangTemp = regexp.MustCompile(`^(/tmp/[^/]*)-[0-9a-f]{6,}(\.[a-z]+)$`)

func keyOf(in Input, seen map[inputKey]int) inputKey {
	k := inputKey{path: clangTemp.ReplaceAllString(in.Path, "$1$2"), member: in.Member}
	if in.Unit != nil && (in.Gone || isTemporary(in.Path) || in.Unit.ObjectPath == "") {
		// The compiler made the name up; its part of link-time optimization is
		// told by its number.
		k.path = ltransName.FindString(filepath.Base(in.Path))
		k.source = in.Unit.Source
		if isTemporary(k.source) || in.Gone {
			k.source = ""
		}
	}
	n := seen[k]
	seen[k]++
	k.n = n
	return k
}

func keyed(l *Link) (keys []inputKey, inputs map[inputKey]Input) {
	inputs = map[inputKey]Input{}
	seen := map[inputKey]int{}
	for in := range l.leaves() {
		k := keyOf(in, seen)
		keys = append(keys, k)
		inputs[k] = in
	}
	return keys, inputs
}

// pairInputs pairs the inputs of both links.
func (p *Pair) pairInputs() []error {
	before, originals := keyed(p.Original)
	after, patched := keyed(p.Patched)
	var errs []error
	done := map[UnitPair]bool{}
	add := func(o, n Input) {
		if o.Unit == nil && n.Unit == nil {
			if err := p.unseen(o, n); err != nil {
				errs = append(errs, err)
			}
			return
		}
		if u := (UnitPair{o.Unit, n.Unit}); !done[u] {
			done[u] = true
			p.Units = append(p.Units, u)
		}
		if (o.Unit == nil && o.Path != "") || (n.Unit == nil && n.Path != "") {
			errs = append(errs, p.halfSeen(o, n))
		}
	}
	for _, k := range before {
		add(originals[k], patched[k])
	}
	for _, k := range after {
		if _, ok := originals[k]; !ok {
			add(Input{}, patched[k])
		}
	}
	return errs
}

// halfSeen is the error of an object that capture saw in one build only.
func (p *Pair) halfSeen(o, n Input) error {
	for _, why := range []string{o.NoText, n.NoText} {
		if why != "" {
			return hint(hintNoText, "%s: object %s was captured in one build, but in the other %w: %s", p.Original.Output, o.Name(), ErrNoText, why)
		}
	}
	return hint(hintUnseen, "%s: object %s was captured in one build, and in the other %w", p.Original.Output, o.Name(), ErrUnseen)
}

// unseen compares an object that capture did not see.
func (p *Pair) unseen(o, n Input) error {
	name := o.Name()
	if o.Path == "" {
		name = n.Name()
	}
	if o.Path != "" && n.Path != "" && o.Digest == n.Digest && !o.Gone && !n.Gone {
		p.Unseen = append(p.Unseen, name)
		return nil
	}
	for _, why := range []string{o.NoText, n.NoText} {
		if why != "" {
			return hint(hintNoText, "%s: object %s differs, and %w: %s", p.Original.Output, name, ErrNoText, why)
		}
	}
	return hint(hintUnseen, "%s: object %s differs, and was %w", p.Original.Output, name, ErrUnseen)
}
