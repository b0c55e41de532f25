package apply

import (
	"cmp"
	"slices"

	"github.com/fother/fother/specs"
)

// zone is code in which no thread may be at the commit.
type zone struct {
	specs.Range[specs.Addr]
	function, object string
	// entries are addresses that are function pointers when they are found on
	// a stack. Sorted.
	entries []specs.Addr
	// overwritten is set where only the bytes count: then a thread may return
	// to the first byte behind them.
	overwritten bool
	// going is set where the code itself goes away: then a thread that is about
	// to run its first instruction is inside, too, and so is one that has its
	// address in a register.
	going bool
	// left, if not nil, is the record whose code threads may be in: then it is
	// only noted, and the memory kept.
	left *record
}

// entry reports whether a is the first instruction of a function of z.
func (z *zone) entry(a specs.Addr) bool {
	_, found := slices.BinarySearch(z.entries, a)
	return found
}

// comingZones are the original bodies and cold parts of the functions that r
// changes. Of a function whose calls may end in the old code only the bytes that
// are overwritten count.
func comingZones(r *record) []zone {
	var all []zone
	for _, f := range r.Functions {
		z := zone{function: f.Name, object: r.Object}
		if f.NextCall {
			z.Range = specs.Range[specs.Addr]{Lo: f.Site, Hi: f.Site + specs.Addr(len(f.New))}
			z.entries, z.overwritten = []specs.Addr{f.Site}, true
			all = append(all, z)
			continue
		}
		z.Range = specs.Range[specs.Addr]{Lo: f.Lo, Hi: f.Hi}
		z.entries = []specs.Addr{f.Lo}
		all = append(all, z)
		if f.Cold.Size() > 0 {
			z.Range, z.entries = f.Cold, nil
			all = append(all, z)
		}
	}
	return all
}

// nextCall says it of a function as its patch does.
func nextCall(f *recordedFunction) bool { return f.NextCall }

// mayStay says it of a function of a patch that is replaced: who changes it now
// may be stricter.
func mayStay(ins []*record) func(*recordedFunction) bool {
	return func(f *recordedFunction) bool {
		return f.NextCall && !slices.ContainsFunc(ins, func(r *record) bool {
			return slices.ContainsFunc(r.Functions, func(n recordedFunction) bool { return n.Lo == f.Lo && !n.NextCall })
		})
	}
}

// goingZones are the code of a patch that goes away. Calls of functions of
// which mayStay is true may end in it: there threads may be.
func goingZones(r *record, mayStay func(*recordedFunction) bool) []zone {
	base := zone{Range: r.text(), object: r.Object, going: true, function: "patch " + r.Name}
	if len(r.Functions) == 1 {
		base.function = r.Functions[0].Name + " (patched)"
	}
	for _, f := range r.Functions {
		base.entries = append(base.entries, f.Entry)
	}
	slices.Sort(base.entries)
	var all []zone
	add := func(lo, hi specs.Addr, left *record) {
		if z := base; lo < hi {
			z.Lo, z.Hi, z.left = lo, hi, left
			all = append(all, z)
		}
	}
	at := base.Lo
	byEntry := slices.SortedFunc(slices.Values(r.Functions), func(a, b recordedFunction) int { return cmp.Compare(a.Entry, b.Entry) })
	for _, f := range byEntry {
		if end := f.Entry + specs.Addr(f.Size); mayStay(&f) && at <= f.Entry && f.Entry < end && end <= base.Hi {
			add(at, f.Entry, nil)
			add(f.Entry, end, r)
			at = end
		}
	}
	add(at, base.Hi, nil)
	return all
}

// gateZone is the code of a patch's gates, which no thread may be in before they
// are used anew.
func gateZone(r *record) zone {
	return zone{Range: r.gates(), object: r.Object, going: true, function: "a gate of patch " + r.Name}
}

// siteZone is what a change overwrites.
func siteZone(c *change) zone {
	return zone{
		Range:    specs.Range[specs.Addr]{Lo: c.addr, Hi: c.addr + specs.Addr(len(c.before))},
		function: c.function, object: c.object, entries: []specs.Addr{c.addr}, overwritten: true,
	}
}

// mayBeLeft reports whether a thread may be inside the code of r though it is
// out of use.
func (r *record) mayBeLeft() bool {
	return slices.ContainsFunc(r.Functions, func(f recordedFunction) bool { return f.NextCall })
}
