package apply

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// Mapping is one line of /proc/PID/maps.
type Mapping struct {
	Range  specs.Range[specs.Addr]
	Perm   string // "r-xp"
	Offset uint64
	Dev    string
	Inode  uint64
	Path   string // of the file, or a name in brackets, or empty
}

func (m *Mapping) readable() bool   { return m.Perm[0] == 'r' }
func (m *Mapping) writable() bool   { return m.Perm[1] == 'w' }
func (m *Mapping) executable() bool { return m.Perm[2] == 'x' }
func (m *Mapping) private() bool    { return m.Perm[3] == 'p' }

// anonymous reports whether no file and no special memory of the kernel is
// behind the mapping.
func (m *Mapping) anonymous() bool {
	return m.Inode == 0 && (m.Path == "" || strings.HasPrefix(m.Path, "[anon:"))
}

// mayRecord reports whether a record may be in the mapping: the first of a patch's,
// which no program can write to.
func (m *Mapping) mayRecord() bool { return m.Perm == perms[0] && m.anonymous() }

// Bounds of a maps file. The kernel's default vm.max_map_count is 65530;
// operators raise it.
const (
	maxMappings = 4 << 20
	maxMapsLine = 16 << 10
)

// readMaps reads the mappings of a process.
func readMaps(pid int) ([]Mapping, error) { return readMapsBy(pid, pid) }

// readMapsBy is readMaps by one of the process's threads.
func readMapsBy(pid, tid int) ([]Mapping, error) {
	f, err := ptrace.OpenFile(mapsFile(pid, tid))
	if err != nil {
		return nil, procError(err)
	}
	defer f.Close()
	maps, err := parseMaps(f)
	if err == nil && len(maps) == 0 {
		err = ErrGone // a zombie has none
	}
	return maps, procError(err)
}

func mapsFile(pid, tid int) string { return ptrace.Folder(pid, tid) + "/maps" }

// procError names the classes of errors that /proc gives.
func procError(err error) error {
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ESRCH):
		return ErrGone
	case errors.Is(err, os.ErrPermission):
		return ErrPermission
	}
	return err
}

// mapsBuffers are of mapsBuffer bytes each, for what was read of a maps file.
var mapsBuffers = sync.Pool{New: func() any { return new([mapsBuffer]byte) }}

const mapsBuffer = 4 * maxMapsLine

// parseMaps reads the format of proc_pid_maps(5). A path may hold anything but
// a newline, which is written as \012.
func parseMaps(r io.Reader) (maps []Mapping, err error) {
	err = wholeLines(r, func(text []byte) (err error) {
		maps, err = appendMaps(maps, text)
		return err
	})
	return maps, err
}

// wholeLines calls take with pieces of a maps file of whole lines, which are take's
// for the call.
func wholeLines(r io.Reader, take func([]byte) error) error {
	buf := mapsBuffers.Get().(*[mapsBuffer]byte)
	defer mapsBuffers.Put(buf)
	for n := 0; ; {
		got, err := io.ReadFull(r, buf[n:])
		n += got
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		end := n
		if !last {
			end = bytes.LastIndexByte(buf[:n], '\n') + 1
		}
		if err := take(buf[:end]); err != nil || last {
			return err
		}
		if n = copy(buf[:], buf[end:n]); n > maxMapsLine {
			return fmt.Errorf("maps: a line of more than %d bytes", maxMapsLine)
		}
	}
}

// appendMaps adds the mappings of whole lines.
func appendMaps(maps []Mapping, text []byte) ([]Mapping, error) {
	maps = slices.Grow(maps, bytes.Count(text, []byte{'\n'})+1)
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte{'\n'})
		text = rest
		var before Mapping
		if len(maps) > 0 {
			before = maps[len(maps)-1]
		}
		if len(line) > maxMapsLine {
			return nil, fmt.Errorf("maps: line %d: more than %d bytes", len(maps)+1, maxMapsLine)
		}
		m, err := parseMapping(line, &before)
		if err != nil {
			return nil, fmt.Errorf("maps: line %d: %w", len(maps)+1, err)
		}
		if len(maps) == maxMappings {
			return nil, fmt.Errorf("maps: more than %d mappings", maxMappings)
		}
		maps = append(maps, m)
	}
	return maps, nil
}

// parseMapping reads a line. The strings are taken from the mapping before it
// where they are the same.
func parseMapping(line []byte, before *Mapping) (Mapping, error) {
	var m Mapping
	var field [5][]byte
	rest := line
	for i := range field {
		end := bytes.IndexByte(rest, ' ')
		switch {
		case end < 0 && i == len(field)-1:
			field[i], rest = rest, nil
		case end > 0:
			field[i], rest = rest[:end], rest[end+1:]
		}
		if len(field[i]) == 0 {
			return m, fmt.Errorf("%q: want an address range, permissions, offset, device, inode and path", line)
		}
	}
	lo, hi, _ := bytes.Cut(field[0], []byte{'-'})
	from, ok1 := number(lo, 16)
	to, ok2 := number(hi, 16)
	offset, ok3 := number(field[2], 16)
	inode, ok4 := number(field[4], 10)
	if !ok1 || !ok2 || !ok3 || !ok4 {
		return m, fmt.Errorf("%q: a number is not one of 64 bits", line)
	}
	m.Range = specs.Range[specs.Addr]{Lo: specs.Addr(from), Hi: specs.Addr(to)}
	m.Offset, m.Inode = offset, inode
	if m.Range.Hi < m.Range.Lo || len(field[1]) != 4 {
		return m, fmt.Errorf("%q: not a mapping", line)
	}
	m.Perm, m.Dev = permission(field[1]), same(field[3], before.Dev)
	m.Path = same(bytes.TrimLeft(rest, " "), before.Path)
	if strings.IndexByte(m.Path, '\\') >= 0 {
		m.Path = strings.ReplaceAll(m.Path, `\012`, "\n")
	}
	return m, nil
}

// number reads a number as the kernel writes it: digits of the
// base, no capital letters. All maps files together hold very many.
func number(b []byte, base uint64) (v uint64, ok bool) {
	for _, c := range b {
		d := uint64(c - '0') // wraps around below it
		switch {
		case c >= 'a':
			d = uint64(c-'a') + 10
		case c > '9':
			return 0, false
		}
		if d >= base || v > (math.MaxUint64-d)/base {
			return 0, false
		}
		v = v*base + d
	}
	return v, len(b) > 0
}

// same returns b as a string: have, if that is the same.
func same(b []byte, have string) string {
	if string(b) == have {
		return have
	}
	return string(b)
}

// permission returns b as a string, without a copy where it is a usual one.
func permission(b []byte) string {
	switch string(b) {
	case "r--p":
		return "r--p"
	case "r-xp":
		return "r-xp"
	case "rw-p":
		return "rw-p"
	case "---p":
		return "---p"
	}
	return string(b)
}

// mappingAt returns the mapping that contains a. maps are sorted by address.
func mappingAt(maps []Mapping, a specs.Addr) *Mapping {
	i, ok := slices.BinarySearchFunc(maps, a, func(m Mapping, a specs.Addr) int {
		switch {
		case m.Range.Hi <= a:
			return -1
		case m.Range.Lo > a:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return &maps[i]
}
