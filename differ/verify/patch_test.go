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
		pretend += 16
		name := s.Name
		if s.Import.Version != "" {
			name += "@" + s.Import.Version
		}
		out.Imports[specs.VAddr(pretend)] = name
		return pretend, false, nil
	}, func(s kpack.Symbol) (kpack.ThreadPlace, error) {
		return kpack.ThreadPlace{Module: 1, Offset: s.Value}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	memory := append(append(append([]byte(nil), im.ROData...), im.Text...), im.Data...)
	end := map[kpack.Kind]uint64{}
	for i, s := range p.Sections {
		at := l.Offset(i)
		out.Memory = append(out.Memory, verify.Piece{
			Addr: specs.VAddr(base) + specs.VAddr(at), Data: memory[at:][:s.Size], Exec: s.Kind == kpack.Text, Write: s.Kind >= kpack.Data,
		})
		kind := min(s.Kind, kpack.Data)
		end[kind] = max(end[kind], at+s.Size)
	}
	for kind, r := range map[kpack.Kind]kpack.Region{kpack.ROData: l.ROData, kpack.Text: l.Text, kpack.Data: l.Data} {
		at := max(end[kind], r.Offset)
		out.Memory = append(out.Memory, verify.Piece{
			Addr: specs.VAddr(base) + specs.VAddr(at), Data: memory[at : r.Offset+r.Size], Exec: kind == kpack.Text, Linker: true,
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
