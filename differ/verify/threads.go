package verify

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/fother/fother/specs"
)

// Threads says where a patch has GOT entries of its own for thread-local
// storage, and what the numbers in them stand for. Source: "ELF Handling For
// Thread-Local Storage".
type Threads struct {
	// Entries has the address of each.
	Entries map[specs.VAddr]ThreadEntry
	// Blocks are the pretend blocks of thread-local storage: the target's, and
	// one for each imported variable. They do not overlap.
	Blocks []ThreadBlock
}

// ThreadEntry is what a GOT entry for thread-local storage consists of.
type ThreadEntry uint8

// The kinds of entries.
const (
	// ThreadOffset is one word, the distance from the thread pointer.
	ThreadOffset ThreadEntry = iota
	// ThreadPair is the number of a module, and an offset in its block.
	ThreadPair
	// ThreadDescriptor is the address of code, and what it works on.
	ThreadDescriptor
)

// ThreadBlock is a block of thread-local storage.
type ThreadBlock struct {
	// Name is NAME or NAME@VERSION of the imported variable that fills the
	// block, "" for the target's own.
	Name string
	// Module is the pretend number of the block, TP its distance in bytes from
	// the thread pointer.
	Module uint64
	TP     int64
	Size   uint64 // bytes
}

// patchThreads gives the patch's entries for thread-local storage the
// relocations that a linked file has for what they hold.
func (im *image) patchThreads(t Threads) {
	for at, kind := range t.Entries {
		im.relocs[uint64(at)] = im.threadEntry(t.Blocks, uint64(at), kind)
	}
}

// threadEntry reads the words of one entry. What stands for nothing that is
// known gets a name that no symbol has.
func (im *image) threadEntry(blocks []ThreadBlock, at uint64, kind ThreadEntry) dynReloc {
	first, _ := im.word(at)
	second, _ := im.word(at + 8)
	r := dynReloc{kind: relocTLS, sym: fmt.Sprintf("(words %s and %s, which stand for nothing)", hex(first), hex(second))}
	tp := first
	switch kind {
	case ThreadPair:
		r.typ = im.isa.tlsModule
		for _, b := range blocks {
			if b.Module == first && second <= b.Size {
				r.sym, r.addend = b.Name, second
			}
		}
		if r.sym == "" {
			r.addend = 0 // the linker leaves the offset in the second word
		}
		return r
	case ThreadDescriptor:
		r.typ = im.isa.tlsDescriptor
		if !bytes.HasPrefix(im.bytes(first, uint64(len(im.isa.tlsStatic))), im.isa.tlsStatic) {
			return r // the code does something else than adding the second word
		}
		tp = second
	default:
		r.typ = im.isa.tlsOffset
	}
	for _, b := range blocks {
		if off := tp - uint64(b.TP); off <= b.Size {
			r.sym, r.addend = b.Name, off
		}
	}
	return r
}

// threadData compares what the thread-local variables of both builds begin
// with. Of several with one name each is compared with the one at its place.
func (r *Report) threadData() {
	byName := func(t *tlsBlock) map[string][]tlsSym {
		m := map[string][]tlsSym{}
		for _, s := range t.syms {
			name, _ := family(s.name)
			m[name] = append(m[name], s)
		}
		return m
	}
	left, right := byName(&r.c.left.tls), byName(&r.c.right.tls)
	for _, name := range slices.Sorted(maps.Keys(right)) {
		if len(left[name]) != len(right[name]) {
			continue // who uses those that came or went has changed
		}
		for i, b := range right[name] {
			a := left[name][i]
			d := Datum{Name: b.name, Original: a.name}
			if d.First = r.c.threadVariable(a, b); d.First != nil {
				d.Verdict = Changed
			}
			r.Data = append(r.Data, d)
		}
	}
}

// threadVariable compares two thread-local variables.
func (c *comparison) threadVariable(a, b tlsSym) *Difference {
	d := &Difference{Function: b.name}
	if a.size != b.size {
		d.Original, d.Patched = fmt.Sprintf("has %d bytes", a.size), fmt.Sprintf("has %d bytes", b.size)
		return d
	}
	ta, tb := &c.left.tls, &c.right.tls
	filled := func(t *tlsBlock, s tlsSym) bool { return s.offset < t.filled && s.size <= t.filled-s.offset }
	x, y := place{img: c.left, addr: ta.addr + a.offset}, place{img: c.right, addr: tb.addr + b.offset}
	fa, fb := filled(ta, a), filled(tb, b)
	switch {
	case fa && fb:
		at := c.objectDifference(x, y, a.size, false)
		if at < 0 {
			return nil
		}
		d.OriginalOffset, d.PatchedOffset = uint64(at), uint64(at)
		d.Original, d.Patched = c.describe(x, y, uint64(at))
		return d
	case fa && !x.zero(a.size), fb && !y.zero(b.size):
		d.Original, d.Patched = fmt.Sprintf("begins as zero: %v", !fa), fmt.Sprintf("begins as zero: %v", !fb)
		return d
	}
	return nil
}

// zero reports whether n bytes are zero and no relocation changes them.
func (p place) zero(n uint64) bool {
	for at := range n {
		if _, ok := p.img.relocs[p.addr+at]; ok {
			return false
		}
	}
	return zeros(p.img.bytes(p.addr, n))
}
