package verify

import (
	"slices"
	"strings"
)

// seeThrough makes the linker's veneers mean what they lead to: where a branch needs one
// depends on how far away things lie, and is no difference between two builds.
func (im *image) seeThrough() {
	if im.isa.veneer == nil {
		return
	}
	im.veneers = map[uint64]uint64{}
	im.funcs = slices.DeleteFunc(im.funcs, func(e *entity) bool {
		if !slices.ContainsFunc(e.names, veneerName) {
			return false
		}
		to, ok := im.isa.veneer(im.bytes(e.addr, maxVeneer), e.addr)
		if ok {
			im.veneers[e.addr] = to
		}
		return ok
	})
}

// maxVeneer is the length in bytes of the longest veneer.
const maxVeneer = 16

// veneerName reports whether a symbol is named as ld.bfd and lld name their veneers.
func veneerName(n symName) bool {
	return n.local && strings.HasPrefix(n.name, "__") && (strings.HasSuffix(n.name, "_veneer") || strings.Contains(n.name, "Thunk_"))
}
