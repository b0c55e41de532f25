package apply

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"io"
	"slices"
	"sync"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// order sorts the objects as the dynamic linker searches them: the executable
// first, then by its list (link_map), then the rest by address.
func (p *Process) order() {
	rank := make(map[*object]int, len(p.objects))
	for i, o := range p.objects {
		rank[o] = maxObjects + i
	}
	if exe := p.executable(); exe != nil {
		rank[exe] = -1
		for i, node := range p.linkMap(exe) {
			if o := p.objectAt(node.dynamic); o != nil && rank[o] >= maxObjects {
				rank[o] = i
			}
		}
	}
	slices.SortStableFunc(p.objects, func(a, b *object) int { return cmp.Compare(rank[a], rank[b]) })
}

// executable returns the main program's object, found by the address of its
// program headers (AT_PHDR of the auxiliary vector), or nil.
func (p *Process) executable() *object {
	const atPHDR = 3
	all := scratch.Get().(*[4096]byte)
	defer scratch.Put(all)
	aux := p.aux
	if aux == nil {
		n, err := ptrace.ReadStart(auxFile(p.PID, p.PID), all[:])
		if err != nil {
			return nil
		}
		aux = all[:n]
	}
	for b := aux; len(b) >= 16; b = b[16:] {
		if binary.LittleEndian.Uint64(b) == atPHDR {
			return p.objectAt(specs.Addr(binary.LittleEndian.Uint64(b[8:])))
		}
	}
	return nil
}

// auxFile is the file with the auxiliary vector, by one of the process's threads.
func auxFile(pid, tid int) string { return ptrace.Folder(pid, tid) + "/auxv" }

// linkMapNode is an entry of the dynamic linker's list: its own address, and
// that of the object's dynamic section.
type linkMapNode struct{ addr, dynamic specs.Addr }

// linkMapNodes returns the list, or nil if there is none.
func (p *Process) linkMapNodes() []linkMapNode {
	if exe := p.executable(); exe != nil {
		return p.linkMap(exe)
	}
	return nil
}

// linkMapOf returns the address of an object's entry in the list, or 0.
func (p *Process) linkMapOf(o *object) specs.Addr {
	for _, node := range p.linkMapNodes() {
		if p.objectAt(node.dynamic) == o {
			return node.addr
		}
	}
	return 0
}

// linkMap returns the dynamic linker's list of all objects, in its order:
// DT_DEBUG leads to struct r_debug, that to the list of struct link_map.
// Source: link.h.
func (p *Process) linkMap(exe *object) []linkMapNode {
	const bound = 4096
	var debug specs.Addr
	for _, s := range exe.image.Segments {
		if s.Type != elf.PT_DYNAMIC || s.Memsz > 64<<10 {
			continue
		}
		b := make([]byte, s.Memsz)
		if readFull(p.mem, exe.image.Bias.Addr(specs.VAddr(s.Vaddr)), b) != nil {
			return nil
		}
		for ; len(b) >= 16; b = b[16:] {
			if elf.DynTag(binary.LittleEndian.Uint64(b)) == elf.DT_DEBUG {
				debug = specs.Addr(binary.LittleEndian.Uint64(b[8:]))
			}
		}
	}
	var order []linkMapNode
	var node [40]byte
	mem := pageReader{ReaderAt: p.mem, page: scratch.Get().(*[4096]byte)} // neighbours in the list often are in memory
	defer scratch.Put(mem.page)
	if debug == 0 || readFull(&mem, debug, node[:16]) != nil {
		return nil
	}
	next := binary.LittleEndian.Uint64(node[8:])
	for next != 0 && len(order) < bound && readFull(&mem, specs.Addr(next), node[:]) == nil {
		order = append(order, linkMapNode{specs.Addr(next), specs.Addr(binary.LittleEndian.Uint64(node[16:]))})
		next = binary.LittleEndian.Uint64(node[24:])
	}
	return order
}

// pageReader keeps the page that was read last: for small reads that are near
// each other. Of memory that changes meanwhile it may return what was there.
type pageReader struct {
	io.ReaderAt
	at   int64 // of the page, if n > 0
	n    int   // bytes of it
	page *[4096]byte
}

// scratch are pages for what is read of a process and not kept: on the stack of a
// short-lived goroutine they would make it grow.
var scratch = sync.Pool{New: func() any { return new([4096]byte) }}

// ReadAt implements [io.ReaderAt].
func (r *pageReader) ReadAt(b []byte, off int64) (int, error) {
	start := off &^ int64(len(r.page)-1)
	if off < 0 || off-start+int64(len(b)) > int64(len(r.page)) {
		return r.ReaderAt.ReadAt(b, off)
	}
	if r.n == 0 || r.at != start {
		n, err := r.ReaderAt.ReadAt(r.page[:], start)
		if r.at, r.n = start, n; n == 0 {
			return 0, err
		}
	}
	n := copy(b, r.page[min(int(off-start), r.n):r.n])
	if n < len(b) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}
