package apply

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
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
}

// codeLine is what a line of a maps file is known to be, but for its addresses: of
// head the beginning, of code the mapping with the first executable segment, at a
// distance from the head; or another part of an object, which says nothing by itself.
type codeLine struct {
	head, code *knownCode
	distance   specs.Addr
	part       bool
}

// Bounds of the lines that are kept: their number, and the bytes of each.
const (
	maxCodeLines = 4 * maxKnownFiles
	maxCodeLine  = 1 << 10
)

// glance is a look at a process's maps file. Only lines of code, of beginnings of
// objects and of memory that may hold a record are looked at closely.
type glance struct {
	reader  *Reader
	heads   []placed
	objects []placed
	// bare is memory in which a record may be.
	bare []Mapping
	// recorded is set if something there looks like one.
	recorded bool
	any      bool // mapping was there

	key, notes []byte
	spans      []ptrace.Span
}

// placed is an object in a process, base the address of its ELF header.
type placed struct {
	file *knownCode
	base specs.Addr
}

var glances = sync.Pool{New: func() any { return new(glance) }}

func (g *glance) reset(r *Reader) {
	*g = glance{reader: r, heads: g.heads[:0], objects: g.objects[:0], bare: g.bare[:0], key: g.key[:0], notes: g.notes[:0], spans: g.spans[:0]}
}

// mappings reads the maps file.
func (g *glance) mappings(pid int) error {
	f, err := ptrace.OpenFile(mapsFile(pid))
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
	if string(inode) == "0" && string(path) != vdso {
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
		k := &knownCode{path: o.Path, id: o.BuildID, note: []byte(elf.ELFMAG)}
		if at, note, err := o.image.NoteOfBuildID(); err == nil && o.BuildID != "" && at >= o.Base && len(note) <= maxKnownNote {
			k.note, k.offset = slices.Clone(note), at-o.Base
		} else if o.BuildID != "" {
			continue
		}
		r.learnLines(p.maps, o, head, k)
	}
}

// learnLines takes in those of one object.
func (r *Reader) learnLines(maps []Mapping, o *object, head *Mapping, k *knownCode) {
	change := func(m *Mapping, f func(*codeLine)) {
		key := m.key()
		line := r.lines[key]
		f(&line)
		if len(key) <= maxCodeLine && len(r.lines) < maxCodeLines {
			r.lines[key] = line
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
