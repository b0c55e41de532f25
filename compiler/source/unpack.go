package source

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// ErrTooLarge says that an archive, or what is in it, is larger than any
// source.
var ErrTooLarge = errors.New("too large for a source")

// errUnknown is for files that are no archive that we know.
var errUnknown = errors.New("not an archive that is known: want tar, alone or compressed by gzip, xz, bzip2 or zstd, or zip")

// maxWindow bounds the memory of zstd in bytes. It is what zstd --ultra -22
// needs.
const maxWindow = 128 << 20

// unpack unpacks an archive of the given size into the new folder dst. The
// form of the archive is told from its first bytes.
func unpack(ctx context.Context, dst string, archive io.ReaderAt, size int64) error {
	if err := errors.Join(os.Mkdir(dst, 0o755), os.Chmod(dst, 0o755)); err != nil {
		return err
	}
	root, err := os.OpenRoot(dst)
	if err != nil {
		return err
	}
	defer root.Close()
	w := newWriter(root, size)
	magic := make([]byte, 512)
	n, err := archive.ReadAt(magic, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	magic = magic[:n]
	if bytes.HasPrefix(magic, []byte("PK\x03\x04")) || bytes.HasPrefix(magic, []byte("PK\x05\x06")) {
		err = w.zip(ctx, archive, size)
	} else {
		err = w.stream(ctx, magic, io.NewSectionReader(archive, 0, size))
	}
	if err != nil {
		return err
	}
	if w.entries == 0 {
		return errors.New("the archive is empty")
	}
	return w.finish()
}

// stream unpacks a tar archive that may be compressed.
func (w *writer) stream(ctx context.Context, magic []byte, r io.Reader) error {
	plain, compressed, err := decompress(magic, ctxReader(ctx, r))
	if err != nil {
		return broken(err)
	}
	defer plain.Close()
	// What is read is little, what comes out of it can be much: both ask.
	in := &tarStream{r: ctxReader(ctx, plain), left: w.left}
	err = w.tar(tar.NewReader(in))
	if err == nil {
		// The checksum of the compression is at the end.
		_, err = io.Copy(io.Discard, in)
	}
	if err == nil && !in.complete() {
		err = io.ErrUnexpectedEOF
	}
	var unsafe *UnsafeError
	if err != nil && !compressed && w.entries == 0 && !isTar(magic) && !errors.As(err, &unsafe) {
		return errUnknown
	}
	return broken(err)
}

// isTar reports whether a tar archive that is younger than 1988 begins so.
func isTar(magic []byte) bool { return len(magic) > 262 && string(magic[257:262]) == "ustar" }

// broken says of an error in reading that it is the archive's, unless it has a
// class already.
func broken(err error) error {
	var unsafe *UnsafeError
	var file *fs.PathError
	var link *os.LinkError
	if err == nil || errors.Is(err, ErrTooLarge) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &unsafe) || errors.As(err, &file) || errors.As(err, &link) {
		return err
	}
	return fmt.Errorf("broken archive: %w", err)
}

// decompress returns the content of r, which begins with magic.
func decompress(magic []byte, r io.Reader) (plain io.ReadCloser, compressed bool, err error) {
	begins := func(s string) bool { return bytes.HasPrefix(magic, []byte(s)) }
	switch {
	case begins("\x1f\x8b"):
		plain, err = gzip.NewReader(r)
	case begins("BZh"):
		plain = io.NopCloser(bzip2.NewReader(r))
	case begins("\xfd7zXZ\x00"):
		// The reader makes a dictionary as large as a block says, up to 4 GiB,
		// and knows no limit. Most often it costs memory only as far as output
		// is written to it.
		var x *xz.Reader
		x, err = xz.NewReader(r)
		plain = io.NopCloser(x)
	case begins("\x28\xb5\x2f\xfd"), len(magic) > 3 && magic[0]&0xf0 == 0x50 && begins(string(magic[:1])+"\x2a\x4d\x18"):
		var d *zstd.Decoder
		d, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err == nil {
			plain = d.IOReadCloser()
		}
	default:
		return io.NopCloser(r), false, nil
	}
	return plain, true, err
}

// tarStream is the bytes of a tar archive. It ends with ErrTooLarge when more
// come than are left.
type tarStream struct {
	r     io.Reader
	left  int64
	zeros int64 // how many of the last bytes were 0
}

func (s *tarStream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if s.left -= int64(n); s.left < 0 {
		return 0, ErrTooLarge
	}
	end := len(bytes.TrimRight(p[:n], "\x00"))
	if end > 0 {
		s.zeros = 0
	}
	s.zeros += int64(n - end)
	return n, err
}

// complete reports whether the archive had its end, a block of zeros, which
// package tar does not ask for.
func (s *tarStream) complete() bool { return s.zeros >= 512 }

// tar unpacks a tar archive.
func (w *writer) tar(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader { // git archive has one
			continue
		}
		e := entry{name: h.Name, link: h.Linkname, mode: fs.FileMode(h.Mode).Perm(), time: h.ModTime}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeGNUSparse:
			e.kind, e.content = regular, r
		case tar.TypeDir:
			e.kind = folder
		case tar.TypeSymlink:
			e.kind = symlink
		case tar.TypeLink:
			e.kind = hardlink
		default:
			return &UnsafeError{h.Name, fmt.Sprintf("is of type %q: want files, folders and links", h.Typeflag)}
		}
		if err := w.put(e); err != nil {
			return err
		}
	}
}

// zip unpacks a zip archive.
func (w *writer) zip(ctx context.Context, archive io.ReaderAt, size int64) error {
	z, err := zip.NewReader(archive, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return broken(err)
	}
	for _, f := range z.File {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := w.zipEntry(ctx, f); err != nil {
			return broken(err)
		}
	}
	return nil
}

// zipEntry unpacks one entry. Zip archives keep the target of a symbolic link
// as its content.
func (w *writer) zipEntry(ctx context.Context, f *zip.File) error {
	e := entry{name: f.Name, mode: f.Mode().Perm(), time: f.Modified}
	switch f.Mode().Type() {
	case 0:
		e.kind = regular
	case fs.ModeDir:
		e.kind = folder
		return w.put(e)
	case fs.ModeSymlink:
		e.kind = symlink
	default:
		return &UnsafeError{f.Name, "is a device or the like: want files, folders and links"}
	}
	if f.Flags&1 != 0 {
		return fmt.Errorf("entry %.200q is encrypted", f.Name)
	}
	r, err := f.Open()
	if err != nil {
		return fmt.Errorf("entry %.200q: %w", f.Name, err)
	}
	defer r.Close()
	if e.kind == regular {
		e.content = ctxReader(ctx, r)
		return w.put(e)
	}
	link, err := io.ReadAll(io.LimitReader(r, maxName+1))
	if err != nil {
		return fmt.Errorf("entry %.200q: %w", f.Name, err)
	}
	e.link = string(link)
	return w.put(e)
}
