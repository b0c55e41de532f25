package apply

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// threadResolver finds thread-local symbols for patches of self: the module id
// and the offset from the thread pointer come from the program headers if the
// executable defines the symbol, from words that the dynamic linker filled in
// self, or from its list of objects, read as debuggers do.
func (p *Process) threadResolver(self *object) kpack.ThreadResolver {
	return func(sym kpack.Symbol) (kpack.ThreadPlace, error) {
		owner, at := self, kpack.ThreadPlace{Offset: sym.Value}
		if sym.Binding == kpack.Imported {
			var err error
			if owner, at.Offset, err = p.findThreadLocal(self, sym); err != nil {
				return at, err
			}
		}
		if owner == p.executable() {
			block, err := blockOffset(owner)
			at.Module, at.Static, at.TP = 1, true, block+int64(at.Offset)
			return at, err
		}
		t, bias := sym.Thread, self.image.Bias
		var err error
		if owner == self && t.Module != 0 {
			if at.Module, err = p.word(bias.Addr(t.Module)); err != nil {
				return at, err
			}
		}
		if t.Slot != 0 {
			v, err := p.word(bias.Addr(t.Slot))
			if err != nil {
				return at, err
			}
			if v != 0 { // else the dynamic linker has not come to it yet
				at.Static, at.TP = true, int64(v)-t.Offset
			}
		}
		if at.Module != 0 && at.Static {
			return at, nil
		}
		// What is still missing may be more than what is needed: Link tells.
		module, tp, static, err := p.moduleOf(owner)
		if err != nil {
			return at, nil
		}
		if at.Module == 0 {
			at.Module = module
		}
		if !at.Static && static {
			at.Static, at.TP = true, tp+int64(at.Offset)
		}
		return at, nil
	}
}

// findThreadLocal returns the object that defines an imported thread-local
// symbol, and the symbol's offset in its block.
func (p *Process) findThreadLocal(self *object, sym kpack.Symbol) (*object, uint64, error) {
	owner, found, err := p.lookup(self, sym.Name, sym.Import.Version)
	if err != nil {
		return nil, 0, err
	}
	if found.Type != elf.STT_TLS {
		return nil, 0, fmt.Errorf("%s: is no thread-local variable", owner.Path)
	}
	return owner, found.Value, nil
}

// blockOffset returns the distance in bytes of an executable's TLS block from
// the thread pointer.
func blockOffset(o *object) (int64, error) {
	for _, s := range o.image.Segments {
		if s.Type == elf.PT_TLS {
			return kpack.ThreadOffset(o.image.Arch, s)
		}
	}
	return 0, fmt.Errorf("%s has no thread-local storage", o.Path)
}

// word reads 8 bytes of the process.
func (p *Process) word(a specs.Addr) (uint64, error) {
	var b [8]byte
	err := readFull(p.mem, a, b[:])
	return binary.LittleEndian.Uint64(b[:]), err
}

var errNoModule = errors.New("the dynamic linker does not say where the object's thread-local storage is")

// moduleOf asks the dynamic linker's list for an object's module id and for the
// distance of its block from the thread pointer, if it is the same in all
// threads. Where in struct link_map they are, the C library tells debuggers.
// Source: glibc, nptl_db/db_info.c and structs.def.
func (p *Process) moduleOf(o *object) (module uint64, tp int64, static bool, err error) {
	id, err := p.linkMapField("l_tls_modid")
	if err != nil {
		return 0, 0, false, err
	}
	offset, err := p.linkMapField("l_tls_offset")
	if err != nil {
		return 0, 0, false, err
	}
	for _, node := range p.linkMapNodes() {
		if p.objectAt(node.dynamic) != o {
			continue
		}
		if module, err = p.word(node.addr + id); err != nil {
			return 0, 0, false, err
		}
		v, err := p.word(node.addr + offset)
		if err != nil || module == 0 || module > maxObjects {
			return 0, 0, false, errors.Join(errNoModule, err)
		}
		// 0, -1 and -2 say that it is not known or not the same everywhere.
		if v == 0 || v > maxStaticTLS {
			return module, 0, false, nil
		}
		if tp = int64(v); o.image.Arch.ThreadsBelow {
			tp = -tp
		}
		return module, tp, true, nil
	}
	return 0, 0, false, errNoModule
}

// maxStaticTLS bounds the distance of a block from the thread pointer, in
// bytes.
const maxStaticTLS = 1 << 30

// linkMapField returns the offset of a field of 8 bytes in struct link_map: a
// variable for debuggers holds its size in bits, how many there are, and its
// offset.
func (p *Process) linkMapField(name string) (specs.Addr, error) {
	const bound = 64 << 10
	for _, o := range p.objects {
		s, ok, err := o.image.Lookup("_thread_db_link_map_"+name, "GLIBC_PRIVATE")
		if err != nil || !ok {
			continue
		}
		var b [12]byte
		if err := readFull(p.mem, specs.Addr(s.Value), b[:]); err != nil {
			return 0, err
		}
		bits, count, offset := binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
		if bits != 64 || count != 1 || offset > bound || offset%8 != 0 {
			return 0, errNoModule
		}
		return specs.Addr(offset), nil
	}
	return 0, errNoModule
}
