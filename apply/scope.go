package apply

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// errNoDefinition means that no object of a scope defines a symbol.
var errNoDefinition = errors.New("no object of the process defines it")

// lookup finds the definition of a symbol to which the dynamic linker would
// bind a reference of self, and the object that it is in.
func (p *Process) lookup(self *object, name, version string) (*object, elfobj.Symbol, error) {
	scopes := p.scopesOf(self)
	for _, scope := range scopes {
		defs, err := definitions(scope, name, version, 1)
		if err != nil {
			return nil, elfobj.Symbol{}, err
		}
		if len(defs) == 0 {
			continue
		}
		if scope[0] != p.executable() && defs[0].symbol.Bind == uniqueBinding {
			// Whichever of them was asked for first is everybody's.
			if defs, err = definitions(p.searched(), name, version, 2); err != nil || len(defs) > 1 {
				return nil, elfobj.Symbol{}, errors.Join(err, several(defs))
			}
		}
		return defs[0].object, defs[0].symbol, nil
	}
	if scopes != nil {
		return nil, elfobj.Symbol{}, fmt.Errorf("%w (needed by %s)", errNoDefinition, self.Path)
	}
	return p.lookupUnscoped(self, name, version)
}

// lookupUnscoped is for processes whose dynamic linker does not tell in which
// objects it searches: if several define a name, it is not known which is meant.
func (p *Process) lookupUnscoped(self *object, name, version string) (*object, elfobj.Symbol, error) {
	defs, err := definitions(p.searched(), name, version, 2)
	switch {
	case err != nil:
		return nil, elfobj.Symbol{}, err
	case len(defs) == 0:
		return nil, elfobj.Symbol{}, fmt.Errorf("%w (needed by %s)", errNoDefinition, self.Path)
	case len(defs) > 1 && (self != p.executable() || defs[0].object != self):
		return nil, elfobj.Symbol{}, several(defs)
	}
	return defs[0].object, defs[0].symbol, nil
}

// uniqueBinding is STB_GNU_UNIQUE: all references of a process go to one of the
// definitions.
const uniqueBinding elf.SymBind = 10

// several refuses a name that more than one object defines.
func several(defs []definition) error {
	if len(defs) < 2 {
		return nil
	}
	return fmt.Errorf("%s and %s define it, and it cannot be told which of them the process uses", defs[0].object.Path, defs[1].object.Path)
}

// definition is a symbol in the object that defines it.
type definition struct {
	object *object
	symbol elfobj.Symbol
}

// definitions finds the first definitions of a symbol in objects, at most a
// number.
func definitions(objects []*object, name, version string, most int) (defs []definition, err error) {
	for _, o := range objects {
		s, ok, err := o.image.Lookup(name, version)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Path, err)
		}
		if ok {
			defs = append(defs, definition{o, s})
		}
		if len(defs) == most {
			break
		}
	}
	return defs, nil
}

// searched are the objects in which the dynamic linker may search: not the
// vDSO.
func (p *Process) searched() []*object {
	var all []*object
	for _, o := range p.objects {
		if !strings.HasPrefix(o.Path, "[") {
			all = append(all, o)
		}
	}
	return all
}

// Bounds of what is read of the dynamic linker's lists.
const (
	maxLinkMap = 2048 // bytes of one struct link_map
	maxScopes  = 64   // of one object
)

// scopesOf returns the lists of objects in which references of self are
// searched for, one after the other: mostly the executable's list, then that of
// the object that was opened and needs self. It is nil if they cannot be found.
//
// glibc keeps them in a part of struct link_map that differs between versions
// (l_scope, a pointer to pointers to struct r_scope_elem, the last one null).
// They are known by what they hold: lists that have only entries of the
// dynamic linker's list. Source: glibc, include/link.h.
func (p *Process) scopesOf(self *object) [][]*object {
	if s, known := p.scopes[self]; known {
		return s
	}
	nodes := make(map[specs.Addr]*object)
	for _, n := range p.linkMapNodes() {
		nodes[n.addr] = p.objectAt(n.dynamic)
	}
	var found [][]*object
	if own := p.linkMapOf(self); own != 0 {
		for _, w := range p.wordsAt(own, maxLinkMap) {
			if s := p.scopeList(specs.Addr(w), nodes); s != nil {
				found = s
				break
			}
		}
	}
	if p.scopes == nil {
		p.scopes = make(map[*object][][]*object)
	}
	p.scopes[self] = found
	return found
}

// scopeList reads the lists to which the words at a point, up to a null; nil
// if they are none.
func (p *Process) scopeList(a specs.Addr, nodes map[specs.Addr]*object) (scopes [][]*object) {
	for i, w := range p.wordsAt(a, 8*(maxScopes+1)) {
		if w == 0 {
			return scopes
		}
		elem := p.wordsAt(specs.Addr(w), 16)
		if i == maxScopes || len(elem) < 2 {
			return nil
		}
		n := uint64(uint32(elem[1])) // an unsigned int
		if n == 0 || n > uint64(len(nodes)) {
			return nil
		}
		list := p.wordsAt(specs.Addr(elem[0]), 8*n)
		if uint64(len(list)) != n {
			return nil
		}
		var scope []*object
		for _, at := range list {
			o, known := nodes[specs.Addr(at)]
			if !known {
				return nil
			}
			if o != nil && !strings.HasPrefix(o.Path, "[") {
				scope = append(scope, o)
			}
		}
		scopes = append(scopes, scope)
	}
	return nil
}

// wordsAt reads the words of n bytes at a, fewer where memory ends.
func (p *Process) wordsAt(a specs.Addr, n uint64) []uint64 {
	if a == 0 || a%8 != 0 {
		return nil
	}
	span := []ptrace.Span{{Addr: a, Buf: make([]byte, n)}}
	if p.mem.ReadSpans(span) != nil {
		return nil
	}
	var words []uint64
	for b := span[0].Buf[:span[0].N]; len(b) >= 8; b = b[8:] {
		words = append(words, binary.LittleEndian.Uint64(b))
	}
	return words
}
