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

// Hook is a declaration of a hook.
type Hook struct {
	Point    string // "pre_apply", "post_apply", "pre_revert" or "post_revert"
	Function string
}

// hook reports whether item i declares one that the other build does not have.
func (s *side) hook(i int32) bool {
	return s.roles[i] == object && s.pair[i] == none && s.SectionOf(i).Kind == asm.Custom && s.SectionOf(i).Name == hookSection
}

// hookOf takes the name of a declaration apart, to which C++ adds that of its
// own making: fother_hook_POINT__FUNCTION.
func hookOf(name string) Hook {
	_, name, _ = strings.Cut(name, "fother_hook_")
	point, function, _ := strings.Cut(name, "__")
	return Hook{point, function}
}
