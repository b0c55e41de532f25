package ptrace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// PageMap tells which pages of a process's memory have content.
type PageMap struct {
	f    *os.File
	page uint64
	// scans is false where the kernel has no PAGEMAP_SCAN.
	scans bool
	// looked counts pages whose entries were read one by one.
	looked uint64
}

// ErrManyPages means that memory is too large to look at each of its pages.
var ErrManyPages = errors.New("the process has more memory than this kernel (before Linux 6.7) lets a tool search")

// maxLooked bounds how many pages are looked at one by one: entries of 1 GiB. A
// sanitizer's shadow memory, most of which has no content, is a thousand times
// larger.
const maxLooked = 1 << 27

// OpenPageMap opens the page map of process pid. The caller closes it.
func OpenPageMap(pid int) (*PageMap, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return nil, err
	}
	return &PageMap{f: f, page: uint64(os.Getpagesize()), scans: true}, nil
}

// Close releases the descriptor.
func (m *PageMap) Close() error { return m.f.Close() }

// scanArg is struct pm_scan_arg, scanRegion struct page_region. Source:
// linux/fs.h, pagemap.rst.
type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages uint64
	inverted, mask, anyOf, returned                         uint64
}

type scanRegion struct{ start, end, categories uint64 }

const (
	pagemapScan = 3<<30 | unsafe.Sizeof(scanArg{})<<16 | 'f'<<8 | 16 // _IOWR

	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
	pageIsZero    = 1 << 5 // is the kernel's page of zeros
)

// Present returns the runs of pages in r, by rising address, that have content,
// swapped out or not. Pages of zeros that the kernel shares may be left out.
// Where no more than the ends of r are not those of pages, so are those of runs.
//
// Errors: [ErrManyPages].
func (m *PageMap) Present(r specs.Range[specs.Addr]) ([]specs.Range[specs.Addr], error) {
	if m.scans {
		runs, err := m.scan(r)
		if !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EINVAL) {
			return runs, err
		}
		m.scans = false
	}
	return m.look(r)
}

// scan asks the kernel for the runs, which passes over what has no page tables.
func (m *PageMap) scan(r specs.Range[specs.Addr]) (runs []specs.Range[specs.Addr], err error) {
	found := make([]scanRegion, 512)
	var pin runtime.Pinner
	pin.Pin(unsafe.SliceData(found)) // the kernel is given a number, which keeps nothing where it is
	defer pin.Unpin()
	a := scanArg{
		size: uint64(unsafe.Sizeof(scanArg{})), start: uint64(r.Lo) &^ (m.page - 1), end: (uint64(r.Hi) + m.page - 1) &^ (m.page - 1),
		vec: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(found)))), vecLen: uint64(len(found)),
		inverted: pageIsZero, mask: pageIsZero, anyOf: pageIsPresent | pageIsSwapped, returned: pageIsPresent,
	}
	for a.start < a.end {
		n, _, e := unix.Syscall(unix.SYS_IOCTL, m.f.Fd(), pagemapScan, uintptr(unsafe.Pointer(&a)))
		if e == unix.EINTR {
			continue
		} else if e != 0 {
			return nil, fmt.Errorf("pagemap: %w", e)
		}
		for _, f := range found[:min(int(n), len(found))] {
			runs = addRun(runs, r, specs.Addr(f.start), specs.Addr(f.end))
		}
		if a.walkEnd <= a.start {
			return nil, fmt.Errorf("pagemap: the scan ended at %#x of %#x", a.walkEnd, a.end)
		}
		a.start = a.walkEnd
	}
	return runs, nil
}

// look reads the entry of each page.
func (m *PageMap) look(r specs.Range[specs.Addr]) (runs []specs.Range[specs.Addr], err error) {
	const piece = 64 << 10       // pages
	const here = uint64(3) << 62 // present, or swapped. Source: pagemap.rst
	first, last := uint64(r.Lo)/m.page, (uint64(r.Hi)+m.page-1)/m.page
	if m.looked += last - first; m.looked > maxLooked {
		return nil, ErrManyPages
	}
	entries := make([]byte, 8*min(piece, last-first))
	for ; first < last; first += uint64(len(entries)) / 8 {
		entries = entries[:min(uint64(len(entries)), 8*(last-first))]
		if n, err := m.f.ReadAt(entries, int64(8*first)); n != len(entries) {
			return nil, fmt.Errorf("pagemap: %w", err)
		}
		for i := range uint64(len(entries)) / 8 {
			if binary.LittleEndian.Uint64(entries[8*i:])&here != 0 {
				runs = addRun(runs, r, specs.Addr((first+i)*m.page), specs.Addr((first+i+1)*m.page))
			}
		}
	}
	return runs, nil
}

// addRun adds [lo, hi), as far as it is in r, to runs.
func addRun(runs []specs.Range[specs.Addr], r specs.Range[specs.Addr], lo, hi specs.Addr) []specs.Range[specs.Addr] {
	lo, hi = max(lo, r.Lo), min(hi, r.Hi)
	if n := len(runs); n > 0 && runs[n-1].Hi == lo {
		runs[n-1].Hi = hi
		return runs
	}
	return append(runs, specs.Range[specs.Addr]{Lo: lo, Hi: hi})
}
