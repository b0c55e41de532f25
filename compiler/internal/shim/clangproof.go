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
	return c.proveShifts(as, data, object)
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
