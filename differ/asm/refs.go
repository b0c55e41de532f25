package asm

import "strings"

// Ref is one mention of a symbol in a statement. Lo and Hi are byte offsets
// into the statement's text; quotes are included.
type Ref struct {
	Lo, Hi int
	// Branch is set for the target of a direct call or jump.
	Branch bool
	// Minus is set when the symbol is subtracted.
	Minus bool
}

// Name returns the symbol's name in text, without quotes.
func (r Ref) Name(text string) string { return Unquote(text[r.Lo:r.Hi]) }

// Unquote returns a name without the quotes that it may be written in. What is
// escaped between them stays so: names are compared and printed as written.
func Unquote(name string) string {
	if len(name) > 1 && name[0] == '"' && name[len(name)-1] == '"' {
		return name[1 : len(name)-1]
	}
	return name
}

var identStart, identPart [256]bool

func init() {
	for c := range 256 {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '.' || c >= 0x80
		identStart[c] = letter
		identPart[c] = letter || c >= '0' && c <= '9' || c == '$'
	}
}

// identEnd returns the end of the identifier that begins at i.
func identEnd(s string, i int) int {
	for i < len(s) && identPart[s[i]] {
		i++
	}
	return i
}

// Mnemonic returns the instruction's name in text, after prefixes, and the
// offset of its operands.
func (d *Dialect) Mnemonic(text string) (mnemonic string, operands int) {
	i := 0
	for {
		end := i
		if i < len(text) && text[i] == '{' {
			end = i + strings.IndexByte(text[i:], '}') + 1
		}
		for end < len(text) && text[end] != ' ' && text[end] != '\t' {
			end++
		}
		next := end
		for next < len(text) && (text[next] == ' ' || text[next] == '\t') {
			next++
		}
		word := text[i:end]
		if next >= len(text) || !d.prefix(strings.TrimSuffix(word, ",")) {
			return word, next
		}
		i = next
	}
}

// Refs appends to dst the symbols that the statement of the given kind and
// text mentions.
func (d *Dialect) Refs(dst []Ref, kind Kind, text string) []Ref {
	switch kind {
	case Insn:
		mnemonic, operands := d.Mnemonic(text)
		if operands >= len(text) || mnemonic == "" {
			return dst
		}
		return d.operands(dst, mnemonic, text, operands)
	case Data, Mark, CFI:
		if kind == CFI && !NamesSymbols(text) {
			return dst
		}
		_, operands := d.Mnemonic(text)
		return d.operands(dst, "", text, operands)
	}
	return dst
}

// operands scans text from i on. An empty mnemonic stands for a directive.
func (d *Dialect) operands(dst []Ref, mnemonic, text string, i int) []Ref {
	branch := mnemonic != "" && d.branch(mnemonic, text[i:])
	n, depth := 0, 0
	for i < len(text) {
		c := text[i]
		switch {
		case c == '"':
			end := i + 1
			for end < len(text) && text[end] != '"' {
				if text[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(text))
			if end-i > 2 && text[end-1] == '"' {
				dst = append(dst, Ref{i, end, branch && depth == 0, minus(text, i)})
			}
			i = end
		case c == '\'':
			i += 2
			if i <= len(text) && text[i-1] == '\\' {
				i++
			}
		case c == d.Registers && c != 0, c == '@':
			i = identEnd(text, i+1)
		case c >= '0' && c <= '9':
			i = number(text, i)
		case c == '{':
			if end := strings.IndexByte(text[i:], '}'); end >= 0 {
				i += end
			}
			i++
		case identStart[c]:
			end := identEnd(text, i)
			if d.isSymbol(mnemonic, text, i, end, n, depth) {
				dst = append(dst, Ref{i, end, branch && depth == 0, minus(text, i)})
			}
			i = end
		default:
			switch c {
			case ',':
				n++
			case '(', '[':
				depth++
			case ')', ']':
				depth--
			}
			i++
		}
	}
	return dst
}

// number returns the end of the number or numeric label at i.
func number(text string, i int) int {
	for i < len(text) && identPart[text[i]] {
		// 1.5e+0 and 0x1p-3 are numbers too.
		if (text[i] == 'e' || text[i] == 'p') && i+2 < len(text) && (text[i+1] == '+' || text[i+1] == '-') &&
			strings.IndexByte(text[:i], '.') >= 0 {
			i++
		}
		i++
	}
	return i
}

// isSymbol reports whether the word text[lo:hi] in operand n, inside depth
// brackets, is a symbol.
func (d *Dialect) isSymbol(mnemonic, text string, lo, hi, n, depth int) bool {
	if hi-lo == 1 && text[lo] == '.' {
		return false
	}
	if hi < len(text) && text[hi] == ':' && d.Registers == 0 {
		return false // the lo12 of :lo12:
	}
	if mnemonic == "" || lo > 0 && (text[lo-1] == ':' || text[lo-1] == '=') {
		return true
	}
	if d.Registers == 0 && depth > 0 {
		return false
	}
	last := strings.IndexByte(text[hi:], ',') < 0
	return d.bare(mnemonic, n, last)
}

// minus reports whether the term at i is subtracted.
func minus(text string, i int) bool {
	for i--; i >= 0; i-- {
		switch text[i] {
		case ' ', '\t', '(':
			continue
		case '-':
			return true
		}
		return false
	}
	return false
}

// NamesSymbols reports whether a CFI directive refers to the personality
// routine or the exception table of its function.
func NamesSymbols(cfi string) bool {
	return strings.HasPrefix(cfi, ".cfi_personality") || strings.HasPrefix(cfi, ".cfi_lsda")
}
