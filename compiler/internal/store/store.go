package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/specs"
)

// Error says that the store itself could not be used. Its text names the
// store's folder.
type Error struct {
	Dir string
	Err error
}

func (e *Error) Error() string { return fmt.Sprintf("store %s: %v", e.Dir, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Store is a capture store. Its methods may be called by several processes
// at once.
type Store struct{ dir string }

// Open returns the store in folder dir and creates what is missing of it.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: dir}
	for _, d := range []string{"blobs", "tmp", "shim", "path", "cc", "tools"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, s.fail(err)
		}
	}
	return s, nil
}

// At returns the store in folder dir, which another process has opened.
func At(dir string) *Store { return &Store{dir: filepath.Clean(dir)} }

// Dir returns the store's folder.
func (s *Store) Dir() string { return s.dir }

// Shims returns the folder of shims that gcc looks into.
func (s *Store) Shims() string { return filepath.Join(s.dir, "shim") }

// PathShims returns the folder of shims that makefiles find on PATH. It is
// apart from Shims because it has the names of cross tools too: gcc prefers
// x86_64-linux-gnu-as to as, and the name shows in messages.
func (s *Store) PathShims() string { return filepath.Join(s.dir, "path") }

// Compilers returns the folder of links by which a build that is to get more
// arguments finds its compilers on PATH.
func (s *Store) Compilers() string { return filepath.Join(s.dir, "cc") }

func (s *Store) fail(err error) error {
	if err == nil {
		return nil
	}
	return &Error{Dir: s.dir, Err: err}
}

// Blob returns the path of the blob with digest d, whether it is there or not.
func (s *Store) Blob(d specs.Digest) string {
	h := d.String()
	return filepath.Join(s.dir, "blobs", h[:2], h[2:])
}

// Temp creates an empty file in the store, which the caller removes.
func (s *Store) Temp(pattern string) (*os.File, error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "tmp"), pattern)
	return f, s.fail(err)
}

// PutFile stores the content of the file at path. An error of the store is an
// [*Error]; others are about the file.
func (s *Store) PutFile(path string) (specs.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return specs.Digest{}, err
	}
	defer f.Close()
	d, err := s.PutSeeker(f)
	if errors.Is(err, errChanged) {
		err = fmt.Errorf("%s %w", path, err)
	}
	return d, err
}

var errChanged = errors.New("changed while it was stored")

// PutSeeker stores what r holds. It reads it once only if the store has it.
func (s *Store) PutSeeker(r io.ReadSeeker) (specs.Digest, error) {
	d, err := digestOf(r)
	if err != nil {
		return d, err
	}
	if _, err := os.Lstat(s.Blob(d)); err == nil {
		return d, nil
	}
	if _, err := r.Seek(0, io.SeekStart); err != nil {
		return d, err
	}
	got, err := s.Put(r)
	if err == nil && got != d {
		err = errChanged
	}
	return d, err
}

// Put stores what r holds, read to its end.
func (s *Store) Put(r io.Reader) (specs.Digest, error) {
	t, err := s.Temp("blob-*")
	if err != nil {
		return specs.Digest{}, err
	}
	defer os.Remove(t.Name())
	defer t.Close()
	h := sha256.New()
	if err := s.copy(t, h, r); err != nil {
		return specs.Digest{}, err
	}
	d := specs.Digest(h.Sum(nil))
	return d, s.fail(s.move(t, s.Blob(d)))
}

// copy copies r to t and h, and tells errors of the store from r's.
func (s *Store) copy(t *os.File, h io.Writer, r io.Reader) error {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if _, err := t.Write(buf[:n]); err != nil {
			return s.fail(err)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// move gives the finished file t its place.
func (s *Store) move(t *os.File, path string) error {
	if err := t.Chmod(0o644); err != nil {
		return err
	}
	// Delayed allocation reports a full file system here and not later.
	if err := t.Close(); err != nil {
		return err
	}
	err := os.Rename(t.Name(), path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		err = os.Rename(t.Name(), path)
	}
	return err
}

// write puts data at path in one step.
func (s *Store) write(path string, data []byte) error {
	t, err := s.Temp("file-*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	defer t.Close()
	if _, err := t.Write(data); err != nil {
		return s.fail(err)
	}
	return s.fail(s.move(t, path))
}

// DigestFile returns the digest of the file at path.
func DigestFile(path string) (specs.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return specs.Digest{}, err
	}
	defer f.Close()
	return digestOf(f)
}

func digestOf(r io.Reader) (specs.Digest, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return specs.Digest(h.Sum(nil)), err
}

// Begin forgets all records of stage.
func (s *Store) Begin(stage specs.Stage) error {
	dir := filepath.Join(s.dir, string(stage))
	if err := os.RemoveAll(dir); err != nil {
		return s.fail(err)
	}
	return s.fail(os.MkdirAll(dir, 0o755))
}

// Continue makes the records of base, if there are any, the first of stage, in
// their order and marked as kept. Those that stage has are forgotten, unless
// it is base.
func (s *Store) Continue(stage, base specs.Stage) error {
	records, err := s.Records(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	next := filepath.Join(s.dir, "tmp", "next-"+string(stage))
	if err := os.RemoveAll(next); err != nil {
		return s.fail(err)
	}
	if err := os.MkdirAll(next, 0o755); err != nil {
		return s.fail(err)
	}
	for i, r := range records {
		// Before all that NewID returns, also after the machine was started anew.
		r.ID, r.Kept = fmt.Sprintf("%016x-kept", i), true
		data, err := json.Marshal(r)
		if err == nil {
			err = os.WriteFile(filepath.Join(next, r.ID+".json"), data, 0o644)
		}
		if err != nil {
			return s.fail(err)
		}
	}
	dir, old := filepath.Join(s.dir, string(stage)), next+"-old"
	if err := os.RemoveAll(old); err != nil {
		return s.fail(err)
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return s.fail(err)
	}
	if err := os.Rename(next, dir); err != nil {
		return s.fail(err)
	}
	return s.fail(os.RemoveAll(old))
}

// NewID returns an identifier that sorts after all that were made before on
// this machine since it was started, but for those of the same nanosecond.
func NewID() string {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err) // the clock exists since Linux 2.6.39
	}
	return fmt.Sprintf("%016x-%08x", t.Nano(), os.Getpid())
}

// PutRecord stores r as part of stage and sets its ID.
func (s *Store) PutRecord(stage specs.Stage, r *Record) error {
	r.ID = NewID()
	data, err := json.Marshal(r)
	if err != nil {
		return s.fail(err)
	}
	return s.write(filepath.Join(s.dir, string(stage), r.ID+".json"), data)
}

// Records returns the records of stage, sorted by ID.
func (s *Store) Records(stage specs.Stage) ([]*Record, error) {
	dir := filepath.Join(s.dir, string(stage))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, s.fail(err)
	}
	var records []*Record
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), "_") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, s.fail(err)
		}
		r, err := decodeRecord(data)
		if err != nil {
			return nil, s.fail(fmt.Errorf("record %s: %w", e.Name(), err))
		}
		records = append(records, r)
	}
	slices.SortFunc(records, func(a, b *Record) int { return cmp.Compare(a.ID, b.ID) })
	return records, nil
}

// Linked is a linked ELF file that stood in the tree when a build ended.
type Linked struct {
	Path    string        `json:"path"`
	Digest  specs.Digest  `json:"digest"`
	BuildID specs.BuildID `json:"build_id,omitempty"`
}

// PutLinked stores the list of linked files of stage's build.
func (s *Store) PutLinked(stage specs.Stage, files []Linked) error {
	data, err := json.Marshal(files)
	if err != nil {
		return s.fail(err)
	}
	return s.write(filepath.Join(s.dir, string(stage), "_linked.json"), data)
}

// Linked returns what PutLinked stored.
func (s *Store) Linked(stage specs.Stage) ([]Linked, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, string(stage), "_linked.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, s.fail(err)
	}
	var files []Linked
	if err := json.Unmarshal(data, &files); err != nil {
		return nil, s.fail(fmt.Errorf("_linked.json: %w", err))
	}
	return files, nil
}

// Tool returns what SetTool kept under key, or an empty string.
func (s *Store) Tool(key string) string {
	data, err := os.ReadFile(filepath.Join(s.dir, "tools", key))
	if err != nil {
		return ""
	}
	return string(data)
}

// SetTool keeps value under key, a file name.
func (s *Store) SetTool(key, value string) error {
	return s.write(filepath.Join(s.dir, "tools", key), []byte(value))
}
