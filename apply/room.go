package apply

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
)

func compareAddr(a, b specs.Addr) int { return cmp.Compare(a, b) }

// Where memory is looked for.
const (
	// lowest keeps away from address 0 (vm.mmap_min_addr).
	lowest = specs.Addr(1 << 16)
	// kernel is below all addresses of the kernel, which x86_64's [vsyscall]
	// has, and above all of user space.
	kernel = specs.Addr(1 << 56)
)

// distances are what is left free, in bytes: below and above any neighbour,
// below a stack, above an executable and its heap (brk). The last two grow.
type distances struct{ guard, stack, heap specs.Addr }

// spacings are tried in turn: neighbours are left alone if possible.
var spacings = []distances{{64 << 10, 64 << 20, 64 << 20}, {4 << 10, 1 << 20, 1 << 20}, {0, 64 << 10, 0}}

// dataReach is how far data may be from code that refers to it, in bytes, on all
// architectures (x86-64 psABI, small code model; AAELF64, ADR_PREL_PG_HI21).
const dataReach = 1 << 31

// imageReach is how far a patch's memory may be from any part of its object, in bytes:
// dataReach, without what addends may add.
const imageReach = dataReach - 1<<20

// gap is free memory and what follows from its neighbours.
type gap struct {
	specs.Range[specs.Addr]
	grows bool // the heap, or what may become it, lies below
}

// findRoom returns an address at which the step's memory is free and from
// which jumps reach the functions that they come from, and back, and from which all of the object
// and the variables that the step goes on with are within reach. It prefers what is within a
// jump of the code that the patch calls, else veneers lead there; what is near,
// below the object, and out of the way of what grows.
func findRoom(maps []Mapping, s *step, page uint64) (specs.Addr, error) {
	end := userEnd(maps)
	window := reach(s.object.image.Range, imageReach, end)
	for _, r := range s.entries() {
		window = intersect(window, reach(r, s.patch.Arch.JumpReach, end))
	}
	for _, b := range s.held {
		window = intersect(window, reach(b, dataReach, end))
	}
	if s.layout.Limit != 0 {
		window.Hi = min(window.Hi, s.layout.Limit)
	}
	direct := window
	for _, r := range s.called() {
		direct = intersect(direct, reach(r, s.patch.Arch.JumpReach, end))
	}
	for _, w := range []specs.Range[specs.Addr]{direct, window} {
		for _, d := range spacings {
			if at, ok := nearest(gaps(maps, d), w, s.object.image.Range, s.layout.Size, page); ok {
				return at, nil
			}
		}
	}
	return 0, s.noRoom(window)
}

// intersect returns what two ranges have in common, which may be less than nothing.
func intersect(a, b specs.Range[specs.Addr]) specs.Range[specs.Addr] {
	return specs.Range[specs.Addr]{Lo: max(a.Lo, b.Lo), Hi: min(a.Hi, b.Hi)}
}

// noRoom says that no memory is free in the window, and names the functions that have to
// be within a jump of it.
func (s *step) noRoom(window specs.Range[specs.Addr]) error {
	functions := s.patch.Functions
	if len(functions) == 0 {
		return fmt.Errorf("%w: %d bytes within %v", ErrNoMemory, s.layout.Size, window)
	}
	compare := func(a, b kpack.Function) int { return cmp.Compare(a.Original.Lo, b.Original.Lo) }
	first, last := slices.MinFunc(functions, compare), slices.MaxFunc(functions, compare)
	names := "function " + first.Name
	if len(functions) > 1 {
		names = fmt.Sprintf("functions %s to %s, which take up %d MiB,", first.Name, last.Name, (last.Original.Hi-first.Original.Lo)>>20)
	}
	return fmt.Errorf("%w: %d bytes, a jump away from %s and within %v", ErrNoMemory, s.layout.Size, names, window)
}

// entries are the functions of the object from which jumps lead to the patch's memory.
func (s *step) entries() (all []specs.Range[specs.Addr]) {
	bias := s.object.image.Bias
	for i := range s.patch.Functions {
		r := s.patch.Functions[i].Original
		all = append(all, specs.Range[specs.Addr]{Lo: bias.Addr(r.Lo), Hi: bias.Addr(r.Hi)})
	}
	return all
}

// called are the places of the object to which the patch's code calls and jumps.
func (s *step) called() (all []specs.Range[specs.Addr]) {
	bias := s.object.image.Bias
	for _, v := range s.patch.Called() {
		all = append(all, specs.Range[specs.Addr]{Lo: bias.Addr(v), Hi: bias.Addr(v) + 1})
	}
	return all
}

// nearest returns where in the gaps and in the window size bytes fit, as near
// to the object as can be.
func nearest(gaps []gap, window, object specs.Range[specs.Addr], size, page uint64) (at specs.Addr, ok bool) {
	var least uint64
	for _, g := range gaps {
		lo := alignAddr(max(g.Lo, window.Lo), page)
		hi := min(g.Hi, window.Hi) &^ specs.Addr(page-1)
		if hi <= lo || uint64(hi-lo) < size {
			continue
		}
		candidate := lo
		if g.Hi <= object.Lo {
			candidate = hi - specs.Addr(size)
		}
		cost := distance(candidate, object)
		if g.grows {
			cost += 1 << 40 // only if there is nothing else
		}
		if !ok || cost < least {
			at, least, ok = candidate, cost, true
		}
	}
	return at, ok
}

// userEnd returns the end of the highest mapping. How far user space goes
// beyond it differs by kernel; nothing is looked for there.
func userEnd(maps []Mapping) specs.Addr {
	end := lowest
	for i := range maps {
		if hi := maps[i].Range.Hi; hi < kernel {
			end = max(end, hi)
		}
	}
	return end
}

// reach returns where memory has to lie, below end, so that both ends of it and
// both ends of the object are within limit of each other.
func reach(object specs.Range[specs.Addr], limit uint64, end specs.Addr) specs.Range[specs.Addr] {
	w := specs.Range[specs.Addr]{Lo: lowest, Hi: end}
	if uint64(object.Hi) > limit {
		w.Lo = max(w.Lo, object.Hi-specs.Addr(limit))
	}
	if object.Lo < kernel {
		w.Hi = min(w.Hi, object.Lo+specs.Addr(limit))
	}
	return w
}

// gaps lists free memory by rising address, but not what lies above all
// mappings: where user space ends depends on the machine.
func gaps(maps []Mapping, d distances) []gap {
	var all []gap
	at := gap{Range: specs.Range[specs.Addr]{Lo: lowest}}
	for i := range maps {
		m := &maps[i]
		if m.Range.Lo >= kernel {
			break
		}
		at.Hi = m.Range.Lo - min(m.Range.Lo, d.guard)
		if strings.HasPrefix(m.Path, "[stack") {
			at.Hi -= min(at.Hi, d.stack)
		}
		if at.Hi > at.Lo {
			all = append(all, at)
		}
		at.Lo = max(at.Lo, m.Range.Hi+d.guard)
		at.grows = m.Path == "[heap]" || m.Path != "" && m.Path == maps[0].Path
		if at.grows {
			at.Lo += d.heap
		}
	}
	return all
}

func distance(a specs.Addr, r specs.Range[specs.Addr]) uint64 {
	if a < r.Lo {
		return uint64(r.Lo - a)
	}
	return uint64(a - min(a, r.Hi))
}

func alignAddr(a specs.Addr, page uint64) specs.Addr {
	return (a + specs.Addr(page-1)) &^ specs.Addr(page-1)
}
