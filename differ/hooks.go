package differ

import (
	"strings"

	"github.com/fother/fother/differ/asm"
)

// hookSection is where fother.h declares hooks: functions that the patch runs
// in the process around the switch. SectionHooks is that of the patch assembly.
const (
	hookSection  = ".fother.hooks"
	SectionHooks = ".kpatch.hooks"
)

// HookPrefix is in the names of declarations, which are
// fother_hook_POINT__FUNCTION; C++ adds something in front.
const HookPrefix = "fother_hook_"

// Hook is a declaration of a hook.
type Hook struct {
	Point    string // "pre_apply", "post_apply", "pre_revert" or "post_revert"
	Function string
}

// hook reports whether item i declares one that the other build does not have.
func (s *side) hook(i int32) bool {
	return s.roles[i] == object && s.pair[i] == none && s.SectionOf(i).Kind == asm.Custom && s.SectionOf(i).Name == hookSection
}

// hookOf takes the name of a declaration apart.
func hookOf(name string) Hook {
	_, name, _ = strings.Cut(name, HookPrefix)
	point, function, _ := strings.Cut(name, "__")
	return Hook{point, function}
}
