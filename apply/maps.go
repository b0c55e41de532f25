package apply

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

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

// Bounds of a maps file. The kernel's default vm.max_map_count is 65530;
// operators raise it.
const (
	maxMappings = 4 << 20
	maxMapsLine = 16 << 10
)

// readMaps reads the mappings of a process.
func readMaps(pid int) ([]Mapping, error) {
	f, err := ptrace.OpenFile(fmt.Sprintf("/proc/%d/maps", pid))
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

// parseMaps reads the format of proc_pid_maps(5). A path may hold anything but
// a newline, which is written as \012.
func parseMaps(r io.Reader) ([]Mapping, error) {
	var maps []Mapping
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), maxMapsLine)
	for s.Scan() {
		m, err := parseMapping(s.Text())
		if err != nil {
			return nil, fmt.Errorf("maps: line %d: %w", len(maps)+1, err)
		}
		if len(maps) == maxMappings {
			return nil, fmt.Errorf("maps: more than %d mappings", maxMappings)
		}
		maps = append(maps, m)
	}
	return maps, s.Err()
}

func parseMapping(line string) (Mapping, error) {
	var m Mapping
	var field [5]string
	rest := line
	for i := range field {
		var ok bool
		field[i], rest, ok = strings.Cut(rest, " ")
		if !ok && i < len(field)-1 || field[i] == "" {
			return m, fmt.Errorf("%q: want an address range, permissions, offset, device, inode and path", line)
		}
	}
	lo, hi, _ := strings.Cut(field[0], "-")
	numbers := []struct {
		s    string
		base int
		to   *uint64
	}{
		{lo, 16, (*uint64)(&m.Range.Lo)}, {hi, 16, (*uint64)(&m.Range.Hi)},
		{field[2], 16, &m.Offset}, {field[4], 10, &m.Inode},
	}
	for _, n := range numbers {
		v, err := strconv.ParseUint(n.s, n.base, 64)
		if err != nil {
			return m, err
		}
		*n.to = v
	}
	if m.Range.Hi < m.Range.Lo || len(field[1]) != 4 {
		return m, fmt.Errorf("%q: not a mapping", line)
	}
	m.Perm, m.Dev = field[1], field[3]
	m.Path = strings.ReplaceAll(strings.TrimLeft(rest, " "), `\012`, "\n")
	return m, nil
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
