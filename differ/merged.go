package differ

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// mergedPrefix is what the names of the labels begin with that clang gives to static
// variables which it put into one piece of memory, so that code reaches all of them
// from one address. Source: LLVM, lib/CodeGen/GlobalMerge.cpp.
const mergedPrefix = ".L_MergedGlobals"

// merged returns the names of the variables in item i by their distance from its begin,
// in bytes, or nil if clang did not merge them.
func (s *side) merged(i int32) map[int64]string {
	if !slices.ContainsFunc(s.Items[i].Symbols, func(id int32) bool { return strings.HasPrefix(s.Symbols[id].Name, mergedPrefix) }) {
		return nil
	}
	at := make(map[int64]string)
	for id := range s.Symbols {
		if y := &s.Symbols[id]; y.Where == asm.InItem && y.Item == i && y.Set != "" && !y.LocalLabel() {
			at[y.Add] = y.Name
		}
	}
	return at
}

// mergedMoved says how the variables in item y of b are not those of item x, if clang
// merged them, or "". Their names are all that tells: nothing refers to them.
func (j *judgement) mergedMoved(x, y int32) string {
	was, is := j.a.merged(x), j.b.merged(y)
	all := maps.Clone(was)
	if all == nil {
		all = make(map[int64]string)
	}
	maps.Copy(all, is)
	for _, at := range slices.Sorted(maps.Keys(all)) {
		if was[at] != is[at] {
			return fmt.Sprintf("at %d it has %s, where it had %s", at, orNothing(is[at]), orNothing(was[at]))
		}
	}
	return ""
}

// orNothing is a name, or "nothing".
func orNothing(name string) string {
	if name == "" {
		return "nothing"
	}
	return name
}
