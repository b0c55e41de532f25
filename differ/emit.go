package differ

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// emit prints the patch assembly.
func emit(p *plan, elsewhere func(name string) bool) []byte {
	w := &writer{plan: p, elsewhere: elsewhere, begin: make(map[int32][]int32)}
	for id := range p.b.Symbols {
		if s := &p.b.Symbols[id]; p.labels[int32(id)] && s.LocalLabel() && s.Where == asm.InItem && s.Ord == 0 && s.Set == "" {
			w.begin[s.Item] = append(w.begin[s.Item], int32(id))
		}
	}
	w.Grow(w.size())
	w.line("\t.file\t\"" + strings.Map(plain, p.unit) + "\"")
	for _, name := range slices.Sorted(maps.Keys(p.weak)) {
		w.line(p.weak[name])
	}
	// Items of one section stay together: gcc reaches some by the distance
	// from another.
	var code, rodata, data, bss, hooks []int32
	for k := range p.b.Items {
		if y := int32(k); p.carried[y] {
			switch kind := p.b.SectionOf(y).Kind; {
			case p.b.roles[y] == function || p.b.roles[y] == part:
				code = append(code, y)
			case p.b.hook(y):
				hooks = append(hooks, y)
			case p.b.constant(y):
				rodata = append(rodata, y)
			case kind == asm.Zero:
				bss = append(bss, y)
			default:
				data = append(data, y)
			}
		}
	}
	for _, list := range [][]int32{rodata, data, bss} {
		slices.SortStableFunc(list, func(x, y int32) int { return cmp.Compare(p.b.Items[x].Section, p.b.Items[y].Section) })
	}
	w.section(SectionText, `"ax",@progbits`, code)
	w.section(SectionROData, `"a",@progbits`, rodata)
	w.section(SectionData, `"aw",@progbits`, data)
	w.section(SectionBSS, `"aw",@nobits`, bss)
	w.section(SectionHooks, `"aw",@progbits`, hooks)
	for id := range w.b.Symbols {
		if s := &w.b.Symbols[id]; w.labels[int32(id)] && s.LocalLabel() && s.Set != "" {
			w.line("\t.set\t" + quote(s.Name) + ", " + s.Set)
		}
	}
	w.line("\t.section\t.note.GNU-stack,\"\"," + w.mark("progbits"))
	return w.Bytes()
}

// size returns about how many bytes are printed.
func (w *writer) size() int {
	n := 1 << 10
	for k, carried := range w.carried {
		if stmts := w.b.Items[k].Stmts; carried && len(stmts) > 0 {
			n += 1<<8 + min(int(stmts[len(stmts)-1].Hi-stmts[0].Lo), len(stmts)<<5)
		}
	}
	return n
}

// plain replaces what a string of the assembler would have to escape.
func plain(r rune) rune {
	if r < ' ' || r == '"' || r == '\\' || r == 0x7f {
		return '_'
	}
	return r
}

type writer struct {
	*plan
	elsewhere func(name string) bool // see Input.Elsewhere
	bytes.Buffer
	// begin has, by item, the labels at its begin that are mentioned. Some
	// stand before directives that made another item.
	begin map[int32][]int32
	mode  string
	refs  []asm.Ref
}

func (w *writer) line(s string) {
	w.WriteString(s)
	w.WriteByte('\n')
}

// mark puts the architecture's type mark before a word.
func (w *writer) mark(word string) string { return string(w.b.Dialect.TypeMark) + word }

func (w *writer) section(name, args string, items []int32) {
	if len(items) == 0 {
		return
	}
	w.line("\t.section\t" + name + "," + strings.ReplaceAll(args, "@", string(w.b.Dialect.TypeMark)))
	for _, y := range items {
		if mode := w.b.Items[y].Mode; mode != w.mode && mode != "" {
			w.line("\t" + mode)
			w.mode = mode
		}
		w.item(y)
	}
}

// item prints one carried item.
func (w *writer) item(y int32) {
	it := &w.b.Items[y]
	switch w.b.roles[y] {
	case function:
		w.line("\t.p2align 4")
	case exception:
		w.line("\t.balign\t4")
	}
	var names []string
	for _, id := range it.Symbols {
		if s := &w.b.Symbols[id]; !s.LocalLabel() {
			names = append(names, w.declare(y, s))
		}
	}
	if it.Common {
		w.common(y, names[0])
		return
	}
	stmts := w.trimmed(y)
	for ; len(stmts) > 0 && stmts[0].Kind == asm.Align; stmts = stmts[1:] {
		w.statement(y, stmts[0])
	}
	w.early(y)
	for _, st := range stmts {
		w.statement(y, st)
	}
	for _, name := range names {
		w.line("\t.size\t" + name + ", .-" + name)
	}
}

// early prints the labels of item y that stand before another section's code.
// They are where its first byte is, behind the padding in front of it: the
// exception table of a .cold part counts from one of them, and the unwinder
// from the part's begin.
func (w *writer) early(y int32) {
	for _, id := range w.begin[y] {
		s := &w.b.Symbols[id]
		if !slices.ContainsFunc(w.b.Items[y].Stmts, func(st asm.Stmt) bool { return st.Kind == asm.Label && asm.Unquote(w.b.TextOf(st)) == s.Name }) {
			w.label(s, quote(s.Name))
		}
	}
}

// label prints the definition of a symbol at the current position, which may be
// some bytes before what it stands for: .set x, .+4.
func (w *writer) label(s *asm.Symbol, name string) {
	if s.Add != 0 {
		w.line("\t.set\t" + name + ", .+" + strconv.FormatInt(s.Add, 10))
		return
	}
	w.line(name + ":")
}

// trimmed returns the statements of item y. Behind an exception table may be
// the alignment of the next one.
func (w *writer) trimmed(y int32) []asm.Stmt {
	stmts := w.b.Items[y].Stmts
	for w.b.roles[y] == exception && len(stmts) > 0 && stmts[len(stmts)-1].Kind == asm.Align {
		stmts = stmts[:len(stmts)-1]
	}
	return stmts
}

// declare prints the attributes of a symbol of item y and returns the name it
// has in the patch. The assembler keeps references to a variable by its name only
// if others can see it, and a newer level of the patch may put another in its
// place: a static one is global to the assembler, and internal says that it is
// the unit's own (gABI, "Symbol Visibility").
func (w *writer) declare(y int32, s *asm.Symbol) string {
	name, r := quote(s.Name+Suffix), w.b.roles[y]
	switch bind := s.Bind; {
	case indirection(s.Name): // each unit has its own
	case bind == asm.Local && r == object && w.variable(y):
		w.line("\t.globl\t" + name)
		w.line("\t.internal\t" + name)
	case bind == asm.Global:
		w.line("\t.globl\t" + name)
	case bind == asm.Weak:
		w.line("\t.weak\t" + name)
	}
	kind := "object"
	if r == function || r == part {
		kind = "function"
	}
	w.line("\t.type\t" + name + ", " + w.mark(kind))
	if s.Set != "" {
		w.line("\t.set\t" + name + ", " + quote(w.b.names[s.Item]+Suffix))
	}
	return name
}

// variable reports whether the program may write to item y, which is no
// declaration of a hook.
func (p *plan) variable(y int32) bool { return !p.b.constant(y) && !p.b.hook(y) }

// common prints the memory of a .comm symbol.
func (w *writer) common(y int32, name string) {
	args := strings.Split(w.b.TextOf(w.b.Items[y].Stmts[0]), ",")
	if len(args) > 2 {
		w.line("\t.balign\t" + strings.TrimSpace(args[2]))
	} else {
		w.line("\t.balign\t16")
	}
	w.line(name + ":")
	w.line("\t.zero\t" + strings.TrimSpace(args[1]))
	w.line("\t.size\t" + name + ", .-" + name)
}

// statement prints one statement with its symbols named as in the patch.
func (w *writer) statement(y int32, st asm.Stmt) {
	text := w.b.TextOf(st)
	switch st.Kind {
	case asm.Label:
		id := w.b.Lookup(asm.Unquote(text))
		if s := &w.b.Symbols[id]; !s.LocalLabel() {
			w.label(s, quote(s.Name+Suffix))
		} else if w.labels[id] {
			w.label(s, quote(s.Name))
		}
		return
	case asm.Number:
		w.line(text + ":")
		return
	}
	w.refs = w.b.Dialect.Refs(w.refs[:0], st.Kind, text)
	w.WriteByte('\t')
	at := 0
	for _, r := range w.refs {
		name := r.Name(text)
		to, own := w.rename(name, r)
		if own && len(w.refs) == 1 {
			if direct, ok := w.b.Dialect.SlotToAddress(text, name, to); ok {
				w.line(direct)
				return
			}
		} else if slot, ok := w.slot(text, name); ok && !own && st.Kind == asm.Insn {
			w.line(slot)
			return
		}
		w.WriteString(text[at:r.Lo])
		w.WriteString(to)
		at = r.Hi
	}
	w.line(text[at:])
}

// slot rewrites an instruction that computes the address of a class's data in
// another object, or of data that the caller says is in one, or that loads such
// data, as code of executables does it: the linker would have copied the data
// into the program.
func (w *writer) slot(text, name string) (string, bool) {
	d, elsewhere := w.b.Dialect, w.elsewhere != nil && w.elsewhere(name)
	if d.AddressToSlot == nil || !elsewhere && classData(name) == "" || w.b.resolve(name).where != asm.Undefined {
		return "", false
	}
	if load, ok := d.LoadBySlot(text, name); ok && elsewhere {
		return load, true
	}
	return d.AddressToSlot(text, name)
}

// rename returns how the patch writes a reference, and whether the patch
// itself defines the symbol.
func (w *writer) rename(name string, r asm.Ref) (to string, own bool) {
	t := w.b.resolve(name)
	if t.where != asm.InItem {
		return quote(name), false
	}
	name = t.name
	main := w.b.parent[t.item]
	switch role := w.b.roles[t.item]; {
	case role == function || role == part:
		if asm.IsLocalLabel(name) {
			return quote(name), true
		}
		if w.carried[main] && (r.Branch || w.b.pair[main] == none || t.item != main) {
			return quote(name + Suffix), true
		}
	case role != object || w.carried[t.item]:
		if asm.IsLocalLabel(name) {
			return quote(name), true
		}
		return quote(name + Suffix), true
	}
	to = quote(w.originalName(main, name))
	if t.add != 0 {
		to += "+" + strconv.FormatInt(t.add, 10)
	}
	return to, false
}

// quote writes a name as the assembler takes it.
func quote(name string) string {
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' && i > 0 || c == '_' || c == '.' || c == '$' && i > 0 || c >= 0x80) {
			return `"` + name + `"`
		}
	}
	return name
}
