package verify_test

import (
	"strings"
	"testing"

	"github.com/fother/fother/differ/verify"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

// linked is a patch as CheckPatch wants it: right behind its target.
func linked(t testing.TB, p *kpack.Patch) verify.Patch {
	t.Helper()
	const page, header = 4096, 4096
	l, err := p.Layout(page, header)
	if err != nil {
		t.Fatal(err)
	}
	base := (specs.Addr(p.Target.Image.Hi) + 2*page) &^ (page - 1)
	out := verify.Patch{Imports: map[specs.VAddr]string{}}
	pretend := base + specs.Addr(l.Size) + page
	im, err := p.Link(l, base, 0, func(s kpack.Symbol) (specs.Addr, bool, error) {
		pretend += verify.ImportRoom
		out.Imports[specs.VAddr(pretend)] = versioned(s)
		return pretend, false, nil
	}, threadPlaces(p, &out.Threads))
	if err != nil {
		t.Fatal(err)
	}
	out.Threads.Entries = threadEntries(p, l, specs.VAddr(base))
	memory := append(append(append([]byte(nil), im.ROData...), im.Text...), im.Data...)
	end := map[kpack.Kind]uint64{}
	for i, s := range p.Sections {
		at := l.Offset(i)
		if s.Name == kpack.SectionGate {
			continue // code of the original, to which nothing of the patch refers
		}
		out.Memory = append(out.Memory, verify.Piece{
			Name: s.Name, Addr: specs.VAddr(base) + specs.VAddr(at), Data: memory[at:][:s.Size], Exec: s.Kind == kpack.Text, Write: s.Kind >= kpack.Data,
		})
		kind := min(s.Kind, kpack.Data)
		end[kind] = max(end[kind], at+s.Size)
	}
	for kind, r := range map[kpack.Kind]kpack.Region{kpack.ROData: l.ROData, kpack.Text: l.Text, kpack.Data: l.Data} {
		at, hi := max(end[kind], r.Offset), r.Offset+r.Size
		if kind == kpack.Text {
			hi = l.Gates.Offset
		}
		out.Memory = append(out.Memory, verify.Piece{
			Addr: specs.VAddr(base) + specs.VAddr(at), Data: memory[at:hi], Exec: kind == kpack.Text, Linker: true,
		})
	}
	for _, s := range p.Symbols {
		if s.Binding == kpack.Carried && s.Size > 0 {
			out.Symbols = append(out.Symbols, verify.PatchSymbol{
				Name: strings.TrimSuffix(s.Name, ".kpatch"), Addr: specs.VAddr(base) + specs.VAddr(l.Offset(s.Section)+s.Value), Size: s.Size, Func: s.Func,
			})
		}
	}
	for i, f := range p.Functions {
		out.Functions = append(out.Functions, verify.PatchFunction{Name: f.Name, Original: f.Original, Entry: specs.VAddr(im.Entries[i])})
	}
	return out
}

func versioned(s kpack.Symbol) string {
	if s.Import.Version == "" {
		return s.Name
	}
	return s.Name + "@" + s.Import.Version
}

// threadPlaces gives the target and each imported variable a pretend block of
// thread-local storage.
func threadPlaces(p *kpack.Patch, threads *verify.Threads) kpack.ThreadResolver {
	add := func(name string, size uint64) verify.ThreadBlock {
		n := len(threads.Blocks) + 1
		b := verify.ThreadBlock{Name: name, Module: uint64(n), TP: int64(n) << 28, Size: size}
		threads.Blocks = append(threads.Blocks, b)
		return b
	}
	own := add("", p.Target.Threads)
	return func(s kpack.Symbol) (kpack.ThreadPlace, error) {
		b, offset := own, s.Value
		if s.Binding == kpack.Imported {
			b, offset = add(versioned(s), s.Size), 0
		}
		return kpack.ThreadPlace{Module: b.Module, Offset: offset, Static: true, TP: b.TP + int64(offset)}, nil
	}
}

func threadEntries(p *kpack.Patch, l kpack.Layout, base specs.VAddr) map[specs.VAddr]verify.ThreadEntry {
	all := map[specs.VAddr]verify.ThreadEntry{}
	for i := range p.Symbols {
		offset, pair, descriptor := l.ThreadEntries(i)
		for kind, at := range []uint64{offset, pair, descriptor} {
			if at != 0 {
				all[base+specs.VAddr(at)] = verify.ThreadEntry(kind)
			}
		}
	}
	return all
}
