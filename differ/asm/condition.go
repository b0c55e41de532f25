package asm

import "strings"

// maxConditions bounds nested conditions.
const maxConditions = 64

// condition takes the directives around text that counts only if a symbol is
// defined, or is not, up to there, as those of SystemTap's probes. Source: as(1)
// manual, "If": a symbol that was only mentioned is not defined. The text
// that does not count is passed over.
func (p *parser) condition(a action, name, args string, lo, hi int) *SyntaxError {
	switch a {
	case aEndIf:
		if p.conditions == 0 {
			return p.fail(lo, hi, ".endif without a condition")
		}
		p.conditions--
		return nil
	case aElse:
		if p.conditions == 0 {
			return p.fail(lo, hi, ".else without a condition")
		}
		p.conditions--
		return p.skip(lo, hi)
	}
	symbol := Unquote(args)
	if end := identEnd(args, 0); args == "" || args[0] != '"' && (end != len(args) || !identStart[args[0]]) || IsLocalLabel(symbol) {
		return p.fail(lo, hi, "condition is not understood")
	}
	if p.conditions == maxConditions {
		return p.fail(lo, hi, "too many nested conditions")
	}
	if p.defined(symbol) == (name == ".ifdef") {
		p.conditions++
		return nil
	}
	return p.skip(lo, hi)
}

// defined reports whether a symbol is defined before the current position.
// Whether one that a folded body defines is cannot be told: that is a Clash.
func (p *parser) defined(name string) bool {
	if p.labels != nil && p.labels.lookup(name).body != 0 {
		p.Clash = true
	}
	id := p.Lookup(name)
	return id >= 0 && (p.Symbols[id].Where != Undefined || p.Symbols[id].Set != "" && !p.Symbols[id].WeakRef)
}

// skip passes over text from offset i on up to the .endif of the condition at
// Text[lo:i], or the .else after which text counts again. Bodies that are folded
// there are a Clash.
func (p *parser) skip(lo, i int) *SyntaxError {
	from, depth := i, 1
	for text := p.Text; i < len(text); {
		end := lineEnd(text, i)
		for i < end {
			stop, next, bad := statementEnd(text[:end], i, p.Dialect)
			if bad {
				return p.fail(lo, from, "string without an end in text that does not count")
			}
			word := strings.TrimLeft(text[i:stop], " \t;")
			word = word[:identEnd(word, 0)]
			switch {
			case strings.HasPrefix(word, ".if"):
				depth++
			case word == ".endif":
				depth--
			case word == ".elseif" && depth == 1:
				return p.fail(lo, from, "condition is not understood")
			}
			if depth == 0 || word == ".else" && depth == 1 && strings.HasPrefix(p.Text[lo:], ".if") {
				p.conditions += depth
				p.goOn(next)
				return nil
			}
			i = max(next, i+1)
		}
		i = end + 1
	}
	return p.fail(lo, from, "condition without .endif")
}

// goOn has the parser go on at offset i, and parse all where that is behind the
// begin of a folded body.
func (p *parser) goOn(i int) {
	p.skipped = i
	p.Clash = p.Clash || p.taken < len(p.Folds) && int(p.Folds[p.taken].Lo) < i
}
