package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fother/fother/apply/fleet"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
	"github.com/fother/fother/registry/catalog"
	"github.com/fother/fother/specs"
)

var showCommand = &command{
	name:  "show",
	args:  "FILE…",
	brief: "what patch files and bundles hold",
	help: `
Tells what patch files and bundles hold: targets, functions and why they
changed, sizes, CVEs, and who signed. It trusts nothing and changes nothing.

Options:
  --registry URL  also tell whether this registry lists these very bytes, and
                  whose key signed them
  --root FILE     the root.json that says whose signatures are trusted there
                  (/etc/fother/root.json)
`,
	start: func(t *tool, fs *flag.FlagSet) action {
		c := &show{tool: t}
		c.registry.declare(fs)
		return c.run
	},
}

type show struct {
	*tool
	registry registryFlags
	client   client
}

// shown is what show --json prints for each file.
type shown struct {
	File       string          `json:"file"`
	Kind       string          `json:"kind,omitempty"` // "patch" or "bundle"
	Size       int64           `json:"size"`           // bytes
	Digest     specs.Digest    `json:"digest,omitzero"`
	Manifest   bundle.Manifest `json:"manifest,omitzero"`
	Patches    []contents      `json:"patches,omitempty"`
	Signatures []signature     `json:"signatures,omitempty"`
	// Listed is only there if a registry was asked.
	Listed []catalog.Entry `json:"listed,omitzero"`
	Error  string          `json:"error,omitempty"`
	Exit   int             `json:"exit"`
}

// contents is what a patch puts into a process.
type contents struct {
	Target    string          `json:"target"`
	BuildID   specs.BuildID   `json:"build_id"`
	Arch      string          `json:"arch"`
	Series    specs.Series    `json:"series"`
	Level     specs.Level     `json:"level"`
	Size      int64           `json:"size"` // of the file, in bytes
	Memory    memorySizes     `json:"memory"`
	Functions []shownFunction `json:"functions"`
	Hooks     []shownHook     `json:"hooks,omitempty"`
	Variables []shownVariable `json:"variables,omitempty"`
	Imports   []string        `json:"imports,omitempty"`
	Producer  string          `json:"producer,omitempty"`
	Unchecked []string        `json:"unchecked,omitempty"` // what was not compared for lack of debug data
}

// memorySizes are the bytes of each kind of memory that a patch brings.
type memorySizes struct {
	Code   uint64 `json:"code"`
	ROData uint64 `json:"rodata"`
	Data   uint64 `json:"data"`
	BSS    uint64 `json:"bss"`
}

// shownHook is a function that runs in the process around the switch.
type shownHook struct {
	Point    kpack.HookPoint `json:"point"`
	Function string          `json:"function"`
	Limit    time.Duration   `json:"limit_ns"`
}

// shownVariable is one that the patch brings, and with which a higher level goes on.
type shownVariable struct {
	Name string `json:"name"`
	Unit string `json:"unit,omitempty"`
	// Scope is the function that it is static in, if that is known.
	Scope string `json:"scope,omitempty"`
	Type  string `json:"type,omitempty"`
	Size  uint64 `json:"size"` // bytes
	Fresh bool   `json:"fresh,omitempty"`
}

type shownFunction struct {
	Name     string `json:"name"`
	File     string `json:"file,omitempty"`
	Reason   string `json:"reason,omitempty"`
	NextCall bool   `json:"next_call,omitempty"`
	// Original and Patched are the sizes of the bodies in bytes.
	Original uint64 `json:"original_size"`
	Patched  uint64 `json:"patched_size"`
}

func (c *show) run(ctx context.Context, args []string) int {
	if len(args) == 0 {
		return c.fail(usageError{errors.New("no file is named")})
	}
	if err := c.registry.handOver(c.tool); err != nil {
		return c.fail(err)
	}
	if c.registry.url != "" {
		// A folder for this run: what a pull knows is not to be touched.
		dir, err := os.MkdirTemp("", "fother-show-")
		if err != nil {
			return c.fail(err)
		}
		defer os.RemoveAll(dir)
		c.registry.channel = string(catalog.Edge) // it tells of all
		client, err := c.registry.open(c.tool, dir)
		if err != nil {
			return c.fail(err)
		}
		if err := client.Update(ctx); err != nil {
			return c.fail(fmt.Errorf("registry %s: %w", client.Address(), err))
		}
		c.client = client
	}
	all, code := []*shown{}, exitDone
	for _, path := range args {
		s, err := c.file(ctx, path)
		if err != nil {
			s.Error, s.Exit = err.Error(), exitCode(err)
			code = c.fail(err)
		}
		if !c.json {
			c.printFile(s)
		}
		all = append(all, s)
	}
	if c.json {
		c.encode(all)
	}
	return code
}

// file reads one file. What could be read is returned with an error too.
func (c *show) file(ctx context.Context, path string) (*shown, error) {
	s := &shown{File: path}
	data, err := readAny(path, maxPatch)
	if err != nil {
		return s, err
	}
	s.Size, s.Digest = int64(len(data)), specs.DigestOf(data)
	patches, err := s.decode(data)
	if err != nil {
		return s, err
	}
	if s.Signatures, err = signaturesBeside(path); err != nil {
		return s, err
	}
	if c.client != nil {
		if s.Listed, err = fleet.Listed(ctx, c.client, data, patches); err != nil {
			return s, fmt.Errorf("%s: registry %s: %w", path, c.client.Address(), err)
		}
	}
	return s, nil
}

// decode fills in what the file's content says.
func (s *shown) decode(data []byte) ([]*kpack.Patch, error) {
	if bytes.HasPrefix(data, []byte(libcareMagic)) {
		return nil, &libcareFileError{s.File}
	}
	if bundle.Is(data) {
		b, err := bundle.Decode(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.File, err)
		}
		s.Kind, s.Manifest = "bundle", b.Manifest
		for i, p := range b.Patches {
			s.Patches = append(s.Patches, contentsOf(p, len(b.Files[i])))
		}
		return b.Patches, nil
	}
	p, err := kpack.Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.File, err)
	}
	m := p.Meta
	s.Kind = "patch"
	s.Manifest = bundle.Manifest{Name: m.Name, Series: m.Series, Level: m.Level, Description: m.Description, CVEs: m.CVEs, Consistency: m.Consistency}
	s.Patches = []contents{contentsOf(p, len(data))}
	return []*kpack.Patch{p}, nil
}

// readAny reads a regular file that anybody may have written.
func readAny(path string, limit int64) ([]byte, error) {
	// O_NONBLOCK: a FIFO in the file's place must not hold us.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return readAll(f, info.Size(), limit)
}

func contentsOf(p *kpack.Patch, size int) contents {
	c := contents{
		Target: p.Target.Name, BuildID: p.Target.BuildID, Arch: p.Arch.Name, Series: p.Meta.Series, Level: p.Meta.Level,
		Size: int64(size), Producer: p.Meta.Producer, Unchecked: p.Meta.Unchecked, Functions: []shownFunction{},
	}
	for _, s := range p.Sections {
		if s.Name == kpack.SectionGate {
			continue // code of the original
		}
		switch s.Kind {
		case kpack.Text:
			c.Memory.Code += s.Size
		case kpack.ROData:
			c.Memory.ROData += s.Size
		case kpack.Data:
			c.Memory.Data += s.Size
		case kpack.BSS:
			c.Memory.BSS += s.Size
		}
	}
	for _, f := range p.Functions {
		c.Functions = append(c.Functions, shownFunction{f.Name, f.File, f.Reason, f.NextCall, f.Original.Size() + f.Cold.Size(), p.Symbols[f.Symbol].Size})
	}
	for _, h := range p.Hooks {
		c.Hooks = append(c.Hooks, shownHook{h.Point, h.Function, h.Limit})
	}
	for _, v := range p.Variables {
		c.Variables = append(c.Variables, shownVariable{v.Name, v.Unit, v.Scope, v.Type, v.Size, v.Fresh})
	}
	for _, s := range p.Symbols {
		if s.Binding != kpack.Imported {
			continue
		}
		name := s.Name
		if s.Import.Version != "" {
			name += "@" + s.Import.Version
		}
		c.Imports = append(c.Imports, name)
	}
	return c
}
