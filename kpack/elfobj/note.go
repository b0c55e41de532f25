package elfobj

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/fother/fother/specs"
)

const (
	ntGNUBuildID = 3 // NT_GNU_BUILD_ID
	// maxNotes is the size in bytes of the largest note segment that is read.
	// Build-ids are first or nearly so; core files have larger ones.
	maxNotes = 64 << 10
	// maxSegments bounds the program headers of an object in memory. ld makes
	// about a dozen.
	maxSegments = 1024
)

// noteBuildID looks for a build-id in notes that are aligned to align bytes.
// Source: gABI, "Note Section": 4, or 8 for segments with that alignment.
func noteBuildID(b []byte, align uint64) (specs.BuildID, error) {
	if align != 8 {
		align = 4
	}
	for len(b) >= 12 {
		namesz, descsz, typ := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[8:])
		desc := (12 + namesz + align - 1) &^ (align - 1)
		end := desc + descsz
		if end > uint64(len(b)) {
			return "", errors.New("note: extends past its segment")
		}
		if typ == ntGNUBuildID && namesz == 4 && string(b[12:16]) == "GNU\x00" {
			return specs.NewBuildID(b[desc:end])
		}
		b = b[min((end+align-1)&^(align-1), uint64(len(b))):]
	}
	return "", ErrNoBuildID
}

// BuildID returns the build-id from the note segments, or from the note
// sections if there are no note segments. The error is [ErrNoBuildID] if the
// file has none.
func (f *File) BuildID() (specs.BuildID, error) {
	id, err := findBuildID(f.Segments, func(p *elf.ProgHeader) ([]byte, error) {
		b, ok := f.slice(p.Off, min(p.Filesz, maxNotes))
		if !ok {
			return nil, fmt.Errorf("%#x bytes at offset %#x: outside the file", p.Filesz, p.Off)
		}
		return b, nil
	})
	if !errors.Is(err, ErrNoBuildID) {
		return id, f.wrap(err)
	}
	for i := range f.Sections {
		s := &f.Sections[i]
		if s.Type != elf.SHT_NOTE {
			continue
		}
		if id, err = noteBuildID(s.data, s.Align); !errors.Is(err, ErrNoBuildID) {
			return id, f.wrap(err)
		}
	}
	return "", f.wrap(ErrNoBuildID)
}

// findBuildID reads note segments until one has a build-id.
func findBuildID(segs []elf.ProgHeader, read func(*elf.ProgHeader) ([]byte, error)) (specs.BuildID, error) {
	for i := range segs {
		if segs[i].Type != elf.PT_NOTE {
			continue
		}
		b, err := read(&segs[i])
		if err != nil {
			return "", fmt.Errorf("note segment: %w", err)
		}
		if id, err := noteBuildID(b, segs[i].Align); !errors.Is(err, ErrNoBuildID) {
			return id, err
		}
	}
	return "", ErrNoBuildID
}

// ReadBuildID returns the build-id of the ELF file that r reads, and reads
// the headers and the note segments only. It is for scans of many files; the
// error is [ErrNoBuildID] if no note segment has one.
func ReadBuildID(r io.ReaderAt) (specs.BuildID, error) {
	var first [1024]byte // holds header, program headers and notes as a rule
	n, err := r.ReadAt(first[:], 0)
	if n == 0 && err != nil && err != io.EOF {
		return "", err
	}
	read := func(off, size uint64) ([]byte, error) {
		if off <= uint64(n) && size <= uint64(n)-off {
			return first[off : off+size], nil
		}
		if off > math.MaxInt64 {
			return nil, fmt.Errorf("offset %#x: outside the file", off)
		}
		b := make([]byte, size)
		if m, err := r.ReadAt(b, int64(off)); m < len(b) {
			return nil, fmt.Errorf("%#x bytes at offset %#x: %w", size, off, noEOF(err))
		}
		return b, nil
	}
	_, segs, err := readHeaders(first[:n], read)
	if err != nil {
		return "", err
	}
	return findBuildID(segs, func(p *elf.ProgHeader) ([]byte, error) {
		return read(p.Off, min(p.Filesz, maxNotes))
	})
}

// readHeaders reads the ELF header in first and the program headers through
// read, whose offsets count from the header.
func readHeaders(first []byte, read func(off, n uint64) ([]byte, error)) (header, []elf.ProgHeader, error) {
	h, err := parseHeader(first)
	if err != nil {
		return header{}, nil, err
	}
	if h.phnum > maxSegments {
		return header{}, nil, fmt.Errorf("%d program headers: want at most %d", h.phnum, maxSegments)
	}
	table, err := read(h.phoff, uint64(h.phnum)*phdrSize)
	if err != nil {
		return header{}, nil, fmt.Errorf("program headers: %w", err)
	}
	segs := make([]elf.ProgHeader, h.phnum)
	for i := range segs {
		if segs[i], err = parseSegment(table[i*phdrSize:]); err != nil {
			return header{}, nil, fmt.Errorf("segment %d: %w", i, err)
		}
	}
	return h, segs, nil
}

// noEOF makes of the end of what is read an error that says so.
func noEOF(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
