package unwind

import (
	"cmp"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// maxEHFrame is the size in bytes of the largest .eh_frame that is read.
const maxEHFrame = 256 << 20

// Object is the call frame information of one mapped object. It is immutable;
// walkers in several goroutines may share it.
type Object struct {
	// Range is what the object takes up in the process.
	Range specs.Range[specs.Addr]

	abi   *abi
	frame []byte // .eh_frame, and maybe what follows it
	addr  uint64 // of frame[0]
	// table are the entries of .eh_frame_hdr: pairs of signed 32-bit
	// distances from hdr, to a function and to its FDE, by rising function.
	table []byte
	hdr   uint64 // address of .eh_frame_hdr
	index []indexEntry
	plt   *plt // nil if its entries have call frame information, or none are known
}

// indexEntry stands for one FDE where .eh_frame_hdr has no table.
type indexEntry struct{ pc, fde uint64 }

// tableEntry is the size in bytes of an entry of .eh_frame_hdr.
const tableEntry = 8

// Section is a section's address in the process, and its bytes.
type Section struct {
	Addr specs.Addr
	Data []byte
}

// Load reads the call frame information of img through mem, whose offsets are
// run-time addresses. Executables that are linked statically have no
// .eh_frame_hdr: their read-only memory is searched. Where linkers make none for
// procedure linkage tables, their entries are known too. The error is
// [elfobj.ErrNoEHFrame] if img has none.
func Load(mem io.ReaderAt, img *elfobj.Image) (*Object, error) {
	o, err := load(mem, img)
	if err == nil && o.abi.plt != nil {
		o.plt = readPLT(mem, img, o.abi.plt)
	}
	return o, err
}

func load(mem io.ReaderAt, img *elfobj.Image) (*Object, error) {
	at, hdr, err := img.EHFrameHdr()
	if errors.Is(err, elfobj.ErrNoEHFrame) {
		return search(mem, img)
	}
	if err != nil {
		return nil, err
	}
	head, err := parseHdr(Section{at, hdr})
	if err != nil {
		return nil, fmt.Errorf("object at %v: %w", img.Base, err)
	}
	frame, err := readEHFrame(mem, img, specs.Addr(head.frame))
	if err != nil {
		return nil, fmt.Errorf("object at %v: .eh_frame: %w", img.Base, err)
	}
	o, err := New(img.Arch, img.Range, Section{at, hdr}, frame)
	if err != nil {
		return nil, fmt.Errorf("object at %v: %w", img.Base, err)
	}
	return o, nil
}

// readEHFrame reads from at to the end of the segment. Nothing in memory says
// where .eh_frame ends.
func readEHFrame(mem io.ReaderAt, img *elfobj.Image, at specs.Addr) (Section, error) {
	v := uint64(img.Bias.VAddr(at))
	for _, p := range img.Segments {
		if p.Type != elf.PT_LOAD || v < p.Vaddr || v-p.Vaddr >= p.Filesz {
			continue
		}
		return readSection(mem, at, p.Filesz-(v-p.Vaddr), maxEHFrame)
	}
	return Section{}, fmt.Errorf("%v: in no segment", at)
}

// readSection reads size bytes, of which there may be at most most.
func readSection(mem io.ReaderAt, at specs.Addr, size, most uint64) (Section, error) {
	if size > most || at > math.MaxInt64 {
		return Section{}, fmt.Errorf("%d bytes at %v: want at most %d", size, at, most)
	}
	b := make([]byte, size)
	if n, err := mem.ReadAt(b, int64(at)); n < len(b) {
		return Section{}, fmt.Errorf("%d bytes at %v: %w", size, at, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return Section{at, b}, nil
}

// New returns the call frame information that frame, the .eh_frame of an
// object at r, holds. If hdr, its .eh_frame_hdr, has no search table, or has
// no bytes at all, all of frame is read to make one.
func New(a *arch.Arch, r specs.Range[specs.Addr], hdr, frame Section) (*Object, error) {
	abi, ok := abis[a]
	if !ok {
		return nil, fmt.Errorf("%v: no unwinder", a)
	}
	o := &Object{Range: r, abi: abi, frame: frame.Data, addr: uint64(frame.Addr), hdr: uint64(hdr.Addr)}
	if len(hdr.Data) > 0 {
		h, err := parseHdr(hdr)
		if err != nil {
			return nil, err
		}
		o.table = h.table
	}
	if o.table == nil {
		if err := o.makeIndex(); err != nil {
			return nil, fmt.Errorf(".eh_frame: %w", err)
		}
	}
	return o, nil
}

// ehHdr is a decoded .eh_frame_hdr. Source: LSB core, "The .eh_frame_hdr
// section".
type ehHdr struct {
	frame uint64 // address of .eh_frame
	table []byte // nil if it is not of the form that all linkers make
}

func parseHdr(hdr Section) (ehHdr, error) {
	r := reader{b: hdr.Data, addr: uint64(hdr.Addr)}
	version, frameEnc, countEnc, tableEnc := r.u8(), r.u8(), r.u8(), r.u8()
	frame := r.pointer(frameEnc, r.addr)
	if r.err != nil {
		return ehHdr{}, fmt.Errorf(".eh_frame_hdr: %w", r.err)
	}
	if version != 1 {
		return ehHdr{}, fmt.Errorf(".eh_frame_hdr: version %d is not supported", version)
	}
	if countEnc == peOmit || tableEnc != peDatarel|peSdata4 {
		return ehHdr{frame: frame}, nil
	}
	count := r.pointer(countEnc, r.addr)
	if r.err != nil {
		return ehHdr{}, fmt.Errorf(".eh_frame_hdr: %w", r.err)
	}
	if count > uint64(r.left())/tableEntry {
		return ehHdr{}, fmt.Errorf(".eh_frame_hdr: %d entries: outside the section", count)
	}
	return ehHdr{frame: frame, table: r.bytes(count * tableEntry)}, nil
}

// makeIndex reads all FDEs.
func (o *Object) makeIndex() error {
	cies := map[uint64]*cie{}
	for off := uint64(0); off < uint64(len(o.frame)); {
		e, err := o.entry(off)
		if err != nil {
			return err
		}
		if e.size == 0 {
			o.frame = o.frame[:e.start] // the terminator
			break
		}
		off = e.next
		if e.cie == cieItself {
			continue
		}
		f, err := o.parseFDE(e, cies)
		if err != nil {
			return err
		}
		o.index = append(o.index, indexEntry{f.lo, o.addr + e.start})
	}
	slices.SortFunc(o.index, func(a, b indexEntry) int { return cmp.Compare(a.pc, b.pc) })
	return nil
}

// ErrNoCFI says that an object has no call frame information for an address.
var ErrNoCFI = errors.New("no call frame information")

// find returns the offset in o.frame of the FDE that may cover pc: the last
// one that begins at or before it.
func (o *Object) find(pc uint64) (uint64, error) {
	var fde uint64
	if o.table != nil {
		n := len(o.table) / tableEntry
		i := searchTable(o.table, n, pc-o.hdr)
		if i == 0 {
			return 0, ErrNoCFI
		}
		fde = o.hdr + uint64(int64(int32(le.Uint32(o.table[(i-1)*tableEntry+4:]))))
	} else {
		i, ok := slices.BinarySearchFunc(o.index, pc, func(e indexEntry, pc uint64) int { return cmp.Compare(e.pc, pc) })
		if ok {
			i++
		}
		if i == 0 {
			return 0, ErrNoCFI
		}
		fde = o.index[i-1].fde
	}
	if fde < o.addr || fde-o.addr >= uint64(len(o.frame)) {
		return 0, fmt.Errorf(".eh_frame_hdr: FDE at %#x: outside .eh_frame", fde)
	}
	return fde - o.addr, nil
}

// searchTable returns the number of the table's n entries that begin at or
// before the distance d from .eh_frame_hdr.
func searchTable(table []byte, n int, d uint64) int {
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if int64(int32(le.Uint32(table[mid*tableEntry:]))) <= int64(d) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
