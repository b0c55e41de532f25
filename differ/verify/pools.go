package verify

// pool reports whether a place is among code, but in no function: where compilers for
// the large code model put constants and addresses.
func (p place) pool() bool {
	s := p.img.section(p.addr)
	return s != nil && s.exec && !s.plt && s.data != nil && (p.kind == placeAnon || p.kind == placeCode && p.ent.gap)
}

// constants compares what two operands read that are data, at least one of them among
// code: by what is there. It says whether they are. A patch has with its constants what
// a build has among its code.
func (w *walker) constants(x, y operand) (are, same bool) {
	size := uint64(max(x.size, y.size))
	switch px, py := x.place.pool(), y.place.pool(); {
	case x.use != y.use || x.use != useAccess && x.use != useTake || !px && !py:
		return false, false
	case px && py && (x.use != useAccess || size == 0):
		return false, false // it may be code
	case px != py && !(px || x.place.constant()) || px != py && !(py || y.place.constant()):
		return false, false
	}
	if size == 0 {
		size = min(x.place.img.room(x.place.addr), y.place.img.room(y.place.addr), maxContent)
	}
	return true, w.anon(x.place, y.place, size, w)
}

// constant reports whether a place is among data that nobody writes.
func (p place) constant() bool {
	s := p.img.section(p.addr)
	return s != nil && !s.exec && !s.write && s.data != nil
}

// room is [image.extent], and ends where the next function begins.
func (im *image) room(v uint64) uint64 {
	n := im.extent(v)
	i, _ := searchEntity(im.funcs, v+1)
	for ; i < len(im.funcs) && im.funcs[i].addr-v < n; i++ {
		if !im.funcs[i].gap {
			return im.funcs[i].addr - v
		}
	}
	return n
}
