package kpack

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fother/fother/specs"
)

// initial identifies the value that a variable begins with, wherever in the
// patch lies what it points to.
func (p *Patch) initial(of Symbol) specs.Digest {
	s := p.Sections[of.Section]
	value := make([]byte, of.Size)
	if s.Kind == Data {
		copy(value, s.Data[min(of.Value, s.Size):])
	}
	h := sha256.New()
	h.Write(value)
	for _, r := range s.Relocs {
		if r.Offset >= of.Value && r.Offset-of.Value < of.Size {
			fmt.Fprintf(h, "%d %d %s\n", r.Offset-of.Value, r.Type, p.meant(r))
		}
	}
	return specs.Digest(h.Sum(nil))
}

// meant describes what a relocation of data refers to: by its name, or by what is
// there.
func (p *Patch) meant(r Reloc) string {
	const most = 4096 // bytes of a string
	s := p.Symbols[r.Symbol]
	if s.Binding != Carried || s.Name != "" {
		return fmt.Sprintf("%s%+d", strings.TrimSuffix(s.Name, carriedSuffix), r.Addend)
	}
	at := s.Value + uint64(r.Addend)
	for _, o := range p.Symbols {
		if o.Binding == Carried && o.Name != "" && o.Section == s.Section && o.Value == at {
			return strings.TrimSuffix(o.Name, carriedSuffix)
		}
	}
	in := p.Sections[s.Section]
	if in.Kind != ROData || at >= in.Size {
		return fmt.Sprintf("%s%+d", in.Name, at)
	}
	text := in.Data[at:min(in.Size, at+most)]
	if end := slices.Index(text, 0); end >= 0 {
		text = text[:end+1]
	}
	return strconv.Quote(string(text))
}
