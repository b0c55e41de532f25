package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/specs"
)

// place is the work folder of a rebuild.
type place struct {
	folder string
	remove string // all that was made for it
}

func (p *place) leave() {
	os.RemoveAll(p.remove)
	os.Remove(filepath.Dir(p.remove)) // if nothing else is there
}

// PlaceError means that a release has to be built at a path that cannot be used
// for it.
type PlaceError struct {
	// Folder is the work folder that the release was built in.
	Folder string
	err    error
}

func (e *PlaceError) Error() string {
	return fmt.Sprintf("the bundle's build has to run in %s, which is in what it makes: %v", e.Folder, e.err)
}
func (e *PlaceError) Unwrap() error { return e.err }

// Hint says what the user can do.
func (e *PlaceError) Hint() string {
	return "run this as root, in a container, or where users may have mount namespaces; a build with -ffile-prefix-map=$PWD=. does not depend on its path"
}

// place returns a work folder in which the builds of s run at the path of the
// manifest.
func (o Options) place(s specs.Spec, m bundle.Manifest) (*place, error) {
	name := filepath.Base(string(FolderOf(s, o)))
	at := func(work string) *place {
		folder := filepath.Join(work, rebuildName)
		return &place{folder, filepath.Join(folder, name)}
	}
	if m.Build.Path == "" {
		return at(o.Work), nil
	}
	work := filepath.Dir(filepath.Dir(filepath.Dir(m.Build.Path)))
	if Folder(filepath.Join(work, name)).Tree() != m.Build.Path {
		return nil, fmt.Errorf("the bundle says that it was built in %s, where no target builds", m.Build.Path)
	}
	inside, err := insideNamespace(work)
	if err != nil {
		return nil, &PlaceError{work, err}
	}
	if work == o.Work || inside {
		return at(work), nil
	}
	if _, err := os.Lstat(work); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = errors.New("it is there already")
		}
		return nil, &PlaceError{work, err}
	}
	top := missingFrom(work)
	if err := os.MkdirAll(work, 0o755); err != nil {
		os.RemoveAll(top)
		return nil, &PlaceError{work, err}
	}
	p := at(work)
	p.remove = top
	return p, nil
}

// missingFrom returns the first folder on the way to path that is not there.
func missingFrom(path string) string {
	for {
		parent := filepath.Dir(path)
		if _, err := os.Lstat(parent); err == nil || parent == path {
			return path
		}
		path = parent
	}
}
