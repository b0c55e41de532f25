package unwind

import (
	"fmt"
	"io"
	"math"

	"github.com/fother/fother/specs"
)

const (
	windowSize = 4 << 10 // divides all page sizes
	windows    = 4
)

// window reads a stack in pieces of a page rather than a word. What it holds
// is good for one walk.
type window struct {
	mem  io.ReaderAt
	base [windows]uint64 // of the piece; 1 is none
	size [windows]int    // bytes that could be read
	data [windows][windowSize]byte
	room [16]byte // for what does not lie in one piece
}

func (w *window) reset() { w.base = [windows]uint64{1, 1, 1, 1} }

// bytes returns n bytes at addr, at most 16, until the next call.
func (w *window) bytes(addr uint64, n int) ([]byte, error) {
	if addr > math.MaxInt64-windowSize {
		return nil, memoryError(addr, nil)
	}
	off := int(addr % windowSize)
	base := addr - uint64(off)
	slot := int(base / windowSize % windows)
	if w.base[slot] != base {
		w.size[slot], _ = w.mem.ReadAt(w.data[slot][:], int64(base))
		w.base[slot] = base
	}
	if off+n <= w.size[slot] {
		return w.data[slot][off : off+n], nil
	}
	// Across pages, or in memory that does not begin with a page.
	if m, err := w.mem.ReadAt(w.room[:n], int64(addr)); m < n {
		return nil, memoryError(addr, err)
	}
	return w.room[:n], nil
}

// load returns size bytes at addr, at most 8, zero-extended.
func (w *window) load(addr, size uint64) (uint64, error) {
	var word [8]byte
	b, err := w.bytes(addr, int(size))
	if err != nil {
		return 0, err
	}
	copy(word[:], b)
	return le.Uint64(word[:]), nil
}

func memoryError(addr uint64, err error) error {
	if err == nil {
		return fmt.Errorf("memory at %v cannot be read", specs.Addr(addr))
	}
	return fmt.Errorf("memory at %v cannot be read: %w", specs.Addr(addr), err)
}
