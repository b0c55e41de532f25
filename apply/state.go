package apply

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// A level that replaces another goes on with its variables where they are: they
// are neither copied nor moved, so that it does not matter who reads and writes
// them meanwhile, or has their address. The memory that they are in, a block, is
// mapped as long as a record tells of it, that of the patch that brought it or of
// one that goes on with it.

// recordedVariable is a writable object that a patch brought or goes on with.
type recordedVariable struct {
	kpack.Variable
	At specs.Addr `json:"at"`
}

// Bounds of what a record tells of variables and blocks.
const (
	maxRecordedVariables = 4096
	maxHeld              = 4096
)

// StateError means that a newer level of a patch has a variable of which it cannot
// go on with the value that the older level has in the process.
type StateError struct {
	Object, Variable, Unit string
	// Old is the level that is applied, New the one that would replace it.
	Old, New specs.PatchID
	Why      string
	hint     string
}

func (e *StateError) Error() string {
	return fmt.Sprintf("%s: level %d of series %s cannot go on with variable %s (%s) of level %d: %s",
		e.Object, e.New.Level, e.New.Series, e.Variable, e.Unit, e.Old.Level, e.Why)
}

// Hint says what the user can do.
func (e *StateError) Hint() string {
	return fmt.Sprintf("revert level %d first, which forgets the value; the patch's author can %s, or have the level begin anew: allow: [{change: fresh variable %s, reason: why}]",
		e.Old.Level, e.hint, e.Variable)
}

// What the author of a patch can do about a variable.
const (
	hintRename  = "give the new variable another name"
	hintInitial = "let it begin with the value that it had in the older level"
	hintUnclear = "build both levels with -g, or give static variables in functions names of their own"
	hintJoined  = "compile both levels with -fno-section-anchors, or leave the static data of the file as it is"
)

// matching pairs the variables of a patch with those of the level that it
// replaces.
type matching struct {
	old *record
	new []kpack.Variable
	// found has the index of the older one by that of the new one, -1 for none;
	// unclear those that may or may not be it, of which several has one that is.
	found   []int
	unclear [][]int
	several []bool
	refused []error
	step    *step
}

// goOn returns the addresses of the variables that the step goes on with, in the
// order of the patch's, and the blocks in which they are; nil if there are none.
func (s *step) goOn() (shared []specs.Addr, held []specs.Range[specs.Addr], err error) {
	if s.replaced == nil || len(s.patch.Variables) == 0 {
		return nil, nil, nil
	}
	m := &matching{old: s.replaced, new: s.patch.Variables, step: s}
	m.find()
	for i, j := range m.found {
		if j < 0 {
			continue
		}
		v, o := &m.new[i], &m.old.Variables[j]
		if v.Fresh {
			s.fresh = append(s.fresh, v.Name)
			continue
		}
		why, hint := disagree(o, v)
		if why == "" && v.Joined && !m.together(i) {
			why, hint = "code reaches it by its distance from other data, which is not where it was", hintJoined
		}
		if why != "" {
			m.refuse(i, why, hint)
			continue
		}
		block := slices.IndexFunc(m.old.blocks(), func(b specs.Range[specs.Addr]) bool { return b.Contains(o.At) })
		if shared == nil {
			shared = make([]specs.Addr, len(m.new))
		}
		shared[i] = o.At
		if b := m.old.blocks()[block]; !slices.Contains(held, b) {
			held = append(held, b)
		}
	}
	slices.SortFunc(held, func(a, b specs.Range[specs.Addr]) int { return compareAddr(a.Lo, b.Lo) })
	return shared, held, errors.Join(m.refused...)
}

func (m *matching) refuse(i int, why, hint string) {
	m.refused = append(m.refused, &StateError{Object: m.step.object.Path, Variable: m.new[i].Name, Unit: m.new[i].Unit,
		Old: m.old.ID, New: patchID(m.step.patch), Why: why, hint: hint})
}

// find fills found. A variable of which it is not clear which one it was is
// refused: it is neither another's value that it begins with, nor none.
func (m *matching) find() {
	n := len(m.new)
	m.found, m.unclear, m.several = make([]int, n), make([][]int, n), make([]bool, n)
	claimed := map[int]int{}
	for i := range m.new {
		fits := m.candidates(i)
		m.found[i], m.several[i] = -1, len(fits) > 1
		if len(fits) == 1 {
			m.found[i] = fits[0]
			claimed[fits[0]]++
		}
	}
	for i := range m.new {
		j := m.found[i]
		doubt := m.several[i] || j >= 0 && claimed[j] > 1 ||
			j < 0 && slices.ContainsFunc(m.unclear[i], func(o int) bool { return claimed[o] == 0 })
		if doubt && !m.new[i].Fresh {
			m.refuse(i, "several static variables have the name, or had it, and it is not clear which of them it is", hintUnclear)
		}
		if doubt {
			m.found[i] = -1
		}
	}
}

// together reports whether all variables that code reaches by their distance from
// the i-th are as far from it as in the older level, and none begins anew.
func (m *matching) together(i int) bool {
	symbol := func(k int) kpack.Symbol { return m.step.patch.Symbols[m.new[k].Symbol] }
	shift := func(k int) specs.Addr { return m.old.Variables[m.found[k]].At - specs.Addr(symbol(k).Value) }
	for k := range m.new {
		v := &m.new[k]
		if !v.Joined || v.Unit != m.new[i].Unit || symbol(k).Section != symbol(i).Section {
			continue
		}
		if m.found[k] < 0 || v.Fresh || shift(k) != shift(i) {
			return false
		}
	}
	return true
}

// candidates are the older variables that the i-th new one may be. Those of which
// only the functions that refer to them tell that they are others are left in
// unclear.
func (m *matching) candidates(i int) (fits []int) {
	v := &m.new[i]
	for j := range m.old.Variables {
		o := &m.old.Variables[j]
		if o.Name != v.Name || o.Unit != v.Unit && !(o.Global && v.Global) {
			continue
		}
		scoped := o.Scope != "" && v.Scope != ""
		switch {
		case !v.Numbered && !o.Numbered, scoped && o.Scope == v.Scope, !scoped && common(o.Users, v.Users):
			fits = append(fits, j)
		case !scoped:
			m.unclear[i] = append(m.unclear[i], j)
		}
	}
	same := slices.DeleteFunc(slices.Clone(fits), func(j int) bool { return !slices.Equal(m.old.Variables[j].Users, v.Users) })
	if len(fits) > 1 && len(same) == 1 {
		return same
	}
	return fits
}

func common(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// disagree says why the older variable cannot be the new one, or "", and what the
// author can do.
func disagree(o *recordedVariable, v *kpack.Variable) (why, hint string) {
	switch {
	case o.Size != v.Size:
		return fmt.Sprintf("it has %d bytes and had %d", v.Size, o.Size), hintRename
	case uint64(o.At)%v.Align != 0:
		return fmt.Sprintf("it has to be aligned to %d bytes", v.Align), hintRename
	case o.Layout != nil && v.Layout != nil && *o.Layout != *v.Layout && o.Type != v.Type:
		return fmt.Sprintf("it is of type %s and was of type %s", v.Type, o.Type), hintRename
	case o.Layout != nil && v.Layout != nil && *o.Layout != *v.Layout:
		return fmt.Sprintf("what its type %s consists of, or leads to, is not what it was", v.Type), hintRename
	case o.Initial != v.Initial:
		return "it begins with another value", hintInitial
	}
	return "", ""
}

// block is the memory of the variables that r brought; its size is 0 if there are
// none.
func (r *record) block() specs.Range[specs.Addr] { return r.at(r.State) }

// blocks are the memory of variables that r tells of: its own, and those of
// earlier levels.
func (r *record) blocks() []specs.Range[specs.Addr] {
	if r.State.Size == 0 {
		return r.Held
	}
	return append([]specs.Range[specs.Addr]{r.block()}, r.Held...)
}

// core is the memory that goes with r whatever becomes of its blocks, in the order
// in which it is unmapped: the record is last, just behind the code.
func (r *record) core() []piece {
	data, state := r.part(2), r.block()
	if r.State.Size == 0 {
		state = specs.Range[specs.Addr]{Lo: data.Hi, Hi: data.Hi}
	}
	rest := specs.Range[specs.Addr]{Lo: state.Hi, Hi: data.Hi}
	data.Hi = state.Lo
	return []piece{{data, perms[2]}, {rest, perms[2]}, {r.text(), perms[1]}, {r.part(0), perms[0]}}
}

// piece is memory of one protection.
type piece struct {
	specs.Range[specs.Addr]
	perm string
}

// kept reports whether a record of the process other than the given ones tells of
// a block.
func (p *Process) kept(block specs.Range[specs.Addr], but ...*record) bool {
	return slices.ContainsFunc(p.records, func(r *record) bool {
		return !slices.Contains(but, r) && slices.Contains(r.blocks(), block)
	})
}

// checkState reports what cannot be variables and blocks of r.
func (r *record) checkState() error {
	if d := r.Regions[2]; r.State.Size != 0 && (r.State.Offset < d.Offset || r.State.Size > d.Size || r.State.Offset-d.Offset > d.Size-r.State.Size) {
		return errors.New("the block of its variables is not in its memory")
	}
	if len(r.Held) > maxHeld || len(r.Variables) > maxRecordedVariables {
		return fmt.Errorf("%d variables in %d blocks", len(r.Variables), len(r.Held))
	}
	for _, b := range r.Held {
		if b.Lo >= b.Hi || b.Size() > 1<<31 || b.Lo%minPage != 0 || b.Hi%minPage != 0 {
			return fmt.Errorf("block %v is none", b)
		}
	}
	for _, v := range r.Variables {
		in := func(b specs.Range[specs.Addr]) bool { return b.Contains(v.At) && v.Size <= uint64(b.Hi-v.At) }
		if v.Size == 0 || !slices.ContainsFunc(r.blocks(), in) {
			return fmt.Errorf("variable %q is in no block", v.Name)
		}
	}
	return nil
}

// minPage is the size of the smallest page, in bytes.
const minPage = 4096

// shares reports whether two records tell of one block.
func shares(a, b *record) bool {
	return slices.ContainsFunc(a.blocks(), func(x specs.Range[specs.Addr]) bool { return slices.Contains(b.blocks(), x) })
}
