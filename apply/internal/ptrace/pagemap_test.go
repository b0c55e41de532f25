package ptrace

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/testenv"
)

// TestPageMap: both ways to ask find the pages that were written to, and of
// memory that is too large only the kernel's own is tried.
func TestPageMap(t *testing.T) {
	const size = 4 << 40
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		testenv.Skip(t, "the address space is limited: "+err.Error())
	}
	defer unix.Munmap(b)
	page := os.Getpagesize()
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	base := specs.Addr(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	b[10*page], b[11*page], b[3000*page+5], b[size-1] = 1, 1, 1, 1
	at := func(lo, hi int) specs.Range[specs.Addr] {
		return specs.Range[specs.Addr]{Lo: base + specs.Addr(lo), Hi: base + specs.Addr(hi)}
	}
	m, err := OpenPageMap(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, scans := range []bool{true, false} {
		m.scans = scans
		runs, err := m.Present(at(10*page+8, 4000*page))
		if want := []specs.Range[specs.Addr]{at(10*page+8, 12*page), at(3000*page, 3001*page)}; err != nil || !slices.Equal(runs, want) {
			t.Errorf("scans %v: %v, %v; want %v", scans, runs, err, want)
		}
	}
	if m.scans = true; !scansHere(m, base) {
		t.Log("this kernel has no PAGEMAP_SCAN")
	} else if runs, err := m.Present(at(5000*page, size)); err != nil || !slices.Equal(runs, []specs.Range[specs.Addr]{at(size-page, size)}) {
		t.Errorf("all: %v, %v", runs, err)
	}
	m.scans = false
	if _, err := m.Present(at(0, size)); !errors.Is(err, ErrManyPages) {
		t.Errorf("all, page by page: %v", err)
	}
	if !bytes.Equal(b[10*page:10*page+2], []byte{1, 0}) {
		t.Error("the memory has changed")
	}
}

// scansHere reports whether the kernel has PAGEMAP_SCAN.
func scansHere(m *PageMap, a specs.Addr) bool {
	_, err := m.scan(specs.Range[specs.Addr]{Lo: a, Hi: a + 1})
	return err == nil
}

// TestPageMapPieces: more runs than one call returns.
func TestPageMapPieces(t *testing.T) {
	page, n := os.Getpagesize(), 1500
	b, err := unix.Mmap(-1, 0, 2*n*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	if err := unix.Madvise(b, unix.MADV_NOHUGEPAGE); err != nil && !errors.Is(err, unix.EINVAL) {
		t.Fatal(err)
	}
	for i := range n {
		b[2*i*page] = 1
	}
	base := specs.Addr(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	m, err := OpenPageMap(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, scans := range []bool{true, false} {
		m.scans = scans
		runs, err := m.Present(specs.Range[specs.Addr]{Lo: base, Hi: base + specs.Addr(len(b))})
		if err != nil || len(runs) != n || runs[n-1].Lo != base+specs.Addr(2*(n-1)*page) || runs[n-1].Size() != uint64(page) {
			t.Errorf("scans %v: %d runs, %v; want %d", scans, len(runs), err, n)
		}
	}
}

// TestPageMapDeepInTheStack: the kernel writes where the runs are read, also if the
// goroutine's stack has to grow, and so moves, between.
func TestPageMapDeepInTheStack(t *testing.T) {
	b, err := unix.Mmap(-1, 0, 4*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	b[os.Getpagesize()] = 1
	lo := specs.Addr(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	page := specs.Addr(os.Getpagesize())
	want := []specs.Range[specs.Addr]{{Lo: lo + page, Hi: lo + 2*page}}
	m, err := OpenPageMap(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for depth := range 1200 { // some 64 KiB
		done := make(chan bool)
		go func() {
			defer close(done)
			runs, err := presentAt(depth, m, specs.Range[specs.Addr]{Lo: lo, Hi: lo + 4*page})
			if err != nil || !slices.Equal(runs, want) {
				t.Errorf("depth %d: %v, %v; want %v", depth, runs, err, want)
			}
		}()
		<-done
	}
}

//go:noinline
func presentAt(depth int, m *PageMap, r specs.Range[specs.Addr]) ([]specs.Range[specs.Addr], error) {
	if depth > 0 {
		return presentAt(depth-1, m, r)
	}
	return m.Present(r)
}
