package source

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fother/fother/specs"
)

// maxArchive bounds what is fetched, in bytes. The largest source packages of
// distributions have some 2 GiB.
const maxArchive = 8 << 30

// ChecksumError says that a source is not the one that the spec means.
type ChecksumError struct {
	Want, Got specs.Checksum
}

func (e *ChecksumError) Error() string {
	return fmt.Sprintf("checksum is %s, want %s", e.Got, e.Want)
}

// Hint says what the user can do.
func (e *ChecksumError) Hint() string {
	if e.Want.Algorithm == specs.ChecksumGit {
		return "the branch or tag was moved; if the new commit is the one that you mean, write it into the spec as checksum: " + e.Got.String()
	}
	return "do not build it before you know why; if it is the source that you mean, write into the spec checksum: " + e.Got.String()
}

// Fetch makes the new folder dst of the source tree at archive: the path of an
// archive on this machine, or an address, see [specs.ParseOrigin]. The
// checksum, of the form ALGORITHM:HEX, may be "" for archives on this machine.
// If the archive holds one folder and nothing beside it, that folder is the
// tree.
//
// An archive may be hostile: what would leave dst, is no file, folder or link
// inside it, or is out of proportion, is refused as a whole ([UnsafeError],
// [ErrTooLarge]). Other content than the checksum's is a [ChecksumError] and is
// never unpacked. After an error dst is as it was, and nothing is beside it.
//
// Of a git repository the tree has the files, submodules included, without
// .git, and with the time of the commit.
func Fetch(ctx context.Context, dst, archive, checksum string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", archive, err)
		}
	}()
	if dst, err = filepath.Abs(dst); err != nil {
		return err
	}
	get, err := opener(archive, checksum)
	if err != nil {
		return err
	}
	if err := vacant(dst); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	// Beside dst, so that the tree can be renamed to it when it is complete.
	work, err := os.MkdirTemp(filepath.Dir(dst), "."+filepath.Base(dst)+"-")
	if err != nil {
		return err
	}
	defer func() {
		if e := os.RemoveAll(work); err == nil {
			err = e
		}
	}()
	tree, err := get(ctx, work)
	if err != nil {
		return err
	}
	// Unlike package os, the system call lets dst be an empty folder.
	if err := syscall.Rename(tree, dst); err != nil {
		return &os.LinkError{Op: "rename", Old: tree, New: dst, Err: err}
	}
	return nil
}

// vacant reports an error if dst is neither missing nor an empty folder.
func vacant(dst string) error {
	entries, err := os.ReadDir(dst)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil && len(entries) > 0:
		return fmt.Errorf("%s: not empty", dst)
	}
	return err
}

// opener returns what makes the tree in the private folder work.
func opener(archive, checksum string) (func(ctx context.Context, work string) (tree string, err error), error) {
	if specs.AddressScheme(archive) == "" {
		sum, err := localSum(checksum)
		return func(ctx context.Context, work string) (string, error) {
			return open(ctx, work, archive, sum)
		}, err
	}
	origin, err := specs.ParseOrigin(archive, checksum)
	if err != nil {
		return nil, err
	}
	if origin.Git {
		return func(ctx context.Context, work string) (string, error) { return fetchGit(ctx, work, origin) }, nil
	}
	return func(ctx context.Context, work string) (string, error) {
		path, err := fetchFile(ctx, work, origin.URL)
		if err != nil {
			return "", err
		}
		return open(ctx, work, path, origin.Checksum)
	}, nil
}

// localSum reads the checksum of an archive on this machine.
func localSum(checksum string) (sum specs.Checksum, err error) {
	if checksum == "" {
		return sum, nil
	}
	if sum, err = specs.ParseChecksum(checksum); err == nil && sum.Algorithm == specs.ChecksumGit {
		err = errors.New("checksum git: an archive has none: want sha256:HEX")
	}
	return sum, err
}

// open checks the archive at path and unpacks it in the folder work. It
// returns the folder of the tree.
func open(ctx context.Context, work, path string, sum specs.Checksum) (string, error) {
	f, size, err := openFile(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if sum != (specs.Checksum{}) {
		if err := check(ctx, f, sum); err != nil {
			return "", err
		}
	}
	// What is unpacked is the file that was checked, whatever its name leads
	// to by now.
	tree := filepath.Join(work, "tree")
	if err := unpack(ctx, tree, f, size); err != nil {
		return "", err
	}
	return settle(tree)
}

// openFile opens a regular file and returns its size.
func openFile(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO is refused, not waited for
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return nil, 0, e.Err // the name is in front of it already
	} else if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	case info.Size() > maxArchive:
		err = fmt.Errorf("%d bytes: %w: want at most %d", info.Size(), ErrTooLarge, int64(maxArchive))
	default:
		return f, info.Size(), nil
	}
	f.Close()
	return nil, 0, err
}

// check compares the content of f with sum.
func check(ctx context.Context, f *os.File, sum specs.Checksum) error {
	var h hash.Hash
	switch sum.Algorithm {
	case specs.ChecksumSHA256:
		h = sha256.New()
	case specs.ChecksumSHA512:
		h = sha512.New()
	default:
		return fmt.Errorf("checksum %s: not one of an archive", sum.Algorithm)
	}
	if _, err := io.Copy(h, ctxReader(ctx, f)); err != nil {
		return err
	}
	got := specs.Checksum{Algorithm: sum.Algorithm, Digits: hex.EncodeToString(h.Sum(nil))}
	if got != sum {
		return &ChecksumError{Want: sum, Got: got}
	}
	return nil
}

// readerFunc is a Read method.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// ctxReader returns r until the context ends.
func ctxReader(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
}
