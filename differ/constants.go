package differ

import "slices"

// constants finds the named constants that changed, and then those that refer to
// them, until there are no more.
func (j *judgement) constants() {
	var all []int32
	for k := range j.b.Items {
		y := int32(k)
		if x := j.b.pair[y]; j.b.roles[y] == object && x != none && !j.stale[y] && j.a.constant(x) {
			all = append(all, y)
		}
	}
	var users map[int32][]int32
	for some := all; ; {
		found := j.changedOf(some)
		if len(found) == 0 {
			return
		}
		j.forget()
		if users == nil {
			users = j.b.constantUsers()
		}
		some = j.concerned(found, users)
	}
}

// changedOf marks those of some constants that changed, and returns them.
func (j *judgement) changedOf(some []int32) (found []int32) {
	first := make([]*Difference, len(some))
	for k, y := range some {
		if first[k] = j.items(j.b.pair[y], y); first[k] != nil || !j.b.constant(y) {
			found = append(found, y)
		}
	}
	for k, y := range some {
		if first[k] != nil || !j.b.constant(y) {
			j.stale[y], j.first[y] = true, first[k]
		}
	}
	return found
}

// anchored stands for what is reached by its distance from a section anchor.
const anchored = none

// constantUsers returns which items refer to data of s, itself or by a section
// anchor.
func (s *side) constantUsers() map[int32][]int32 {
	users := make(map[int32][]int32)
	s.eachRef(func(i int32, _ bool, t *target) {
		if s.roles[i] != object && s.roles[i] != content || s.roles[t.item] == function || s.roles[t.item] == part {
			return
		}
		to := t.item
		if t.anchor() {
			to = anchored
		}
		users[to] = append(users[to], i)
	})
	return users
}

// concerned returns the constants of b, not known as changed, that refer to what
// was found changed, also by what only its content tells. Those that refer to a
// section anchor may.
func (j *judgement) concerned(found []int32, users map[int32][]int32) (some []int32) {
	seen := make(map[int32]bool)
	queue := append(slices.Clone(found), anchored)
	for len(queue) > 0 {
		y := queue[0]
		queue = queue[1:]
		for _, by := range users[y] {
			if seen[by] {
				continue
			}
			seen[by] = true
			if j.b.roles[by] == content {
				queue = append(queue, by)
			} else if x := j.b.pair[by]; x != none && !j.stale[by] && j.a.constant(x) {
				some = append(some, by)
			}
		}
	}
	slices.Sort(some)
	return slices.Compact(some)
}
