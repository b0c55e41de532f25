package link

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
)

// MapInput is a file that a map file names as part of a link.
type MapInput struct {
	// Path is as the linker wrote it, relative to its working directory.
	Path string
	// Member is the archive member, or empty.
	Member string
}

// maxMapLine bounds a line of a map file: C++ symbol names are long.
const maxMapLine = 16 << 20

// ParseMap reads a map file of GNU ld, gold, lld or mold and returns the
// files that took part in the link, each once, in the order of the link. Files
// named by LOAD lines need not be objects; an archive is named there without a
// member, and each member that was taken from it is named apart, after it.
func ParseMap(r io.Reader) ([]MapInput, error) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxMapLine)
	p := mapParser{seen: map[MapInput]bool{}, members: map[string][]MapInput{}}
	for sc.Scan() {
		p.line(sc.Bytes())
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("map file: %w", err)
	}
	return p.inputs(), nil
}

type mapParser struct {
	archive bool // in the list of archive members
	seen    map[MapInput]bool
	order   []MapInput            // plain files and archives
	members map[string][]MapInput // by archive
}

func (p *mapParser) line(line []byte) {
	switch {
	case bytes.HasPrefix(line, []byte("Archive member included ")):
		p.archive = true
	case bytes.HasPrefix(line, []byte("As-needed library included ")):
		p.archive = false
	case p.archive && len(line) > 0 && line[0] != ' ' && bytes.HasSuffix(firstColumn(line), []byte(")")):
		p.add(string(firstColumn(line)))
	case p.archive && len(line) > 0 && line[0] != ' ':
		p.archive = false
		fallthrough
	default:
		if name, ok := bytes.CutPrefix(line, []byte("LOAD ")); ok {
			p.add(string(name))
		} else if name := sectionFile(line); name != "" {
			p.add(name)
		}
	}
}

// firstColumn returns what stands before two spaces or the line's end: a name
// of 29 bytes or more has a line to itself.
func firstColumn(line []byte) []byte {
	if i := bytes.Index(line, []byte("  ")); i >= 0 {
		return line[:i]
	}
	return bytes.TrimRight(line, " ")
}

// sectionFile returns the file of a line that describes an input section:
//
//	.text  0x0000000000001130  0x1a lib.a(member.o)         (GNU ld, gold)
//	1130   1130   1a   16       lib.a(member.o):(.text)     (lld)
//	0x1130   26   16            lib.a(member.o):(.text)     (mold)
func sectionFile(line []byte) string {
	s := strings.TrimRight(string(line), " \r")
	if name := describedFile(s); name != "" {
		return name
	}
	if i := strings.Index(s, "0x"); i >= 0 {
		f := strings.Fields(s[i:])
		if len(f) < 3 || !strings.HasPrefix(f[1], "0x") || !isHex(f[0][2:]) || !isHex(f[1][2:]) {
			return ""
		}
		rest := s[i+len(f[0]):]
		rest = rest[strings.Index(rest, f[1])+len(f[1]):]
		return strings.TrimPrefix(rest, " ")
	}
	return ""
}

// describedFile returns the file of a line of lld's or mold's map, or "".
func describedFile(s string) string {
	i := strings.LastIndex(s, ":(")
	if i < 0 || !strings.HasSuffix(s, ")") {
		return ""
	}
	rest := strings.TrimLeft(s[:i], " ")
	columns := 4 // VMA, LMA, size, alignment
	if strings.HasPrefix(rest, "0x") {
		rest, columns = rest[2:], 3 // VMA, size, alignment
	}
	for range columns {
		rest = strings.TrimLeft(rest, " ")
		n, after, ok := strings.Cut(rest, " ")
		if !ok || !isHex(n) {
			return ""
		}
		rest = after
	}
	return strings.TrimLeft(rest, " ")
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return s != ""
}

func (p *mapParser) add(name string) {
	in := MapInput{Path: name}
	if i := strings.LastIndexByte(name, '('); i > 0 && strings.HasSuffix(name, ")") {
		in = MapInput{Path: name[:i], Member: name[i+1 : len(name)-1]}
	}
	if in.Path == "" || p.seen[in] {
		return
	}
	p.seen[in] = true
	if in.Member != "" {
		p.members[in.Path] = append(p.members[in.Path], in)
		in.Member = ""
		if p.seen[in] {
			return
		}
		p.seen[in] = true
	}
	p.order = append(p.order, in)
}

func (p *mapParser) inputs() []MapInput {
	var out []MapInput
	for _, in := range p.order {
		out = append(out, in)
		out = append(out, p.members[in.Path]...)
	}
	return out
}
