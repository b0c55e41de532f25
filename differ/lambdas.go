package differ

import (
	"hash/maphash"
	"regexp"
	"slices"
	"strings"
)

// hasLambda reports whether a mangled name has a lambda or a type without a
// name in it. Source: Itanium C++ ABI, 5.1.8; clang calls those of functions
// that are in one unit only $_0.
func hasLambda(name string) bool {
	return strings.HasPrefix(name, "_Z") && (strings.Contains(name, "Ul") || strings.Contains(name, "Ut") || strings.Contains(name, "$_"))
}

// withoutLambdas replaces the numbers of lambdas and of types without a name by
// "#": they move when another one is added in front. Other words that look
// alike are replaced too, so that the result says less than the name, but never
// something else.
func withoutLambdas(name string) string {
	if !hasLambda(name) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if end := unnamed(name, i); end > i {
			b.WriteString("#$_#")
			i = end - 1
			continue
		}
		b.WriteByte(name[i])
		if name[i] != 'E' && (i == 0 || name[i-1:i+1] != "Ut") {
			continue
		}
		if end := skipDigits(name, i+1); end < len(name) && name[end] == '_' {
			b.WriteByte('#')
			i = end - 1
		}
	}
	return b.String()
}

// unnamed returns where clang's name of a type without one ends that begins at
// i with its length, as in 3$_0, or i.
func unnamed(name string, i int) int {
	mark := skipDigits(name, i)
	if mark == i || !strings.HasPrefix(name[mark:], "$_") {
		return i
	}
	if end := skipDigits(name, mark+2); end > mark+2 {
		return end
	}
	return i
}

// skipDigits returns the place in s of the first byte from i on that is no digit.
func skipDigits(s string, i int) int {
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return i
}

// family is the lambdas of an inline function that differ in numbers.
type family struct {
	stem          string
	before, after []string
	originals     []int32
	changed       []int32
}

// lambdas refuses changed lambdas of inline functions unless they are the only
// ones to change among those that differ in numbers, or keep their places, and
// none came or went. All units know them by their numbers: two that changed may
// have changed places, and closures that exist would go on as the other.
func (j *judgement) lambdas() {
	byStem, order := make(map[string]*family), []*family{}
	each := func(s *side, f func(i int32, l *family)) {
		for k := range s.Items {
			i := int32(k)
			if s.roles[i] != function || s.allLocal(i) || !hasLambda(s.names[i]) {
				continue
			}
			name := stem(s.names[i])
			l := byStem[name]
			if l == nil {
				l = &family{stem: name}
				byStem[name], order = l, append(order, l)
			}
			f(i, l)
		}
	}
	each(j.a, func(i int32, l *family) {
		l.before, l.originals = append(l.before, j.a.names[i]), append(l.originals, i)
	})
	each(j.b, func(i int32, l *family) {
		l.after = append(l.after, j.b.names[i])
		if j.changed[i] {
			l.changed = append(l.changed, i)
		}
	})
	for _, l := range order {
		slices.Sort(l.before)
		slices.Sort(l.after)
		reason := "several lambdas of an inline function changed, so that its name may stand for another one now"
		switch {
		case !slices.Equal(l.before, l.after):
			reason = "lambdas of an inline function came or went, so that its name may stand for another one now"
		case len(l.changed) < 2 || j.inPlace(l):
			continue
		}
		for _, y := range l.changed {
			j.refuse(j.b, y, reason, "change one lambda of a function at a time and put new ones behind the others, or write functions")
		}
	}
}

// inPlace reports whether the changed lambdas of a family are where they were:
// none has become what another one was, and all code that makes closures of
// them is the same. So a closure that exists is what the patched build would
// have made there.
func (j *judgement) inPlace(l *family) bool {
	for _, y := range l.changed {
		for _, x := range l.originals {
			if x != j.b.pair[y] && j.items(x, y) == nil {
				return false
			}
		}
	}
	users := make(map[int32][]int32)
	j.b.eachRef(func(i int32, _ bool, t *target) {
		if to, by := j.b.parent[t.item], j.b.parent[i]; to != by && j.b.roles[by] != exception {
			users[to] = append(users[to], by)
		}
	})
	queue, seen := slices.Clone(l.changed), make(map[int32]bool)
	for len(queue) > 0 {
		y := queue[0]
		queue = queue[1:]
		for _, by := range users[y] {
			named := j.b.roles[by] == function || j.b.roles[by] == object
			switch {
			case named && (j.b.pair[by] == none || j.changed[by] || j.stale[by]):
				return false
			case named && !hasLambda(j.b.names[by]) || seen[by]:
				continue
			}
			seen[by] = true
			queue = append(queue, by)
		}
	}
	return true
}

// keepers are words in the names of the functions with which libstdc++ and
// libc++ copy and destroy the closures that a std::function or a std::thread
// holds.
var keepers = [...]string{
	"10_M_manager", "9_M_create", "8_M_clone", "10_M_destroy", "15_M_init_functor", "14_M_get_pointer", "11_State_impl",
	"7__clone", "7destroyE", "18destroy_deallocate",
}

// special is what the names of copy and move constructors and destructors end
// in.
var special = regexp.MustCompile(`^(C[0-9]E[RO]|D[0-9]Ev)`)

// keeper reports whether a function copies or destroys closures: one of
// keepers, or the closure's own constructor or destructor.
func keeper(name string) bool {
	if !hasLambda(name) {
		return false
	}
	if slices.ContainsFunc(keepers[:], func(k string) bool { return strings.Contains(name, k) }) {
		return !strings.HasSuffix(name, "6_M_runEv")
	}
	plain := withoutLambdas(name)
	for _, end := range [...]string{"E#_", "$_#"} {
		if _, rest, ok := cutLast(plain, end); ok && special.MatchString(rest) {
			return true
		}
	}
	return false
}

// closures refuses lambdas that capture something else, as far as code tells:
// the closures that exist have the old layout. What copies and destroys
// closures is the same but for symbols, or came with a lambda, or went with
// one.
func (j *judgement) closures() {
	type hashes map[uint64][]int32
	byStem := make(map[string]*[2]hashes)
	var order []string
	seed := maphash.MakeSeed()
	for k, s := range [...]*side{j.a, j.b} {
		for n := range s.Items {
			i := int32(n)
			if s.roles[i] != function || !keeper(s.names[i]) {
				continue
			}
			name, _, _ := strings.Cut(stem(s.names[i]), ".")
			if byStem[name] == nil {
				byStem[name] = &[2]hashes{{}, {}}
				order = append(order, name)
			}
			h := s.weakHash(seed, i, plainName)
			byStem[name][k][h] = append(byStem[name][k][h], i)
		}
	}
	for _, name := range order {
		before, after := byStem[name][0], byStem[name][1]
		gone := false
		for h, list := range before {
			gone = gone || len(list) > len(after[h])
		}
		if !gone {
			continue
		}
		var grown []int32
		for h, list := range after {
			if len(list) > len(before[h]) {
				grown = append(grown, list...)
			}
		}
		slices.Sort(grown)
		for _, y := range grown {
			j.refuse(j.b, y, "a lambda captures something else: the closures that exist have the old layout",
				"leave what a lambda captures as it is, or write a new lambda behind it and use that")
		}
	}
}
