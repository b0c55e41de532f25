package differ

import (
	"maps"
	"slices"
	"strings"
)

// instruments are compiler options that keep tables beside the code, which the
// run-time library of the option has read when the program starts or counts
// into: a patch cannot add to them. They are told by the names that they use.
var instruments = []struct{ prefix, option string }{
	{"__asan_", "-fsanitize=address"}, {"__hwasan_", "-fsanitize=hwaddress"}, {"__msan_", "-fsanitize=memory"},
	{"__tsan_", "-fsanitize=thread"}, {"__ubsan_", "-fsanitize=undefined"}, {"__sanitizer_cov", "-fsanitize-coverage"},
	{"__gcov", "--coverage or -fprofile-generate"}, {"__llvm_gcov", "--coverage"}, {"__profc_", "-fprofile-instr-generate"},
}

// instrument returns the option that brings the symbol of that name, or "".
func instrument(name string) string {
	if strings.HasPrefix(name, "__") {
		for _, i := range instruments {
			if strings.HasPrefix(name, i.prefix) {
				return i.option
			}
		}
	}
	return ""
}

// instrumented refuses a unit whose code is instrumented, in the place of all
// that follows from it.
func (p *plan) instrumented() {
	if !slices.Contains(p.carried, true) && len(p.refusals) == 0 {
		return
	}
	options := map[string]string{}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(p.refs)), p.b.names) {
		if option := instrument(name); option != "" && options[option] == "" {
			options[option] = name
		}
	}
	if len(options) == 0 {
		return
	}
	p.refusals = nil
	for _, option := range slices.Sorted(maps.Keys(options)) {
		p.refusals = append(p.refusals, Refusal{Unit: p.unit, Name: options[option],
			Reason: "the code is instrumented by " + option + ", whose tables and counters a patch cannot extend", Hint: "ship a build without it, and patch that"})
	}
}
