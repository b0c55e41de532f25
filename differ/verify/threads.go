package verify

import (
	"bytes"
	"fmt"

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
