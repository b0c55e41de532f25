package elfobj

import (
	"bytes"
	"compress/zlib"
	"debug/elf"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// compressed makes a section that says it holds size bytes, compressed by kind.
func compressed(t *testing.T, kind elf.CompressionType, text string, size uint64) *Section {
	t.Helper()
	var b bytes.Buffer
	head := make([]byte, chdrSize)
	le.PutUint32(head, uint32(kind))
	le.PutUint64(head[8:], size)
	b.Write(head)
	if kind == elf.COMPRESS_ZSTD {
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
	} else {
		w := zlib.NewWriter(&b)
		if _, err := w.Write([]byte(text)); err != nil || w.Close() != nil {
			t.Fatal(err)
		}
	}
	return &Section{Name: ".debug_info", Type: elf.SHT_PROGBITS, Flags: elf.SHF_COMPRESSED, Size: uint64(b.Len()), data: b.Bytes()}
}

func TestUncompressed(t *testing.T) {
	text := strings.Repeat("debug data ", 1000)
	n := uint64(len(text))
	plain := &Section{Name: ".debug_info", Size: n, data: []byte(text)}
	old := compressed(t, elf.COMPRESS_ZLIB, text, n)
	old.Name, old.Flags = ".zdebug_info", 0
	old.data = append(binary.BigEndian.AppendUint64([]byte("ZLIB"), n), old.data[chdrSize:]...)
	old.Size = uint64(len(old.data))
	cut := compressed(t, elf.COMPRESS_ZLIB, text, n)
	cut.data = cut.data[:len(cut.data)-9]
	for name, c := range map[string]struct {
		s     *Section
		limit uint64
		err   string
	}{
		"plain":     {plain, n, ""},
		"zlib":      {compressed(t, elf.COMPRESS_ZLIB, text, n), n, ""},
		"zstd":      {compressed(t, elf.COMPRESS_ZSTD, text, n), n, ""},
		"old":       {old, n, ""},
		"too large": {compressed(t, elf.COMPRESS_ZLIB, text, n), n - 1, "want at most"},
		"bomb":      {compressed(t, elf.COMPRESS_ZSTD, text, 100), n, "not the 100 bytes"},
		"short":     {compressed(t, elf.COMPRESS_ZLIB, text, n+1), n + 1, "not the 11001 bytes"},
		"cut":       {cut, n, "EOF"},
		"kind":      {compressed(t, 77, text, n), n, "unknown compression"},
		"no header": {&Section{Name: ".debug_info", Flags: elf.SHF_COMPRESSED, Size: 8, data: make([]byte, 8)}, n, "without a header"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.s.Uncompressed(c.limit, func(r io.Reader) (io.ReadCloser, error) {
				d, err := zstd.NewReader(r)
				return d.IOReadCloser(), err
			})
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || c.err == "" && (err != nil || string(got) != text) {
				t.Errorf("%d bytes, error %v, want %q", len(got), err, c.err)
			}
		})
	}
}
