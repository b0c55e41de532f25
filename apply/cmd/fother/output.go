package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// output is a writer that keeps its first error. What it writes may hold names
// and texts of others, so control characters other than the newline are
// written as escapes: nothing but the tool itself speaks to the terminal.
type output struct {
	io.Writer
	err error
}

// Write wants whole characters.
func (o *output) Write(b []byte) (int, error) {
	safe := b
	if !printable(b) {
		safe = escape(b)
	}
	n, err := o.Writer.Write(safe)
	if err != nil && o.err == nil {
		o.err = err
	}
	if err == nil {
		n = len(b)
	}
	return min(n, len(b)), err
}

// gathered is a writer that makes few large writes of many small ones, each of
// which it keeps whole.
type gathered struct {
	io.Writer
	text []byte
}

// gather has results written so until flush is called.
func (t *tool) gather() (flush func()) {
	g := &gathered{Writer: t.stdout}
	t.stdout = g
	return func() {
		g.flush()
		t.stdout = g.Writer
	}
}

func (g *gathered) Write(b []byte) (int, error) {
	const enough = 16 << 10
	if g.text = append(g.text, b...); len(g.text) >= enough {
		g.flush()
	}
	return len(b), nil
}

// flush writes what was gathered. The writer behind it keeps the error.
func (g *gathered) flush() {
	g.Writer.Write(g.text)
	g.text = g.text[:0]
}

func printable(b []byte) bool {
	for len(b) > 0 {
		if b[0] >= ' ' && b[0] < 0x7f { // most are
			b = b[1:]
			continue
		}
		r, n := utf8.DecodeRune(b)
		if r != '\n' && hostile(r, n) {
			return false
		}
		b = b[n:]
	}
	return true
}

// hostile tells what a terminal would not merely show: controls (C0, DEL, C1),
// bytes that are not UTF-8, and the marks that turn the direction of text.
func hostile(r rune, size int) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == utf8.RuneError && size == 1
}

func escape(b []byte) []byte {
	var out bytes.Buffer
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		switch {
		case r == '\n' || !hostile(r, n):
			out.Write(b[:n])
		case r <= 0xff || r == utf8.RuneError:
			for _, c := range b[:n] {
				fmt.Fprintf(&out, `\x%02x`, c)
			}
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
		b = b[n:]
	}
	return out.Bytes()
}

// clean returns s as it may stand within a line: newlines are escaped too, so
// that a name cannot look like a line of ours.
func clean(s string) string {
	if b := []byte(s); printable(b) && !bytes.Contains(b, []byte{'\n'}) {
		return s
	}
	return strings.ReplaceAll(string(escape([]byte(s))), "\n", `\n`)
}
