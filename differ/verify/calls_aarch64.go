package verify

import "strings"

// scratch are the registers that a call may change, a bit for each: x0 to x18 and
// x30. linked are those that change with any call, for the linker may put a veneer
// between. Source: AAPCS64, 6.1.1 "General-purpose Registers".
const (
	linked  uint32 = 1<<16 | 1<<17 | 1<<30
	scratch uint32 = 1<<19 - 1 | 1<<30
)

// maxCalls bounds how far calls are followed from one function to the next.
const maxCalls = 16

// changes returns the registers that a call of what is at v may change. Of a
// function of its own unit, which nothing can take the place of, a compiler knows
// which those are, and keeps addresses in the others.
func (im *image) changes(v uint64, depth int) uint32 {
	if im.section(v) == nil && im.outer != nil {
		im = im.outer
	}
	e := within(im.funcs, v)
	if e == nil || depth >= maxCalls {
		return scratch
	}
	if mask, ok := im.changed[e]; ok {
		return mask
	}
	if im.changed == nil {
		im.changed = map[*entity]uint32{}
	}
	im.changed[e] = scratch // to those that it calls and that call it
	mask := im.changesOf(e, depth)
	im.changed[e] = mask
	return mask
}

// changesOf is changes for the code of e.
func (im *image) changesOf(e *entity, depth int) uint32 {
	mask, code := linked, im.bytes(e.addr, e.size)
	var in insn
	for at := 0; at < len(code); at += int(in.size) {
		im.isa.decode(code[at:], e.addr+uint64(at), &in)
		w := word(le.Uint32(in.shape[:]))
		switch {
		case in.bad, calls(w), in.flow == flowStop && in.refs == 0 && !leaves(&in):
			return scratch // it may go anywhere
		case in.refs > 0 && in.ref[0].use == useCall:
			mask |= im.changes(in.ref[0].value, depth+1)
		case in.refs > 0 && in.ref[0].use == useBranch:
			if to := in.ref[0].value; to < e.addr || to >= e.end() {
				mask |= im.changes(to, depth+1)
			}
		default:
			mask |= written(w)
		}
	}
	return mask & scratch
}

// endings are functions of the C and C++ libraries that do not return, apart from those
// whose names tell ([image.neverReturns]).
var endings = map[string]bool{
	"_Unwind_Resume": true, "__cxa_throw": true, "__cxa_rethrow": true, "__cxa_bad_cast": true, "__cxa_bad_typeid": true,
	"__cxa_throw_bad_array_new_length": true, "__clang_call_terminate": true, "_ZSt9terminatev": true,
	"abort": true, "exit": true, "_exit": true, "__assert_fail": true, "__stack_chk_fail": true, "__chk_fail": true,
}

// neverReturns reports whether what is at v is such a function. What follows a call of
// one is not run behind it.
func (im *image) neverReturns(v uint64) bool {
	ends, ok := im.endings[v]
	if !ok {
		if im.endings == nil {
			im.endings = map[uint64]bool{}
		}
		name := ""
		switch p := im.place(v); p.kind {
		case placeImport:
			name, _, _ = strings.Cut(p.name, "@")
		case placeCode:
			if n := p.ent.names[0]; !n.local {
				name = n.name
			}
		}
		ends = endings[name] || strings.HasPrefix(name, "_ZSt") && strings.Contains(name, "__throw_")
		im.endings[v] = ends
	}
	return ends
}

// written returns the registers that an instruction writes which is no branch.
func written(w word) (mask uint32) {
	var r registers
	for n := range r {
		r[n].known = true
	}
	r.clobber(w)
	for n := range r[:31] {
		if !r[n].known {
			mask |= 1 << n
		}
	}
	return mask
}

// calls reports whether an instruction calls what is in a register: blr, blraa and
// their like. Source: Arm ARM, C4.1, "Unconditional branch (register)".
func calls(w word) bool { return w&0xfefff000 == 0xd63f0000 }

// calls reports whether an instruction calls anything.
func (in *insn) calls() bool {
	return in.refs > 0 && in.ref[0].use == useCall || calls(word(le.Uint32(in.shape[:])))
}

// call forgets what a call of what is at v may change.
func (r *registers) call(im *image, v uint64, direct bool) {
	mask := scratch
	if direct && r.anyScratch() {
		mask = im.changes(v, 0)
	}
	r.forget(mask)
}

// forget forgets the registers of mask.
func (r *registers) forget(mask uint32) {
	for n := range r {
		if mask>>n&1 == 1 {
			r[n] = value{}
		}
	}
}

// anyScratch reports whether anything is known that a call may change.
func (r *registers) anyScratch() bool {
	for n := range r {
		if scratch>>n&1 == 1 && r[n].known {
			return true
		}
	}
	return false
}
