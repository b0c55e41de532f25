package elfobj

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// Header of a section with SHF_COMPRESSED: ch_type, padding, ch_size,
// ch_addralign (gABI, "Section Compression"). Older linkers call the section
// .zdebug_… and begin it with "ZLIB" and the size, big-endian.
const (
	chdrSize   = 24
	zdebugName = ".zdebug_"
	zdebugSize = 12
)

// Opener opens a compressed stream.
type Opener func(io.Reader) (io.ReadCloser, error)

// Uncompressed returns the section's bytes, inflated if they are compressed. It
// refuses a section that is larger than limit bytes, whatever it claims to be.
// The caller brings zstd, so that programs which need none do not link it.
func (s *Section) Uncompressed(limit uint64, zstd Opener) ([]byte, error) {
	size, body := s.Size, s.data
	var open Opener
	switch {
	case s.Flags&elf.SHF_COMPRESSED != 0 && len(body) >= chdrSize:
		size = le.Uint64(body[8:])
		switch elf.CompressionType(le.Uint32(body)) {
		case elf.COMPRESS_ZLIB:
			open = zlib.NewReader
		case elf.COMPRESS_ZSTD:
			open = zstd
		}
		body = body[chdrSize:]
	case s.Flags&elf.SHF_COMPRESSED != 0:
		return nil, fmt.Errorf("%s: compressed, without a header", s.Name)
	case strings.HasPrefix(s.Name, zdebugName) && len(body) >= zdebugSize && string(body[:4]) == "ZLIB":
		open, size = zlib.NewReader, binary.BigEndian.Uint64(body[4:])
		body = body[zdebugSize:]
	default:
		open = nil
	}
	switch {
	case size > limit:
		return nil, fmt.Errorf("%s: %d bytes: want at most %d", s.Name, size, limit)
	case len(body) == len(s.data):
		return s.data, nil
	case open == nil:
		return nil, fmt.Errorf("%s: unknown compression", s.Name)
	}
	r, err := open(bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, int64(size)+1)) // grows with what is there
	if err == nil && uint64(len(data)) != size {
		err = fmt.Errorf("not the %d bytes that its header says", size)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	return data, nil
}
