package shim

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
)

// scanned is what scanText finds.
type scanned struct {
	file     string
	includes []string
	lto      bool
	read     bool // a line
}

// scanText finds the first .file directive, or the source that the preprocessor
// names in the first line; the files of .include and .incbin
// directives, and the sections of the link-time optimizer. It does not look
// into included files: they are compared as a whole.
func scanText(r io.Reader) scanned {
	var s scanned
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := br.ReadSlice('\n')
		s.line(line)
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a long line
			_, err = br.ReadSlice('\n')
		}
		if err != nil {
			return s
		}
	}
}

func (s *scanned) line(line []byte) {
	line = bytes.TrimLeft(line, " \t")
	first := !s.read
	s.read = true
	switch {
	case len(line) == 0:
	case first && preprocessed.Match(line):
		s.file = quoted(line)
	case line[0] != '.':
		// A directive may stand after a label or another statement.
		if bytes.Contains(line, []byte(".inc")) {
			s.embedded(line)
		}
	case s.file == "" && hasWord(line, ".file"):
		s.file = quoted(line)
	case hasWord(line, ".include"), hasWord(line, ".incbin"):
		s.include(line)
	case !s.lto && hasWord(line, ".section"):
		s.lto = bytes.Contains(line, []byte(".gnu.lto_"))
	case bytes.Contains(line, []byte(";")) && bytes.Contains(line, []byte(".inc")):
		s.embedded(line)
	}
}

// preprocessed matches the first line that a preprocessor writes (GCC manual,
// "Preprocessor Output").
var preprocessed = regexp.MustCompile(`^# [01] "[^<"]+"`)

func (s *scanned) embedded(line []byte) {
	for _, word := range []string{".include", ".incbin"} {
		rest := line
		for {
			i := bytes.Index(rest, []byte(word))
			if i < 0 {
				break
			}
			rest = rest[i:]
			s.include(rest)
			rest = rest[len(word):]
		}
	}
}

func (s *scanned) include(line []byte) {
	if name := quoted(line); name != "" {
		s.includes = append(s.includes, name)
	}
}

func hasWord(line []byte, word string) bool {
	return len(line) > len(word) && string(line[:len(word)]) == word && (line[len(word)] == ' ' || line[len(word)] == '\t')
}

// quoted returns the first quoted string of line.
func quoted(line []byte) string {
	_, rest, ok := bytes.Cut(line, []byte{'"'})
	if !ok {
		return ""
	}
	var out []byte
	for i := 0; i < len(rest) && rest[i] != '"'; i++ {
		if rest[i] == '\\' && i+1 < len(rest) {
			i++
		}
		out = append(out, rest[i])
	}
	return string(out)
}
