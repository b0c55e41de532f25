package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/fother/fother/compiler/internal/fingerprint"
)

var errOther = errors.New("clang's assembly text gives another object")

// lineNumbers are the directives that fill .debug_line only. Without them the
// assembler does the same for a running program, in less time, and clang 14's
// does not stumble over the names of files that clang wrote: ./x.c and x.c.
var lineNumbers = regexp.MustCompile(`(?m)^\t\.(?:loc\t|file\t[0-9]).*$`)

// prove assembles text and compares what comes out with object.
func (c *clang) prove(as clangJob, text, object string) error {
	data, err := os.ReadFile(text)
	if err != nil {
		return err
	}
	data = lineNumbers.ReplaceAll(data, nil)
	got, _, err := c.print(as, data)
	if err != nil {
		return err
	}
	want, err := fingerprint.Of(object)
	if errors.Is(err, fingerprint.ErrEmpty) {
		want, err = fingerprint.Print{}, nil
	}
	if err != nil || want == got {
		return err
	}
	if short := shortForms(data); !bytes.Equal(short, data) {
		data = short
		if got, _, err = c.print(as, data); err != nil || want == got {
			return err
		}
	}
	return c.proveShifts(as, data, object)
}

// accumulator are the x86 instructions with the address of a symbol as
// immediate operand and rax or eax as the other: clang has a form without a
// ModRM byte for them, its assembler takes the longer one.
var accumulator = regexp.MustCompile(`(?m)^\t(add|or|adc|sbb|and|sub|xor|cmp|test)([lq])\t\$([A-Za-z_.][\w.$]*(?:[+-][0-9]+)?), %[er]ax[ \t]*(?:#.*)?$`)

// opcodes are those of the forms without a ModRM byte. Source: Intel's manual,
// volume 2, the instructions with "I" in the column for operand encoding.
var opcodes = map[string]byte{
	"add": 0x05, "or": 0x0d, "adc": 0x15, "sbb": 0x1d, "and": 0x25, "sub": 0x2d, "xor": 0x35, "cmp": 0x3d, "test": 0xa9,
}

// shortForms writes the instructions that accumulator finds as the bytes and the
// relocation that clang makes of them.
func shortForms(text []byte) []byte {
	return accumulator.ReplaceAllFunc(text, func(insn []byte) []byte {
		m := accumulator.FindSubmatch(insn)
		prefix, relocation := "", "R_X86_64_32"
		if m[2][0] == 'q' {
			prefix, relocation = "0x48, ", "R_X86_64_32S"
		}
		return fmt.Appendf(nil, "\t.byte\t%s%#x\n\t.reloc\t., %s, %s\n\t.long\t0", prefix, opcodes[string(m[1])], relocation, m[3])
	})
}

// print assembles a text and returns the object's path and fingerprint, which is
// zero for an empty one.
func (c *clang) print(as clangJob, data []byte) (p fingerprint.Print, object string, err error) {
	object = c.temp(".o")
	text := c.temp(".s")
	if err := os.WriteFile(text, data, 0o600); err != nil {
		return p, "", err
	}
	said := new(bytes.Buffer)
	as.args = append(slices.Clone(as.args), "-o", object, text)
	if err := c.run(as, said); err != nil {
		first, _, _ := strings.Cut(said.String(), "\n")
		return p, "", fmt.Errorf("its assembly text is not assembled: %w: %s", err, first)
	}
	p, err = fingerprint.Of(object)
	if errors.Is(err, fingerprint.ErrEmpty) {
		err = nil
	}
	return p, object, err
}

// shiftByOne are the x86 shifts by one that clang prints with the count: the
// ones that it encodes with an immediate byte, as it does at -O0. Its assembler
// has a shorter encoding for them.
var shiftByOne = regexp.MustCompile(`(?m)^(\t(?:sh[lr]|sa[lr]|ro[lr]|rc[lr])[bwlq]\t\$)1(, )`)

// proveShifts compares object with what a text gives if shifts by one keep
// their immediate byte. Two other counts stand for it, and tell where it is.
func (c *clang) proveShifts(as clangJob, data []byte, object string) (err error) {
	if !shiftByOne.Match(data) {
		return errOther
	}
	var prints [2]fingerprint.Print
	var objects [2]string
	for i, count := range []string{"3", "4"} {
		if prints[i], objects[i], err = c.print(as, shiftByOne.ReplaceAll(data, []byte("${1}"+count+"${2}"))); err != nil {
			return err
		}
	}
	got, err := fingerprint.Masked(object, objects[0], objects[1], 1)
	if err == nil && got != prints[0] {
		err = errOther
	}
	return err
}
