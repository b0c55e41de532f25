package link

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	arMagic     = "!<arch>\n"
	arThin      = "!<thin>\n"
	arHeader    = 60
	maxArNames  = 256 << 20
	maxArMember = 1 << 20 // members of one archive
)

// ErrNotArchive says that a file is not an ar archive.
var ErrNotArchive = errors.New("not an archive")

// Archive calls each for those members of the archive at path for whose name
// want is true, in file order. Names may repeat. Members of a thin archive are
// read from the files that it names. The format is that of System V and GNU ar
// (ar(5); BFD's archive.c describes thin archives).
func Archive(path string, want func(name string) bool, each func(name string, data io.ReadSeeker) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a := archive{r: f, size: info.Size(), dir: filepath.Dir(path), want: want, each: each}
	if err := a.read(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

type archive struct {
	r     io.ReaderAt
	size  int64
	dir   string
	want  func(string) bool
	each  func(string, io.ReadSeeker) error
	thin  bool
	names []byte // the // member
	count int
}

func (a *archive) read() error {
	var magic [len(arMagic)]byte
	if _, err := a.r.ReadAt(magic[:], 0); err != nil {
		return ErrNotArchive
	}
	switch string(magic[:]) {
	case arThin:
		a.thin = true
	case arMagic:
	default:
		return ErrNotArchive
	}
	for off := int64(len(arMagic)); off < a.size; {
		next, err := a.member(off)
		if err != nil {
			return fmt.Errorf("member at offset %d: %w", off, err)
		}
		off = next + next&1
	}
	return nil
}

// member reads the member whose header is at off and returns where it ends.
func (a *archive) member(off int64) (int64, error) {
	var h [arHeader]byte
	if _, err := a.r.ReadAt(h[:], off); err != nil {
		return 0, err
	}
	if h[58] != '`' || h[59] != '\n' {
		return 0, errors.New("bad header")
	}
	size, err := strconv.ParseInt(strings.TrimRight(string(h[48:58]), " "), 10, 64)
	if err != nil || size < 0 {
		return 0, errors.New("bad size")
	}
	raw := strings.TrimRight(string(h[:16]), " ")
	data := off + arHeader
	special := raw == "/" || raw == "/SYM64/" || raw == "//"
	inside := !a.thin || special
	if inside && size > a.size-data {
		return 0, fmt.Errorf("%d bytes, but the archive ends before", size)
	}
	end := data
	if inside {
		end += size
	}
	switch {
	case raw == "//":
		if size > maxArNames {
			return 0, errors.New("name table too large")
		}
		a.names = make([]byte, size)
		if _, err := a.r.ReadAt(a.names, data); err != nil {
			return 0, err
		}
		return end, nil
	case special:
		return end, nil
	}
	name, err := a.name(raw)
	if err != nil {
		return 0, err
	}
	return end, a.add(name, data, size)
}

// name resolves a header's name field.
func (a *archive) name(raw string) (string, error) {
	ref, ok := strings.CutPrefix(raw, "/")
	if !ok {
		return strings.TrimSuffix(raw, "/"), nil
	}
	ref, _, _ = strings.Cut(ref, ":") // thin: /OFFSET:ORIGIN for nested archives
	n, err := strconv.Atoi(ref)
	if err != nil || n < 0 || n >= len(a.names) {
		return "", fmt.Errorf("bad name %q", raw)
	}
	name, _, _ := bytes.Cut(a.names[n:], []byte("\n"))
	return strings.TrimSuffix(string(name), "/"), nil
}

func (a *archive) add(name string, data, size int64) error {
	if a.count++; a.count > maxArMember {
		return errors.New("too many members")
	}
	if !a.want(name) {
		return nil
	}
	if !a.thin {
		return a.each(name, io.NewSectionReader(a.r, data, size))
	}
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(a.dir, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.each(name, f)
}
