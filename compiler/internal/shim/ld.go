package shim

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/fother/fother/compiler/internal/link"
	"github.com/fother/fother/compiler/internal/store"
	"github.com/fother/fother/kpack/elfobj"
)

// linking is one run of the linker.
type linking struct {
	*invocation
	real   tool
	args   *link.Args
	output string // absolute
	run    string // store.Link.Run
	env    []string
	mapped string       // our map file, or empty
	stdout bytes.Buffer // if the user's map goes there
}

// link stands for the linker.
func (inv *invocation) link() int {
	real, err := inv.real()
	if err != nil {
		return inv.fail(exitError, err)
	}
	if inv.store == nil || os.Getenv(envLink) == noCapture {
		return inv.fail(exitError, real.exec(inv.args, os.Environ()))
	}
	args, err := link.ParseArgs(inv.dir, inv.args)
	if err != nil {
		return inv.fail(exitError, err)
	}
	l := &linking{invocation: inv, real: real, args: args, output: inv.abs(args.Output), run: store.NewID()}
	l.env = setenv(os.Environ(), envLink, l.run)
	before := stamp(l.output)
	status, err := l.runLinker()
	if l.mapped != "" {
		defer os.Remove(l.mapped)
	}
	if err != nil {
		return inv.fail(exitError, err)
	}
	if status != 0 || !isRegular(l.output) || args.Query && stamp(l.output) == before {
		return exit(status)
	}
	if err := l.record(); err != nil {
		return inv.failStore(l.output, err)
	}
	return 0
}

// stamp tells whether a file was written anew.
func stamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.Size(), info.ModTime().UnixNano())
}

// runLinker runs the linker as it was called, with a map file of our own if
// the user wants none: of two, only the last is written.
func (l *linking) runLinker() (status syscall.WaitStatus, err error) {
	args := l.invocation.args
	if l.args.Map == "" && !l.args.PrintMap && !l.args.Query {
		if l.mapped, err = l.tempName("map-*"); err != nil {
			return 0, err
		}
		args = append(args[:len(args):len(args)], "-Map="+l.mapped)
	}
	return l.real.run(args, l.env, func(cmd *exec.Cmd) {
		if l.args.PrintMap && l.args.Map == "" {
			cmd.Stdout = io.MultiWriter(os.Stdout, &l.stdout)
		}
	})
}

// tempName returns the name of a new file in the store.
func (l *linking) tempName(pattern string) (string, error) {
	f, err := l.store.Temp(pattern)
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// record stores the link.
func (l *linking) record() error {
	out := &store.Link{Run: l.run, Output: l.output}
	var err error
	if out.Digest, err = l.store.PutFile(l.output); err != nil {
		return err
	}
	file, err := elfobj.Open(l.store.Blob(out.Digest))
	if err != nil {
		return nil // another machine's or no ELF file at all: nothing to patch
	}
	out.Kind = l.kind(file)
	if out.Kind != kindRelocatable {
		if out.BuildID, err = file.BuildID(); err != nil && !errors.Is(err, elfobj.ErrNoBuildID) {
			return fmt.Errorf("%s: %w", l.output, err)
		}
	}
	mapFile, cleanup, err := l.symbols(out, file)
	defer cleanup()
	if err != nil {
		return err
	}
	if out.Inputs, err = l.inputs(mapFile); err != nil {
		if e := (*store.Error)(nil); errors.As(err, &e) {
			return err
		}
		out.Inputs, out.NoInputs = nil, err.Error()
	}
	return l.store.PutRecord(l.stage, &store.Record{
		Parent: os.Getenv(envLink), Dir: l.dir, Program: l.real.Path, Args: l.args.All, Link: out,
	})
}

// The values of store.Link.Kind.
const (
	kindExecutable  = "executable"
	kindShared      = "shared"
	kindRelocatable = "relocatable"
)

func (l *linking) kind(f *elfobj.File) string {
	switch {
	case f.Type == elf.ET_REL:
		return kindRelocatable
	case f.Type == elf.ET_DYN && l.args.Shared:
		return kindShared
	default:
		return kindExecutable
	}
}

// symbols sees to it that out.Symbols names a file with all symbols. Where the
// link strips them it is done again without that. It returns the map file to
// read.
func (l *linking) symbols(out *store.Link, stripped *elfobj.File) (mapFile string, cleanup func(), err error) {
	out.Symbols = out.Digest
	mapFile, cleanup = l.mapped, func() {}
	if l.args.Map != "" {
		mapFile = l.abs(l.args.Map)
	}
	if !l.args.Strips {
		return mapFile, cleanup, nil
	}
	full, err := l.tempName("linked-*")
	if err != nil {
		return "", cleanup, err
	}
	second, err := l.tempName("map-*")
	if err != nil {
		return "", func() { os.Remove(full) }, err
	}
	cleanup = func() { os.Remove(full); os.Remove(second) }
	if reason := l.again(full, second, stripped); reason != nil {
		out.NoSymbols = reason.Error()
		return mapFile, cleanup, nil
	}
	if out.Symbols, err = l.store.PutFile(full); err != nil {
		return "", cleanup, err
	}
	if mapFile == "" && !l.args.PrintMap {
		mapFile = second
	}
	return mapFile, cleanup, nil
}

// again links a second time with all symbols and returns why the result
// cannot stand for the first.
func (l *linking) again(output, mapFile string, stripped *elfobj.File) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	var messages bytes.Buffer
	status, err := l.real.run(l.args.Unstripped(output, mapFile), setenv(l.env, envLink, noCapture), func(cmd *exec.Cmd) {
		cmd.Stdin, cmd.Stdout, cmd.Stderr = null, null, &messages
	})
	if err != nil {
		return err
	}
	if status != 0 {
		return fmt.Errorf("the same link without --strip-all fails: %s", strings.TrimSpace(messages.String()))
	}
	full, err := elfobj.Open(output)
	if err != nil {
		return err
	}
	return sameImage(stripped, full)
}

// sameImage returns how the memory images of a and b differ, build-ids apart.
func sameImage(a, b *elfobj.File) error {
	sa, sb := allocated(a), allocated(b)
	if len(sa) != len(sb) {
		return fmt.Errorf("the same link without --strip-all has %d allocated sections, not %d", len(sb), len(sa))
	}
	for i := range sa {
		x, y := sa[i], sb[i]
		same := x.Name == y.Name && x.Addr == y.Addr && x.Size == y.Size && x.Flags == y.Flags
		if same && x.Type != elf.SHT_NOBITS && x.Name != ".note.gnu.build-id" {
			dx, err := x.Data()
			if err != nil {
				return err
			}
			dy, err := y.Data()
			if err != nil {
				return err
			}
			same = bytes.Equal(dx, dy)
		}
		if !same {
			return fmt.Errorf("the same link without --strip-all gives another section %s", x.Name)
		}
	}
	return nil
}

func allocated(f *elfobj.File) []*elfobj.Section {
	var out []*elfobj.Section
	for i := range f.Sections {
		if f.Sections[i].Flags&elf.SHF_ALLOC != 0 {
			out = append(out, &f.Sections[i])
		}
	}
	return out
}

// inputs reads the map and the files that it names.
func (l *linking) inputs(mapFile string) ([]store.Input, error) {
	var r io.Reader = &l.stdout
	if mapFile != "" {
		f, err := os.Open(mapFile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	files, err := link.ParseMap(r)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, errors.New("the linker's map names no file")
	}
	members := map[string]map[string]bool{}
	for _, in := range files {
		if in.Member != "" {
			if members[in.Path] == nil {
				members[in.Path] = map[string]bool{}
			}
			members[in.Path][in.Member] = true
		}
	}
	var out []store.Input
	for _, in := range files {
		if in.Member != "" {
			continue // comes with its archive
		}
		more, err := l.input(in.Path, members[in.Path])
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	more, err := l.bitcode()
	return append(out, more...), err
}

// bitcodeMagic begins the files of LLVM's link-time optimizer.
const bitcodeMagic = "BC\xc0\xde"

// bitcode returns the arguments of the link that hold LLVM's intermediate code:
// lld's map names what it made of them, not them.
func (l *linking) bitcode() ([]store.Input, error) {
	var out []store.Input
	for _, path := range l.args.Files {
		var magic [len(bitcodeMagic)]byte
		abs := l.abs(path)
		if _, err := readStart(abs, magic[:]); err != nil || string(magic[:]) != bitcodeMagic {
			continue
		}
		d, err := l.store.PutFile(abs)
		if err != nil {
			return nil, err
		}
		out = append(out, store.Input{Path: abs, Digest: d})
	}
	return out, nil
}

// input returns the objects that the file at path brings into a link: itself,
// the given members of an archive, or none if it is a shared library, a linker
// script or a name that is no file's.
func (l *linking) input(path string, members map[string]bool) ([]store.Input, error) {
	abs := l.abs(path)
	if abs == l.output {
		return nil, nil
	}
	var header [20]byte
	n, err := readStart(abs, header[:])
	if errors.Is(err, os.ErrNotExist) {
		if filepath.IsAbs(path) && strings.HasSuffix(path, ".o") {
			return []store.Input{{Path: abs, Gone: true}}, nil
		}
		return nil, nil // "linker stubs" and the like
	}
	if err != nil {
		return nil, err
	}
	switch h := header[:n]; {
	case bytes.HasPrefix(h, []byte("!<")):
		return l.archiveInputs(abs, members)
	case len(h) == len(header) && string(h[:4]) == elf.ELFMAG && elf.Type(h[16]) == elf.ET_REL:
		d, err := l.store.PutFile(abs)
		return []store.Input{{Path: abs, Digest: d}}, err
	}
	return nil, nil
}

func readStart(path string, b []byte) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return 0, err
	}
	n, err := io.ReadFull(f, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

func (l *linking) archiveInputs(path string, members map[string]bool) ([]store.Input, error) {
	if len(members) == 0 {
		return nil, nil
	}
	var out []store.Input
	err := link.Archive(path, func(name string) bool { return members[name] }, func(name string, data io.ReadSeeker) error {
		d, err := l.store.PutSeeker(data)
		out = append(out, store.Input{Path: path, Member: name, Digest: d})
		return err
	})
	return out, err
}
