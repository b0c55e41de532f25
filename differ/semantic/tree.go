package semantic

import (
	"debug/dwarf"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

var le = binary.LittleEndian

// node is an entry of the debug data (DIE), with the attributes that matter.
// Offsets of entries are 0 if there is none; sizes and places are -1.
type node struct {
	off         dwarf.Offset
	parent, end int32 // indices; end is behind the last descendant
	tag         dwarf.Tag
	place       place
	decl        bool // DW_AT_declaration
	external    bool
	abstract    bool // DW_AT_inline
	constant    bool // DW_AT_const_value
	virtual     bool
	hasCode     bool
	name, link  string
	typ         dwarf.Offset
	origin      dwarf.Offset // DW_AT_abstract_origin or DW_AT_specification
	size        int64        // bytes
	bits        int64        // width of a bit-field
	at          int64        // place of a member, in bits
	count       int64        // of an array
	align       int64
	value       int64  // of an enumerator, or the encoding of a base type
	expr        string // place of a member that is an expression
	file, line  int64
}

// place says where a variable is.
type place uint8

const (
	nowhere place = iota // optimized out, or told elsewhere
	static
	automatic
)

// tree is the entries of one unit, parents before children.
type tree struct {
	p     *Program
	u     *unit
	nodes []node
	types
}

// ref is an entry of some unit; its tree is nil for none, as the type void.
type ref struct {
	t *tree
	i int32
}

func (r ref) node() *node { return &r.t.nodes[r.i] }

const (
	tagGNUCallSite     = dwarf.Tag(0x4109)
	tagAtomic          = dwarf.Tag(0x47)
	attrDataBitOffset  = dwarf.AttrDataBitOffset
	opAddr, opAddrx    = 0x03, 0xa1
	opGNUAddrIndex     = 0xfb
	opPlusUconst       = 0x23
	opTLS, opGNUTLS    = 0x9b, 0xe0
	opConst4u, opConst = 0x0c, 0x0e // const8u; before a TLS operation
	opConstx, opGNUCon = 0xa2, 0xfc
)

// left are the entries that say nothing of types and storage.
var left = map[dwarf.Tag]bool{
	tagGNUCallSite: true, dwarf.TagCallSite: true, dwarf.TagLabel: true, dwarf.TagImportedDeclaration: true, dwarf.TagImportedModule: true,
	dwarf.TagTemplateTypeParameter: true, dwarf.TagTemplateValueParameter: true,
}

// load returns the entries of u.
func (p *Program) load(u *unit) (*tree, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.tree != nil {
		return u.tree, nil
	}
	t := &tree{p: p, u: u}
	if err := t.read(); err != nil {
		return nil, fmt.Errorf("debug data of %s: %w", u.source, err)
	}
	t.index()
	u.tree = t
	return t, nil
}

// drop forgets the entries of u, unless other units refer to them.
func (u *unit) drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.keep {
		u.tree = nil
	}
}

func (t *tree) read() error {
	r := t.p.data.Reader()
	r.Seek(t.u.off)
	names := map[string]string{}
	var open []int32
	for {
		e, err := r.Next()
		switch {
		case err != nil:
			return err
		case e == nil, e.Offset >= t.u.end:
			t.close(open)
			return nil
		case e.Tag == 0 && len(open) > 0:
			t.nodes[open[len(open)-1]].end = int32(len(t.nodes))
			open = open[:len(open)-1]
			continue
		case e.Tag == 0:
			continue
		case left[e.Tag]:
			r.SkipChildren()
			continue
		case len(t.nodes) == maxNodes || len(open) == maxNesting:
			return fmt.Errorf("more than %d entries, or %d levels", maxNodes, maxNesting)
		}
		n := newNode(e)
		n.parent = -1
		if len(open) > 0 {
			n.parent = open[len(open)-1]
		}
		n.name, n.link = intern(names, n.name), intern(names, n.link)
		n.end = int32(len(t.nodes)) + 1
		if e.Children {
			open = append(open, int32(len(t.nodes)))
		}
		t.nodes = append(t.nodes, n)
	}
}

// close ends the entries that the unit's end left open.
func (t *tree) close(open []int32) {
	for _, i := range open {
		t.nodes[i].end = int32(len(t.nodes))
	}
}

// intern keeps one copy of each name: entries of a damaged file may all name
// one string of a megabyte.
func intern(names map[string]string, s string) string {
	if s == "" {
		return ""
	}
	if have, ok := names[s]; ok {
		return have
	}
	s = strings.Clone(s)
	names[s] = s
	return s
}

func newNode(e *dwarf.Entry) node {
	n := node{off: e.Offset, tag: e.Tag, size: -1, bits: -1, at: -1, count: -1}
	oldBit := int64(-1)
	for _, f := range e.Field {
		if number, ok := f.Val.(int64); ok && f.Attr == dwarf.AttrBitOffset {
			oldBit = number
		}
		n.identity(f)
		n.shape(f)
	}
	if oldBit >= 0 && n.size > 0 && n.bits >= 0 {
		// DWARF 2 and 3: counted from the high end of the storage unit.
		n.at = max(n.at, 0) + n.size*8 - oldBit - n.bits
	}
	return n
}

// identity takes the attributes that tell what an entry is and where it is
// declared.
func (n *node) identity(f dwarf.Field) {
	number, _ := f.Val.(int64)
	offset, _ := f.Val.(dwarf.Offset)
	text, _ := f.Val.(string)
	flag, _ := f.Val.(bool)
	switch f.Attr {
	case dwarf.AttrName:
		n.name = text
	case dwarf.AttrLinkageName:
		n.link = text
	case dwarf.AttrType:
		n.typ = offset
	case dwarf.AttrSpecification, dwarf.AttrAbstractOrigin:
		n.origin = offset
	case dwarf.AttrDeclaration:
		n.decl = flag
	case dwarf.AttrExternal:
		n.external = flag
	case dwarf.AttrInline:
		const inlined, declaredInlined = 1, 3
		n.abstract = number == inlined || number == declaredInlined
	case dwarf.AttrVirtuality:
		n.virtual = number != 0
	case dwarf.AttrLowpc, dwarf.AttrRanges:
		n.hasCode = true
	case dwarf.AttrDeclFile:
		n.file = number
	case dwarf.AttrDeclLine:
		n.line = number
	}
}

// shape takes the attributes that tell how large an entry is, where it lies and
// what its value is.
func (n *node) shape(f dwarf.Field) {
	number, isNumber := f.Val.(int64)
	switch f.Attr {
	case dwarf.AttrConstValue:
		n.constant, n.value = true, number
	case dwarf.AttrEncoding:
		n.value = number
	case dwarf.AttrAlignment:
		n.align = number
	case dwarf.AttrByteSize:
		n.size = orNone(number, isNumber)
	case dwarf.AttrBitSize:
		n.bits = orNone(number, isNumber)
	case dwarf.AttrCount:
		n.count = orNone(number, isNumber)
	case dwarf.AttrUpperBound:
		n.count = orNone(number+1, isNumber)
	case attrDataBitOffset:
		n.at = number
	case dwarf.AttrDataMemberLoc:
		n.memberPlace(f.Val)
	case dwarf.AttrLocation:
		n.place = placeOf(f.Val)
	}
}

func orNone(n int64, ok bool) int64 {
	if !ok {
		return -1
	}
	return n
}

// memberPlace reads DW_AT_data_member_location.
func (n *node) memberPlace(v any) {
	switch v := v.(type) {
	case int64:
		n.at = v * 8
	case []byte:
		if len(v) > 1 && v[0] == opPlusUconst {
			if at, size := binary.Uvarint(v[1:]); size == len(v)-1 {
				n.at = int64(at) * 8
				return
			}
		}
		n.expr = fmt.Sprintf("%.100x", v)
	}
}

// placeOf tells static storage from what comes and goes with a call.
func placeOf(v any) place {
	expr, ok := v.([]byte)
	if !ok || len(expr) == 0 {
		return automatic // a list of places, or none now
	}
	switch expr[0] {
	case opAddr, opAddrx, opGNUAddrIndex:
		return static
	case opConst4u, opConst, opConstx, opGNUCon:
		if last := expr[len(expr)-1]; last == opTLS || last == opGNUTLS {
			return static
		}
	}
	return automatic
}

// find returns the entry at an offset, which may be another unit's.
func (t *tree) find(off dwarf.Offset) ref {
	if off == 0 {
		return ref{}
	}
	if off < t.u.off || off >= t.u.end {
		return t.foreign(off)
	}
	i, ok := slices.BinarySearchFunc(t.nodes, off, func(n node, off dwarf.Offset) int { return int(int64(n.off) - int64(off)) })
	if !ok {
		return ref{}
	}
	return ref{t, int32(i)}
}

// foreign finds an entry of another unit, as link-time optimization has them.
func (t *tree) foreign(off dwarf.Offset) ref {
	units := t.p.units
	i, found := slices.BinarySearchFunc(units, off, func(u *unit, off dwarf.Offset) int { return int(int64(u.off) - int64(off)) })
	if !found {
		i--
	}
	if i < 0 || off >= units[i].end || units[i] == t.u {
		return ref{}
	}
	units[i].mu.Lock()
	units[i].keep = true
	units[i].mu.Unlock()
	other, err := t.p.load(units[i])
	if err != nil {
		return ref{}
	}
	return other.find(off)
}

// children calls yield for the indices of i's children.
func (t *tree) children(i int32) func(yield func(int32) bool) {
	return func(yield func(int32) bool) {
		for k := i + 1; k < t.nodes[i].end; k = t.nodes[k].end {
			if !yield(k) {
				return
			}
		}
	}
}

// maxChain bounds how many declarations, typedefs and qualifiers follow each
// other.
const maxChain = 64

// told returns the first of r and the entries that it completes of which has
// says that they have something.
func (r ref) told(has func(*node) bool) *node {
	for n := 0; r.t != nil && n < maxChain; n++ {
		if has(r.node()) {
			return r.node()
		}
		r = r.t.find(r.node().origin)
	}
	return nil
}

// name returns the name of an entry.
func (r ref) name() string {
	if n := r.told(func(n *node) bool { return n.name != "" }); n != nil {
		return n.name
	}
	return ""
}

// symbol returns the linker's name of a function or variable.
func (r ref) symbol() string {
	if n := r.told(func(n *node) bool { return n.link != "" }); n != nil {
		return n.link
	}
	return r.name()
}

// typ returns the type of an entry, none for void.
func (r ref) typ() ref {
	for n := 0; r.t != nil && n < maxChain; n++ {
		if off := r.node().typ; off != 0 {
			return r.t.find(off)
		}
		r = r.t.find(r.node().origin)
	}
	return ref{}
}
