package apply

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/specs"
)

// knownCode is an object whose lines in maps files are known.
type knownCode struct {
	path string
	id   specs.BuildID
	// note is the segment with the build-id, offset its distance from the ELF header;
	// without a build-id the header's first bytes.
	note   []byte
	offset specs.Addr
	// tail is the vDSO's end, if what a killed tool leaves would be there; nil if not.
	tail []byte
}

// codeLine is what a line of a maps file is known to be, but for its addresses: of
// head the beginning, of code the mapping with the first executable segment, at a
// distance from the head; or another part of an object, which says nothing by itself.
type codeLine struct {
	head, code *knownCode
	distance   specs.Addr
	part       bool
}

// codeKey is what the kernel tells of a mapping of code, but for its addresses.
type codeKey struct {
	perms         [3]bool // readable, writable, shared
	offset, inode uint64
	major, minor  uint32
	name          string
}

// Bounds of the lines that are kept: their number, and the bytes of each.
const (
	maxCodeLines = 4 * maxKnownFiles
	maxCodeLine  = 1 << 10
)

// glance is a look at a process's mappings. Of its maps file only lines of code, of
// beginnings of objects and of memory that may hold a record are looked at closely.
type glance struct {
	reader  *Reader
	heads   []placed
	objects []placed
	// bare is memory in which a record may be.
	bare []Mapping
	// recorded is set if something there looks like one.
	recorded bool
	// vdsoEnd is where the vDSO ends, if it has to be as it always is.
	vdsoEnd specs.Addr
	any     bool // mapping was there

	key, notes []byte
	spans      []ptrace.Span
	page       [4096]byte // for the vDSO's end
}

// placed is an object in a process, base the address of its ELF header.
type placed struct {
	file *knownCode
	base specs.Addr
}

var glances = sync.Pool{New: func() any { return new(glance) }}

func (g *glance) reset(r *Reader) {
	g.reader, g.recorded, g.any, g.vdsoEnd = r, false, false, 0
	g.heads, g.objects, g.bare, g.key, g.notes, g.spans = g.heads[:0], g.objects[:0], g.bare[:0], g.key[:0], g.notes[:0], g.spans[:0]
}

// errSeeMaps means that it takes a look at the whole maps file.
var errSeeMaps = errors.New("there may be a patch")

// ask asks the kernel for the mappings of code alone. That is enough where no code is
// anonymous, as a patch's is, and where no run of the tool was killed that had just
// begun to map memory, or had freed all but the record: of its calls it has left
// something at the end of the vDSO.
//
// Errors: errSeeMaps, [ptrace.ErrUntold], errUnknownCode, and those of a process.
func (g *glance) ask(pid int) error {
	err := ptrace.CodeMappings(pid, g.code)
	switch {
	case err != nil:
		return err
	case len(g.objects) == 0: // maybe a zombie
		return errSeeMaps
	case g.vdsoEnd == 0:
		return errSeeMaps
	}
	return nil
}

// code takes in a mapping of code.
func (g *glance) code(c *ptrace.Code) error {
	if c.Inode == 0 && string(c.Name) != vdso {
		if string(c.Name) == "[vsyscall]" {
			return nil
		}
		return errSeeMaps
	}
	g.reader.mu.RLock()
	known := g.reader.codes[codeKey{[3]bool{c.Readable, c.Writable, c.Shared}, c.Offset, c.Inode, c.Major, c.Minor, string(c.Name)}]
	g.reader.mu.RUnlock()
	switch {
	case known.code != nil && len(g.objects) < maxObjects:
		g.objects = append(g.objects, placed{known.code, c.Lo - known.distance})
		if known.code.tail != nil {
			g.vdsoEnd = c.Hi
		}
	case !known.part:
		return errUnknownCode
	}
	return nil
}

// mappings reads the maps file.
func (g *glance) mappings(pid int) error {
	f, err := ptrace.OpenFile(mapsFile(pid, pid))
	if err != nil {
		return procError(err)
	}
	defer f.Close()
	if err := wholeLines(f, g.lines); err != nil {
		return procError(err)
	}
	if !g.any {
		return ErrGone
	}
	return nil
}

// lines looks at whole lines.
func (g *glance) lines(text []byte) error {
	g.reader.mu.RLock() // not while they are read, which may take long
	defer g.reader.mu.RUnlock()
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte{'\n'})
		text, g.any = rest, true
		if err := g.line(line); err != nil {
			return err
		}
	}
	return nil
}

// line looks at one line: addresses, permissions, offset, device, inode, path.
func (g *glance) line(line []byte) error {
	dash, space := bytes.IndexByte(line, '-'), bytes.IndexByte(line, ' ')
	if dash < 0 || space < dash || len(line) < space+len(" r-xp ") {
		return fmt.Errorf("maps: %q: not a mapping", line)
	}
	rest := line[space+1:]
	executable := rest[2] == 'x'
	head := rest[0] == 'r' && bytes.HasPrefix(rest[len("r-xp"):], []byte(" 00000000 "))
	if !executable && !head && string(rest[:4]) != perms[0] {
		return nil
	}
	inode, path := fileFields(rest)
	if n, ok := number(inode, 10); ok && n == 0 && string(path) != vdso {
		return g.anonymous(line)
	}
	if !executable && !head {
		return nil
	}
	g.key = lineKey(g.key[:0], bytes.TrimRight(rest[:len(rest)-len(path)], " "), path)
	known := g.reader.lines[string(g.key)]
	lo, ok := number(line[:dash], 16)
	if !ok || executable && known.code == nil && !known.part {
		return errUnknownCode
	}
	at := specs.Addr(lo)
	if head && known.head != nil {
		g.heads = append(g.heads, placed{known.head, at})
	}
	if !executable || known.code == nil {
		return nil
	}
	object := placed{known.code, at - known.distance}
	if !slices.Contains(g.heads, object) || len(g.objects) == maxObjects {
		return errUnknownCode
	}
	g.objects = append(g.objects, object)
	return nil
}

// anonymous takes in memory that no file is behind, if a record may be in it.
func (g *glance) anonymous(line []byte) error {
	m, err := parseMapping(line, &Mapping{})
	if err != nil {
		return fmt.Errorf("maps: %w", err)
	}
	if len(g.bare) == maxMappings {
		return fmt.Errorf("maps: more than %d mappings", maxMappings)
	}
	if m.mayRecord() {
		g.bare = append(g.bare, m)
	}
	return nil
}

// fileFields returns the inode and the path of a line from its permissions on.
func fileFields(rest []byte) (inode, path []byte) {
	for range 3 {
		_, rest, _ = bytes.Cut(rest, []byte{' '})
	}
	inode, path, _ = bytes.Cut(rest, []byte{' '})
	return inode, bytes.TrimLeft(path, " ")
}

// lineKey appends what is the same in all lines of a file's mapping.
func lineKey(key, fields, path []byte) []byte { return append(append(key, fields...), path...) }

// codeKey is what [ptrace.CodeMappings] tells of m.
func (m *Mapping) codeKey() codeKey {
	k := codeKey{perms: [3]bool{m.readable(), m.writable(), !m.private()}, offset: m.Offset, inode: m.Inode, name: m.Path}
	major, minor, _ := strings.Cut(m.Dev, ":")
	hi, _ := number([]byte(major), 16)
	lo, _ := number([]byte(minor), 16)
	k.major, k.minor = uint32(hi), uint32(lo)
	return k
}

// key is the lineKey of m's line.
func (m *Mapping) key() string {
	return fmt.Sprintf("%s %08x %s %d%s", m.Perm, m.Offset, m.Dev, m.Inode, bytes.ReplaceAll([]byte(m.Path), []byte("\n"), []byte(`\012`)))
}

// learn takes in the lines of the objects of a process that was opened.
func (r *Reader) learn(p *Process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range p.objects {
		head := mappingAt(p.maps, o.Base)
		if head == nil || head.Range.Lo != o.Base {
			continue
		}
		if k := r.codes[head.codeKey()].head; k != nil && k.id == o.BuildID && k.id != "" && (o.Path != vdso || k.tail != nil) {
			r.learnLines(p.maps, o, head, k)
			continue
		}
		k := &knownCode{path: o.Path, id: o.BuildID, note: []byte(elf.ELFMAG)}
		if at, note, err := o.image.NoteOfBuildID(); err == nil && o.BuildID != "" && at >= o.Base && len(note) <= maxKnownNote {
			k.note, k.offset = slices.Clone(note), at-o.Base
		} else if o.BuildID != "" {
			continue
		}
		if o.Path == vdso {
			if tail, ok := ptrace.Tail(p.mem, head.Range); ok {
				k.tail = tail
			}
		}
		r.learnLines(p.maps, o, head, k)
	}
}

// learnLines takes in those of one object.
func (r *Reader) learnLines(maps []Mapping, o *object, head *Mapping, k *knownCode) {
	change := func(m *Mapping, f func(*codeLine)) {
		code := m.codeKey()
		line := r.codes[code]
		if f(&line); line == r.codes[code] {
			return
		}
		if key := m.key(); len(key) <= maxCodeLine && len(r.lines) < maxCodeLines {
			r.lines[key], r.codes[code] = line, line
		}
	}
	first := firstCode(o.image, maps)
	if first == nil || first.Range.Lo < o.Base {
		return
	}
	change(head, func(l *codeLine) { l.head = k })
	for i := range maps {
		m := &maps[i]
		switch {
		case m == first:
			change(m, func(l *codeLine) { l.code, l.distance = k, m.Range.Lo-o.Base })
		case m.executable() && m.Dev == head.Dev && m.Inode == head.Inode && o.image.Range.Contains(m.Range.Lo):
			change(m, func(l *codeLine) { l.part = true })
		}
	}
}
