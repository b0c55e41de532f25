package asm

import "strings"

// directive takes the directive Text[lo:hi] of that name.
func (p *parser) directive(name string, lo, hi int) *SyntaxError {
	args := strings.TrimSpace(p.Text[lo+len(name) : hi])
	st := func(k Kind) *SyntaxError { return p.add(Stmt{uint32(lo), uint32(hi), uint32(p.line), k}) }
	switch a := actionOf(name); a {
	case aNoise:
	case aBytes:
		return st(dataKind(args))
	case aLiteral:
		return st(Literal)
	case aAlign:
		return st(Align)
	case aCFI:
		return st(CFI)
	case aMark:
		return st(Mark)
	case aMode:
		return p.setMode(name, lo, hi)
	case aSection, aPush, aPop, aPrevious:
		return p.sections(a, name, args, lo, hi)
	case aIdent:
		if p.Producer == "" {
			p.Producer = Unquote(args)
		}
	case aSymver:
		p.Versions = append(p.Versions, args)
	case aSet, aWeakref:
		sym, expr, ok := strings.Cut(args, ",")
		if !ok {
			return p.fail(lo, hi, "want a symbol and a value")
		}
		sym, expr = strings.TrimSpace(sym), strings.TrimSpace(expr)
		if a == aSet {
			return p.set(sym, expr, lo, hi)
		}
		s := &p.Symbols[p.symbol(sym)]
		s.Set, s.WeakRef = expr, true
	case aCommon:
		return p.common(name, args, lo, hi)
	case aGlobal, aWeak, aLocal, aVisibility, aType, aSize:
		return p.attribute(a, name, args, lo, hi)
	case aIfDefined, aElse, aEndIf:
		return p.condition(a, name, args, lo, hi)
	default:
		return p.fail(lo, hi, "%s", reason(name, a))
	}
	return nil
}

// setMode remembers which instructions the assembler takes from here on.
func (p *parser) setMode(name string, lo, hi int) *SyntaxError {
	text := p.Text[lo:hi]
	switch {
	case name == ".arch" || name == ".cpu":
		p.mode = text
	case name == ".arch_extension":
		p.mode = strings.TrimLeft(p.mode+"\n\t"+text, "\n\t")
		if len(p.mode) > 4096 {
			return p.fail(lo, hi, "too many .arch_extension directives")
		}
	}
	p.Clash = p.Clash || p.Sections[p.sec].buried != ""
	if open := p.Sections[p.sec].open; open >= 0 {
		p.Items[open].Mode = p.mode
	}
	return nil
}

// sections takes a directive that changes the section.
func (p *parser) sections(a action, name, args string, lo, hi int) *SyntaxError {
	switch {
	case a == aPrevious:
		p.change(p.previous)
		return nil
	case a == aPop:
		if len(p.stack) == 0 {
			return p.fail(lo, hi, ".popsection without .pushsection")
		}
		top := p.stack[len(p.stack)-1]
		p.stack = p.stack[:len(p.stack)-1]
		p.change(top[0])
		p.previous = top[1]
		return nil
	case name == ".text" || name == ".data" || name == ".bss":
		if args != "" && args != "0" {
			return p.fail(lo, hi, "subsections are not supported")
		}
		flags := "aw"
		if name == ".text" {
			flags = "ax"
		}
		p.change(p.section(name, flags, ""))
		return nil
	}
	if a == aPush {
		if len(p.stack) == maxStack {
			return p.fail(lo, hi, "too many nested .pushsection")
		}
		p.stack = append(p.stack, [2]int32{p.sec, p.previous})
	}
	secName, rest, _ := strings.Cut(args, ",")
	secName = Unquote(strings.TrimSpace(secName))
	if secName == "" {
		return p.fail(lo, hi, "section without a name")
	}
	flags, rest, ok := sectionFlags(strings.TrimSpace(rest))
	if !ok {
		return p.fail(lo, hi, "section flags are not understood")
	}
	if strings.ContainsRune(flags, '?') { // in the group of the current section, if that is in one
		flags = strings.ReplaceAll(flags, "?", "")
		if cur := &p.Sections[p.sec]; cur.Group() {
			flags, rest = flags+"G", rest+", in the group of: "+cur.Args
		}
	}
	p.change(p.section(secName, flags, rest))
	return nil
}

// sectionFlags splits `"aMS",@progbits,1` into flags and the rest. It reports
// whether the flags are understood.
func sectionFlags(s string) (flags, rest string, ok bool) {
	if s == "" {
		return "", "", true
	}
	if s[0] != '"' {
		return "", "", false
	}
	end := stringEnd(s, 0)
	if end < 2 || s[end-1] != '"' {
		return "", "", false
	}
	flags = s[1 : end-1]
	return flags, strings.TrimSpace(strings.TrimLeft(s[end:], ", ")), strings.Trim(flags, "awxMSGTReold?0123456789") == ""
}

// common takes .comm and .lcomm.
func (p *parser) common(name, args string, lo, hi int) *SyntaxError {
	sym, _, ok := strings.Cut(args, ",")
	sym = Unquote(strings.TrimSpace(sym))
	if !ok || sym == "" {
		return p.fail(lo, hi, "want a symbol and a size")
	}
	id := p.symbol(sym)
	s := &p.Symbols[id]
	if s.Where != Undefined {
		return p.fail(lo, hi, "symbol is defined twice")
	}
	if name == ".comm" && s.Bind == Local && !s.declaredLocal {
		s.Bind = Global
	}
	bss := p.section(".bss", "aw", "")
	item := int32(len(p.Items))
	p.Items = append(p.Items, Item{Section: bss, Line: uint32(p.line), Symbols: []int32{id}, Inner: -1, Common: true,
		Stmts: []Stmt{{uint32(lo), uint32(hi), uint32(p.line), Literal}}, Bytes: 1})
	s.Where, s.Item, s.Ord, s.Line = InItem, item, 0, uint32(p.line)
	p.Sections[bss].Items = append(p.Sections[bss].Items, item)
	return nil
}

// attribute takes the directives that say something about symbols.
func (p *parser) attribute(a action, name, args string, lo, hi int) *SyntaxError {
	if p.Sections[p.sec].Kind == Ignored && strings.HasPrefix(args, ".L") {
		return nil
	}
	if a == aType || a == aSize {
		sym, value, ok := strings.Cut(args, ",")
		if !ok {
			sym, value, ok = strings.Cut(args, " ")
		}
		if !ok {
			return p.fail(lo, hi, "want a symbol and a value")
		}
		id := p.symbol(Unquote(strings.TrimSpace(sym)))
		value = strings.TrimSpace(value)
		if a == aSize {
			p.size(id, value)
			return nil
		}
		s := &p.Symbols[id]
		s.Type = strings.ToLower(strings.TrimPrefix(strings.Trim(value, `@%#"`), "STT_"))
		return nil
	}
	for sym := range strings.SplitSeq(args, ",") {
		sym = Unquote(strings.TrimSpace(sym))
		if sym == "" {
			return p.fail(lo, hi, "want a symbol")
		}
		s := &p.Symbols[p.symbol(sym)]
		switch a {
		case aGlobal:
			if s.Bind == Local {
				s.Bind = Global
			}
		case aWeak:
			s.Bind = Weak
		case aLocal:
			s.Bind, s.declaredLocal = Local, true
		case aVisibility:
			s.Vis = name[1:]
		}
	}
	return nil
}

// size takes .size; the end of a function is where its size is known.
func (p *parser) size(id int32, expr string) {
	s := &p.Symbols[id]
	s.Size = expr
	if s.Where == Undefined {
		p.buriedSize(s.Name)
	}
	if s.Where != InItem || p.Sections[p.Items[s.Item].Section].Kind != Text {
		return
	}
	sec := &p.Sections[p.Items[s.Item].Section]
	if sec.open == s.Item {
		sec.sized = s.Item
		sec.open = -1
		sec.last = -1
	}
}
