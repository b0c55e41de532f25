package unwind

import (
	"debug/elf"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// TestReadOnlyIsBounded: segments may be one another, or have most in common, or end where
// nothing is mapped.
func TestReadOnlyIsBounded(t *testing.T) {
	const size, most = 8 << 20, 1000
	for name, c := range map[string]struct {
		step  uint64
		short int // bytes of the memory that are missing
		want  int // bytes read
	}{
		"the same":                       {0, 0, size},
		"each a page further":            {0x1000, 0, maxEHFrame},
		"each a page further, and short": {0x1000, most*0x1000 + 1, maxEHFrame},
	} {
		mem := &counting{memory: memory{addr: 0x400000, b: make([]byte, size+most*0x1000-c.short)}}
		img := &elfobj.Image{Range: specs.Range[specs.Addr]{Lo: 0x400000, Hi: 0x400000 + size + most*0x1000}}
		for i := range uint64(most) {
			img.Segments = append(img.Segments, elf.ProgHeader{Type: elf.PT_LOAD, Flags: elf.PF_R, Vaddr: 0x400000 + i*c.step, Filesz: size, Memsz: size})
		}
		for range readOnly(mem, img) {
		}
		if mem.n > c.want || mem.n < size/2 {
			t.Errorf("%s: %d KiB were read, want at most %d", name, mem.n>>10, c.want>>10)
		}
	}
}

// counting counts the bytes that are read.
type counting struct {
	memory
	n int
}

func (c *counting) ReadAt(b []byte, off int64) (int, error) {
	n, err := c.memory.ReadAt(b, off)
	c.n += n
	return n, err
}
