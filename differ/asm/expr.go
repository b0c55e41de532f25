package asm

import (
	"strconv"
	"strings"
)

// resolveSet resolves a .set symbol whose expression names another symbol.
func (p *parser) resolveSet(s *Symbol) {
	seen := 0
	add := int64(0)
	expr := s.Set
	for {
		name, n, ok := SplitSum(expr)
		if !ok || seen > maxStack {
			s.Where = Expression
			return
		}
		add += n
		if name == "" {
			s.Where, s.Add = Absolute, add
			return
		}
		t := p.Lookup(name)
		if t < 0 || p.Symbols[t].Where == Undefined && p.Symbols[t].Set == "" {
			s.Where = Expression
			return
		}
		o := &p.Symbols[t]
		if o.Where == InItem || o.Where == Loose || o.Where == Absolute || o.Where == Expression {
			s.Where, s.Item, s.Ord, s.Add = o.Where, o.Item, o.Ord, o.Add+add
			if s.Where == InItem && o.Ord == 0 && s.Add == 0 {
				it := &p.Items[o.Item]
				it.Symbols = append(it.Symbols, p.Named(s.Number))
			}
			return
		}
		expr = o.Set
		seen++
	}
}

// HasDot reports whether an expression counts from the current position.
func HasDot(expr string) bool {
	for i := 0; i < len(expr); {
		if !identPart[expr[i]] {
			i++
			continue
		}
		end := identEnd(expr, i)
		if expr[i:end] == "." {
			return true
		}
		i = end
	}
	return false
}

// SplitSum splits "name", "name+N", "name-N" or "N".
func SplitSum(expr string) (name string, n int64, ok bool) {
	expr = strings.ReplaceAll(expr, " ", "")
	if expr == "" {
		return "", 0, false
	}
	if end := identEnd(expr, 0); identStart[expr[0]] && end > 0 {
		name, expr = expr[:end], expr[end:]
		if expr == "" {
			return name, 0, true
		}
		if expr[0] != '+' && expr[0] != '-' {
			return "", 0, false
		}
	} else if expr[0] == '"' {
		end := stringEnd(expr, 0)
		if end < 3 || end != len(expr) {
			return "", 0, false
		}
		return expr[1 : end-1], 0, true
	}
	n, err := strconv.ParseInt(expr, 0, 64)
	return name, n, err == nil
}
