package kpack

// Offset returns where section i of the patch lies, in bytes from the base of
// the patch's memory.
func (l Layout) Offset(i int) uint64 { return l.sections[i] }
