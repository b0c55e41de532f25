package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/fother/fother/specs"
)

// Record describes one successful invocation of an assembler or linker.
type Record struct {
	// ID is unique in the store. Records sorted by ID are in the order in
	// which the invocations ended.
	ID string `json:"id"`
	// Parent is the ID prefix of the link that ran this invocation, as the
	// link-time optimizer does, or empty. See Link.Run.
	Parent string `json:"parent,omitempty"`
	// Kept is set if an earlier build of the same tree made this record.
	Kept bool `json:"kept,omitempty"`
	// Dir is the working directory of the invocation.
	Dir string `json:"dir"`
	// Program is the real tool that ran.
	Program string `json:"program"`
	// Args are its arguments without the program, response files expanded.
	Args []string `json:"args"`
	// Exactly one of the following is set.
	Assembly *Assembly `json:"assembly,omitempty"`
	Link     *Link     `json:"link,omitempty"`
}

// Assembly is one run of the assembler: a unit.
type Assembly struct {
	// Source is the absolute path of the source file that the compiler was
	// given, as far as it can be told.
	Source string       `json:"source"`
	Text   specs.Digest `json:"text"`
	// Includes are the files that the text names with .include and .incbin.
	Includes []File `json:"includes,omitempty"`
	// Output is the object's absolute path in the build, or empty if the
	// compiler linked at once.
	Output string       `json:"output,omitempty"`
	Object specs.Digest `json:"object"`
	// LTO is set if the text holds the intermediate code of the link-time
	// optimizer: a link may replace it by units of its own.
	LTO bool `json:"lto,omitempty"`
	// NoText says why there is no text of this object; Text is then zero.
	NoText string `json:"no_text,omitempty"`
}

// File is a file with its content's digest.
type File struct {
	Path   string       `json:"path"`
	Digest specs.Digest `json:"digest"`
}

// Link is one run of a linker.
type Link struct {
	// Run is the Parent of the invocations that this link started.
	Run string `json:"run"`
	// Output is the linked file's absolute path in the build.
	Output string       `json:"output"`
	Digest specs.Digest `json:"digest"`
	// Kind is "executable", "shared" or "relocatable".
	Kind    string        `json:"kind"`
	BuildID specs.BuildID `json:"build_id,omitempty"`
	// Symbols is the file of the same code that has a full symbol table: the
	// output itself, or for a link with --strip-all a second one without it.
	Symbols specs.Digest `json:"symbols"`
	// NoSymbols says why there is no such file; Symbols is then the output.
	NoSymbols string `json:"no_symbols,omitempty"`
	// NoInputs says why Inputs could not be told.
	NoInputs string  `json:"no_inputs,omitempty"`
	Inputs   []Input `json:"inputs"`
}

// Input is an object that took part in a link.
type Input struct {
	// Path is the absolute path of the object or of the archive that it is a
	// member of.
	Path   string       `json:"path"`
	Member string       `json:"member,omitempty"`
	Digest specs.Digest `json:"digest"`
	// Gone is set if the object did not outlive the link, as those of the
	// link-time optimizer: Digest is then zero.
	Gone bool `json:"gone,omitempty"`
}

// maxRecord bounds a record, in bytes: a link of a hundred thousand objects
// stays below it.
const maxRecord = 256 << 20

// decodeRecord reads a record and checks its shape.
func decodeRecord(data []byte) (*Record, error) {
	if len(data) > maxRecord {
		return nil, fmt.Errorf("record of %d bytes: at most %d are allowed", len(data), maxRecord)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	r := new(Record)
	if err := dec.Decode(r); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("data after the record")
	}
	if (r.Assembly == nil) == (r.Link == nil) {
		return nil, errors.New("neither an assembly nor a link")
	}
	return r, nil
}
