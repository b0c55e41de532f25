package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/bundle"
)

// bundleDifferences names what is not the same in two bundles of one release:
// members of the manifest, and of patches the sections and functions.
func bundleDifferences(was, is *bundle.Bundle) []string {
	all := manifestDifferences(was.Manifest, is.Manifest)
	mine := map[string]*kpack.Patch{}
	for _, p := range is.Patches {
		mine[string(p.Target.BuildID)] = p
	}
	for _, p := range was.Patches {
		file := string(p.Target.BuildID) + ".kpatch"
		o := mine[string(p.Target.BuildID)]
		if o == nil {
			all = append(all, fmt.Sprintf("%s (%s): the rebuild has no such build-id%s", file, p.Target.Name, sameName(is, p.Target.Name)))
			continue
		}
		delete(mine, string(p.Target.BuildID))
		for _, d := range patchDifferences(p, o) {
			all = append(all, fmt.Sprintf("%s (%s): %s", file, p.Target.Name, d))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(mine)) {
		all = append(all, fmt.Sprintf("%s.kpatch (%s): only the rebuild has it", id, mine[id].Target.Name))
	}
	if len(all) == 0 {
		all = []string{"the same content, compressed in another way: another version of the compressor made it"}
	}
	return all
}

// sameName says which build-ids the targets of a name have.
func sameName(b *bundle.Bundle, name string) string {
	text := ""
	for _, t := range b.Manifest.Targets {
		if t.Name == name {
			text += fmt.Sprintf("; its %s has %s: the original build came out in another way", name, t.BuildID)
		}
	}
	return text
}

// manifestDifferences names the members of two manifests that differ, but for
// the targets.
func manifestDifferences(was, is bundle.Manifest) (all []string) {
	was.Targets, is.Targets = nil, nil
	a, b := members(was), members(is)
	for _, name := range slices.Sorted(maps.Keys(union(a, b))) {
		if !reflect.DeepEqual(a[name], b[name]) {
			all = append(all, fmt.Sprintf("manifest.json: %s: %s in the rebuild, %s in the bundle", name, compact(b[name]), compact(a[name])))
		}
	}
	return all
}

func members(m bundle.Manifest) (all map[string]any) {
	if data, err := json.Marshal(m); err == nil {
		_ = json.Unmarshal(data, &all) // it was written a line before
	}
	return all
}

func compact(v any) string {
	if v == nil {
		return "nothing"
	}
	data, _ := json.Marshal(v) // it was read from JSON
	return string(data)
}

func union[V any](a, b map[string]V) map[string]bool {
	names := map[string]bool{}
	for _, m := range []map[string]V{a, b} {
		for name := range m {
			names[name] = true
		}
	}
	return names
}

// patchDifferences names what differs between two patches for one build-id.
func patchDifferences(was, is *kpack.Patch) (all []string) {
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	functions, mine := map[string]kpack.Function{}, map[string]kpack.Function{}
	for _, f := range was.Functions {
		functions[f.Name+"\x00"+f.File] = f
	}
	for _, f := range is.Functions {
		mine[f.Name+"\x00"+f.File] = f
	}
	for _, name := range slices.Sorted(maps.Keys(union(functions, mine))) {
		f, inBundle := functions[name]
		g, inMine := mine[name]
		switch {
		case !inMine:
			say("function %s: only the bundle has it", f.Name)
		case !inBundle:
			say("function %s: only the rebuild has it", g.Name)
		case !bytes.Equal(newCode(was, f), newCode(is, g)):
			say("function %s: the new code differs", f.Name)
		}
	}
	all = append(all, sectionDifferences(was, is)...)
	if len(all) == 0 && !reflect.DeepEqual(was.Meta, is.Meta) {
		say("what it says of itself differs")
	}
	if len(all) == 0 && !reflect.DeepEqual(was, is) {
		say("symbols or relocations differ")
	}
	return all
}

// newCode returns the bytes of the function that takes the place of f.
func newCode(p *kpack.Patch, f kpack.Function) []byte {
	if f.Symbol >= len(p.Symbols) {
		return nil
	}
	s := p.Symbols[f.Symbol]
	if s.Binding != kpack.Carried || s.Section >= len(p.Sections) {
		return nil
	}
	data := p.Sections[s.Section].Data
	lo := min(s.Value, uint64(len(data)))
	return data[lo : lo+min(s.Size, uint64(len(data))-lo)]
}

func sectionDifferences(was, is *kpack.Patch) (all []string) {
	sections, mine := map[string]kpack.Section{}, map[string]kpack.Section{}
	for _, s := range was.Sections {
		sections[s.Name] = s
	}
	for _, s := range is.Sections {
		mine[s.Name] = s
	}
	for _, name := range slices.Sorted(maps.Keys(union(sections, mine))) {
		s, inBundle := sections[name]
		o, inMine := mine[name]
		switch {
		case !inMine || !inBundle:
			all = append(all, fmt.Sprintf("section %s: only one of the two has it", name))
		case s.Size != o.Size:
			all = append(all, fmt.Sprintf("section %s: %d bytes in the rebuild, %d in the bundle", name, o.Size, s.Size))
		case !bytes.Equal(s.Data, o.Data):
			all = append(all, fmt.Sprintf("section %s: other bytes from offset %#x on", name, firstDifference(s.Data, o.Data)))
		case !reflect.DeepEqual(s.Relocs, o.Relocs):
			all = append(all, fmt.Sprintf("section %s: other relocations", name))
		}
	}
	return all
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}
