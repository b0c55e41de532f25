package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/fother/fother/specs"
)

// depends are the digests of what a step depends on, by the names that a
// person is told when one of them is another.
type depends map[string]specs.Digest

func (d depends) add(name, text string) { d[name] = specs.DigestOf([]byte(text)) }

// changed returns the first name, in order, that is not the same in both.
func (d depends) changed(was depends) string {
	names := slices.Sorted(maps.Keys(d))
	for name := range maps.Keys(was) {
		if _, ok := d[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		now, ok := d[name]
		before, had := was[name]
		if ok != had || now != before {
			return name
		}
	}
	return ""
}

// stampFormat is raised when stamps of other versions cannot be read.
const stampFormat = 1

// stamp says of a step's result what it was made from.
type stamp struct {
	Format  int     `json:"format"`
	Step    string  `json:"step"`
	Depends depends `json:"depends"`
	// Left is the digest of what the step left.
	Left specs.Digest `json:"left"`
	// Built is what later steps know from the build.
	Built *built `json:"built,omitempty"`
	// Check is the digest of the stamp with this field zero.
	Check specs.Digest `json:"check"`
}

// built is what the build tells later steps.
type built struct {
	// Epoch is the SOURCE_DATE_EPOCH of both builds.
	Epoch int64 `json:"epoch"`
	// Sources are the archive or tree, then the patches in order.
	Sources []sourceDigest `json:"sources"`
	// Files are the programs and libraries that the builds linked, below
	// the trees of both or, in the second list, below DESTDIR.
	Files     []string `json:"files"`
	Installed []string `json:"installed,omitempty"`
}

type sourceDigest struct {
	Name   string       `json:"name"`
	Digest specs.Digest `json:"digest"`
}

func (s *stamp) encode() ([]byte, error) {
	data, err := json.MarshalIndent(s, "", "\t")
	return append(data, '\n'), err
}

// seal sets s.Check.
func (s *stamp) seal() error {
	s.Check = specs.Digest{}
	data, err := s.encode()
	s.Check = specs.DigestOf(data)
	return err
}

// errDamaged means that a stamp is not as it was written.
var errDamaged = errors.New("its stamp is damaged")

// readStamp reads the stamp of a step. The error is fs.ErrNotExist if there is
// none and errDamaged if it is not one that writeStamp wrote.
func readStamp(f Folder, step string) (*stamp, error) {
	data, err := os.ReadFile(f.stamp(step))
	if err != nil {
		return nil, err
	}
	var s stamp
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	check := s.Check
	if err := s.seal(); err != nil || s.Check != check || s.Step != step || s.Format != stampFormat {
		return nil, errDamaged
	}
	return &s, nil
}

func writeStamp(f Folder, s *stamp) error {
	s.Format = stampFormat
	if err := s.seal(); err != nil {
		return err
	}
	data, err := s.encode()
	if err != nil {
		return err
	}
	return writeFile(f.stamp(s.Step), data)
}

func removeStamp(f Folder, step string) error {
	err := os.Remove(f.stamp(step))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// writeFile puts data at path in one step.
func writeFile(path string, data []byte) error {
	t, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(t.Name())
	defer t.Close()
	if _, err := t.Write(data); err != nil {
		return err
	}
	if err := t.Chmod(0o644); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}

// swap puts each of the named files and folders of from in the place of that
// of f. What f has and from lacks is removed.
func swap(f, from Folder, names ...string) error {
	old := f.path("old")
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Mkdir(old, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Rename(f.path(name), filepath.Join(old, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Rename(from.path(name), f.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.RemoveAll(old)
}
