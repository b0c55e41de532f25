package pipeline

import (
	"path/filepath"
	"strings"

	"github.com/fother/fother/compiler/source"
	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs"
)

// fixOf reads what the spec's patches do to the source, for reasons. Where
// that cannot be told, reasons say what differs.
func fixOf(s specs.Spec, l Layout) *differ.Fix {
	if l.Source == "" || len(s.Patches) == 0 {
		return nil
	}
	edits, err := source.Edits(l.Source, s.Patches)
	if err != nil {
		return nil
	}
	fix := &differ.Fix{Tree: l.Tree}
	for _, e := range edits {
		name := filepath.Join(l.SourceAt, e.Name)
		if rel, ok := strings.CutPrefix(name, l.Tree+"/"); ok {
			name = rel
		}
		f := differ.FixFile{Name: name, Outside: e.Outside}
		for _, fn := range e.Functions {
			f.Functions = append(f.Functions, differ.FixFunction{Name: fn.Name, Edit: edit(fn.Edit), Lo: fn.Lo, Hi: fn.Hi, Grown: fn.Grown})
		}
		fix.Files = append(fix.Files, f)
	}
	return fix
}

func edit(e source.Edit) differ.Edit {
	switch e {
	case source.Body:
		return differ.EditedBody
	case source.Signature:
		return differ.EditedSignature
	case source.Added:
		return differ.EditAdded
	case source.Removed:
		return differ.EditRemoved
	}
	return differ.Unedited
}
