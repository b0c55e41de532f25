package hosted

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Names are the tools that there are.
var Names = []string{"gcc", "g++", "as", "ld", "strip", "objcopy", "objdump", "readelf", "nm"}

// Port is the device by which the machine reaches its host.
const Port = "/dev/vport0p1"

// request is a command: a tool, its arguments, and files that it may read.
type request struct {
	Name  string
	Args  []string
	Files []file
}

// answer is what became of it.
type answer struct {
	Output []byte
	Status int
	Files  []file
}

// file has a path below the folder that both sides have.
type file struct {
	Path string
	Mode fs.FileMode
	Data []byte
}

// maxMessage bounds a message, in bytes.
const maxMessage = 256 << 20

// send writes a message: its length, 8 bytes, little endian, and its gob.
func send(w io.Writer, v any) error {
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(b.Bytes(), uint64(b.Len()-8))
	_, err := w.Write(b.Bytes())
	return err
}

func receive(r io.Reader, v any) error {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint64(head[:])
	if n > maxMessage {
		return fmt.Errorf("message of %d bytes", n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	return gob.NewDecoder(bytes.NewReader(b)).Decode(v)
}

// Client runs on the machine: it has the host run a tool and returns what the
// tool wrote to its standard output and error, and its exit status. port is
// open for one client at a time. shared is the folder that both sides have. It is the
// tool's current folder: an argument that names a file by a relative name stands for a
// copy there, and what the tool writes by such a name comes back there.
func Client(port io.ReadWriter, shared, name string, args []string) ([]byte, int, error) {
	q := request{Name: name, Args: args}
	for _, arg := range args {
		path := arg
		if !filepath.IsAbs(arg) {
			path = filepath.Join(shared, arg)
		}
		rel, err := filepath.Rel(shared, path)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		if f, err := load(arg, rel); err == nil {
			q.Files = append(q.Files, f)
		}
	}
	var a answer
	if err := send(port, &q); err != nil {
		return nil, 0, err
	}
	if err := receive(port, &a); err != nil {
		return nil, 0, err
	}
	return a.Output, a.Status, store(shared, a.Files)
}

// load reads a regular file.
func load(name, rel string) (file, error) {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a file", name)
	}
	if err != nil {
		return file{}, err
	}
	data, err := os.ReadFile(name)
	return file{rel, info.Mode().Perm(), data}, err
}

// store writes files below a folder. Each is new: a program that runs from an
// older one is not hindered.
func store(dir string, files []file) error {
	for _, f := range files {
		if !filepath.IsLocal(f.Path) {
			return fmt.Errorf("file %q is not below the shared folder", f.Path)
		}
		path := filepath.Join(dir, f.Path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, f.Data, f.Mode); err != nil {
			return err
		}
	}
	return nil
}

// Serve runs on the host: it runs tools whose names begin with tuple and "-",
// until the port is closed or ctx ends. shared is a folder for it alone.
func Serve(ctx context.Context, port io.ReadWriter, shared, tuple string) error {
	for {
		var q request
		if err := receive(port, &q); err != nil {
			return err
		}
		a, err := run(ctx, &q, shared, tuple)
		if err != nil {
			a = answer{Output: []byte(err.Error() + "\n"), Status: 127}
		}
		if err := send(port, &a); err != nil {
			return err
		}
	}
}

func run(ctx context.Context, q *request, shared, tuple string) (answer, error) {
	name := strings.TrimPrefix(q.Name, tuple+"-")
	if !slices.Contains(Names, name) {
		return answer{}, fmt.Errorf("%q is no tool of the host's", q.Name)
	}
	if err := store(shared, q.Files); err != nil {
		return answer{}, err
	}
	if err := makeFolders(shared, q.Args); err != nil {
		return answer{}, err
	}
	before, err := times(shared)
	if err != nil {
		return answer{}, err
	}
	cmd := exec.CommandContext(ctx, tuple+"-"+name, q.Args...)
	cmd.Dir = shared
	var a answer
	a.Output, err = cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		a.Status = exit.ExitCode()
	} else if err != nil {
		return answer{}, err
	}
	after, err := times(shared)
	if err != nil {
		return answer{}, err
	}
	for rel, at := range after {
		if at != before[rel] {
			f, err := load(filepath.Join(shared, rel), rel)
			if err != nil {
				return answer{}, err
			}
			a.Files = append(a.Files, f)
		}
	}
	return a, nil
}

// makeFolders makes the folders, below the shared one, of files that arguments name.
func makeFolders(shared string, args []string) error {
	for _, arg := range args {
		path := arg
		if !filepath.IsAbs(arg) {
			path = filepath.Join(shared, arg)
		}
		rel, err := filepath.Rel(shared, path)
		if strings.HasPrefix(arg, "-") || err != nil || !filepath.IsLocal(rel) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// written is when a file was written, and which one it is.
type written struct {
	at   time.Time
	size int64
}

// times returns when each file below a folder was written.
func times(dir string) (map[string]written, error) {
	all := map[string]written{}
	return all, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		all[rel] = written{info.ModTime(), info.Size()}
		return err
	})
}
