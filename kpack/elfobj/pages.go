package elfobj

import (
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/fother/fother/specs"
)

const (
	// pageSize divides the page sizes of all kernels, so that a page is
	// mapped as a whole or not at all.
	pageSize = 4 << 10
	// maxPages bounds what is kept: 16 MiB.
	maxPages = 4096
)

// pages reads a process's memory and keeps the pages that it read.
type pages struct {
	mem io.ReaderAt

	mu   sync.Mutex
	kept map[specs.Addr][]byte
}

// read returns n bytes at a. The caller has bounded n, and does not change
// the bytes.
func (p *pages) read(a specs.Addr, n uint64) ([]byte, error) {
	if a > math.MaxInt64 || n > math.MaxInt64-uint64(a) {
		return nil, fmt.Errorf("%#x bytes at %v: no such memory", n, a)
	}
	if off := uint64(a) % pageSize; n <= pageSize-off {
		page, err := p.page(a - specs.Addr(off))
		if err != nil || uint64(len(page)) < off+n {
			return nil, fmt.Errorf("%#x bytes at %v: %w", n, a, noEOF(err))
		}
		return page[off : off+n : off+n], nil
	}
	b := make([]byte, n)
	if m, err := p.mem.ReadAt(b, int64(a)); uint64(m) < n {
		return nil, fmt.Errorf("%#x bytes at %v: %w", n, a, noEOF(err))
	}
	return b, nil
}

// page returns the page at a, or as much of it as can be read.
func (p *pages) page(a specs.Addr) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if b, ok := p.kept[a]; ok {
		return b, nil
	}
	b := make([]byte, pageSize)
	n, err := p.mem.ReadAt(b, int64(a))
	if n == 0 {
		return nil, noEOF(err)
	}
	if p.kept == nil || len(p.kept) >= maxPages {
		p.kept = map[specs.Addr][]byte{}
	}
	p.kept[a] = b[:n]
	return b[:n], nil
}
