package differ

import (
	"strconv"
	"strings"
)

// stem returns what is stable in a local symbol's name from build to build:
// numbers that gcc adds become "#", and marks that say how LTO made a name
// unique are left out.
func stem(name string) string {
	name = withoutLambdas(name)
	dot := strings.IndexByte(name[min(1, len(name)):], '.')
	if dot < 0 {
		return name
	}
	var b strings.Builder
	b.WriteString(name[:dot+1])
	skip := false
	for part := range strings.SplitSeq(name[dot+2:], ".") {
		switch {
		case part == "lto_priv":
			skip = true
		case skip && digits(part):
			skip = false
		case digits(part):
			b.WriteString(".#")
		default:
			b.WriteByte('.')
			b.WriteString(part)
			skip = false
		}
	}
	return b.String()
}

// indirection reports whether gcc or clang made up the object of that name to
// hold the address of another.
func indirection(name string) bool {
	return strings.HasPrefix(name, "DW.ref.") || strings.HasPrefix(name, ".LDFCM") || strings.HasSuffix(name, ".DW.stub")
}

// classData returns what of a class a constant is: objects that exist point to
// it. Source: Itanium C++ ABI, 5.1.4.1.
func classData(name string) string {
	if len(name) < 4 || name[:3] != "_ZT" {
		return ""
	}
	switch name[3] {
	case 'V', 'T', 'C':
		return "a vtable"
	case 'I':
		return "type information"
	}
	return ""
}

// staticInit reports whether a function initialises the unit's variables.
func staticInit(name string) bool {
	return strings.HasPrefix(name, "_Z41__static_initialization_and_destruction_0")
}

// base returns the name of the source function or variable.
func base(name string) string {
	if dot := strings.IndexByte(name[min(1, len(name)):], '.'); dot >= 0 {
		return name[:dot+1]
	}
	return name
}

// nested reports whether a function is one inside another: gcc puts a number
// behind its name, as in add.0. Source: nested functions, GCC manual.
func nested(name string) bool {
	_, rest, _ := strings.Cut(name, ".")
	number, _, _ := strings.Cut(rest, ".")
	return digits(number)
}

// coldParent splits the name of a function's part that gcc moved out of its
// hot path.
func coldParent(name string) (parent string, ok bool) {
	parent, rest, ok := cutLast(name, ".cold")
	return parent, ok && (rest == "" || rest[0] == '.' && digits(rest[1:]))
}

// sourceName returns what a static variable is called in the source: gcc puts a
// number behind it (count.0), clang the function before it (work.count.1).
func sourceName(name string) string {
	parts := strings.Split(name, ".")
	for len(parts) > 1 && (digits(parts[len(parts)-1]) || parts[len(parts)-1] == "lto_priv") {
		parts = parts[:len(parts)-1]
	}
	last := parts[len(parts)-1]
	if !strings.HasPrefix(last, "_Z") {
		return last
	}
	// Source: Itanium C++ ABI, 5.1.2 and 5.1.6: _ZL5count, _ZZ4workvE5count_0.
	for at := range len(last) {
		end := skipDigits(last, at)
		n, err := strconv.Atoi(last[at:end])
		if err == nil && n > 0 && n <= len(last)-end && strings.Trim(last[end+n:], "E_0123456789") == "" {
			return last[end : end+n]
		}
	}
	return last
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// cloneMarks are in the names of specialised copies and parts of functions.
var cloneMarks = [...]string{".constprop", ".isra", ".part"}

// clone returns the kind of specialised copy a function is, for people, or "".
func clone(name string) string {
	for _, k := range cloneMarks {
		if strings.Contains(name, k) {
			return k
		}
	}
	return ""
}

// anonymousName reports whether the compiler made up the object: its content is
// all that counts, and its number drifts between builds.
func anonymousName(name string) bool {
	b := base(name)
	if b == name || !digits(name[strings.LastIndexByte(name, '.')+1:]) {
		return false
	}
	switch b {
	case "__func__", "__FUNCTION__", "__PRETTY_FUNCTION__", "CSWTCH", "__compound_literal":
		return true
	}
	return false
}
