package asm

import "strings"

// blankComments replaces /* */ comments by spaces, keeping line ends, so that
// the rest of the parser need not know them. Texts without any are returned as
// they are.
func blankComments(text string, d *Dialect) (string, *SyntaxError) {
	if !strings.Contains(text, "/*") {
		return text, nil
	}
	var out []byte
	line := 1
	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '\n':
			line++
			i++
		case c == '"':
			i = stringEnd(text, i)
		case strings.HasPrefix(text[i:], d.Comment):
			i = lineEnd(text, i)
		case strings.HasPrefix(text[i:], "/*"):
			end := strings.Index(text[i+2:], "*/")
			if end < 0 {
				return "", &SyntaxError{Line: line, Text: clip(text[i:]), Reason: "comment without an end"}
			}
			if out == nil {
				out = []byte(text)
			}
			for end += i + 4; i < end; i++ {
				if out[i] != '\n' {
					out[i] = ' '
				} else {
					line++
				}
			}
		default:
			i++
		}
	}
	if out == nil {
		return text, nil
	}
	return string(out), nil
}

// stringEnd returns the offset after the string that begins at i, or the end
// of its line if it has no end there.
func stringEnd(text string, i int) int {
	for i++; i < len(text); i++ {
		switch text[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		case '\n':
			return i
		}
	}
	return len(text)
}

// lineEnd returns the offset of the newline that ends the line of i.
func lineEnd(text string, i int) int {
	if n := strings.IndexByte(text[i:], '\n'); n >= 0 {
		return i + n
	}
	return len(text)
}

// stops are the bytes at which statementEnd looks twice.
var stops = [256]bool{'\n': true, ';': true, '"': true, '\'': true, '#': true, '/': true}

// statementEnd returns the end of the statement that begins at i, without
// spaces or comment, and where the next one begins. bad is set for a string
// without an end.
func statementEnd(text string, i int, d *Dialect) (end, next int, bad bool) {
	start, end, next := i, i, len(text)
loop:
	for i < len(text) {
		for i < len(text) && !stops[text[i]] {
			i++
		}
		if end = i; i == len(text) {
			break
		}
		switch c := text[i]; {
		case c == '\n' || c == ';':
			next = i + 1
			end = i
			break loop
		case c == '"':
			e := stringEnd(text, i)
			bad = bad || e-i < 2 || text[e-1] != '"'
			i = e
		case c == '\'' && i+1 < len(text) && text[i+1] != '\n':
			i += 2
		case c == d.Comment[0] && strings.HasPrefix(text[i:], d.Comment):
			end = i
			next = min(lineEnd(text, i)+1, len(text))
			break loop
		default:
			i++
		}
		end = i
	}
	for end > start && (text[end-1] == ' ' || text[end-1] == '\t' || text[end-1] == '\r') {
		end--
	}
	return end, next, bad
}

// clip shortens a line for an error message.
func clip(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s[:min(len(s), 200)]
}
