package differ

import (
	"hash/maphash"
	"slices"
	"strings"

	"github.com/fother/fother/differ/asm"
)

// correlation pairs the functions and objects of two builds.
type correlation struct {
	a, b *side
	// unclear has, for items of b that may or may not be an item of a, why.
	unclear map[int32]string
	// byOrder has the items of b that were paired by their order alone: those
	// that functions reach by their distance from a section anchor.
	byOrder map[int32]bool
	// unsettled are the folded functions whose code must be known to pair them.
	unsettled []string
	// rivals has, for each side, the functions and objects that are not the only
	// ones of their group there or on the other side.
	rivals [2][]bool
	seed   maphash.Seed
	joined int // pairs so far
}

// group is the items of both builds whose names have one stem.
type group struct {
	a, b     []int32
	numbered bool // the stem stands for names with numbers
}

// correlate sets pair on both sides.
func correlate(a, b *side) *correlation {
	c := &correlation{a: a, b: b, unclear: make(map[int32]string), byOrder: make(map[int32]bool), seed: maphash.MakeSeed()}
	funcs, objects := c.groups()
	c.findRivals(funcs, objects)
	objects = slices.DeleteFunc(objects, func(g *group) bool {
		if g.stable() {
			c.join(g.a[0], g.b[0])
		}
		return g.stable()
	})
	c.functions(funcs)
	c.objects(objects)
	c.rescoped()
	c.partsOfPairs()
	return c
}

// findRivals fills rivals.
func (c *correlation) findRivals(lists ...[]*group) {
	c.rivals = [2][]bool{make([]bool, len(c.a.Items)), make([]bool, len(c.b.Items))}
	for _, groups := range lists {
		for _, g := range groups {
			if len(g.a) <= 1 && len(g.b) <= 1 {
				continue
			}
			for k, items := range [...][]int32{g.a, g.b} {
				for _, i := range items {
					c.rivals[k][i] = true
				}
			}
		}
	}
}

// rival reports what rivals has for item i of s.
func (c *correlation) rival(s *side, i int32) bool {
	if s == c.a {
		return c.rivals[0][i]
	}
	return c.rivals[1][i]
}

// identity returns one number for an item and its pair: that of the item of b.
func (c *correlation) identity(s *side, i int32) (id int32, paired bool) {
	if s == c.b {
		return i, s.pair[i] != none
	}
	return s.pair[i], s.pair[i] != none
}

// groups sorts functions and objects by stem, in text order of the patched
// build and then of the original.
func (c *correlation) groups() (funcs, objects []*group) {
	n := 0
	for _, s := range [...]*side{c.a, c.b} {
		for _, r := range s.roles {
			if r == function || r == object {
				n++
			}
		}
	}
	byStem := [...][]*group{function: make([]*group, c.b.Numbers()), object: make([]*group, c.b.Numbers())}
	all, room := []group(nil), make([]int32, 2*n) // most groups have one of each
	add := func(s *side, i int32) *group {
		r := s.roles[i]
		key := s.key(i)
		if grow := int(key) + 1 - len(byStem[r]); grow > 0 {
			byStem[r] = append(byStem[r], make([]*group, grow)...)
		}
		g := byStem[r][key]
		if g == nil {
			if len(all) == cap(all) {
				all = make([]group, 0, n/2+8) // those before it stay where they are
			}
			all = append(all, group{room[:0:1], room[1:1:2], strings.IndexByte(c.b.Name(key), '#') >= 0})
			room = room[2:]
			g = &all[len(all)-1]
			byStem[r][key] = g
			if r == function {
				funcs = append(funcs, g)
			} else {
				objects = append(objects, g)
			}
		}
		return g
	}
	for k, r := range c.b.roles {
		if i := int32(k); r == function || r == object {
			g := add(c.b, i)
			g.b = append(g.b, i)
		}
	}
	for k, r := range c.a.roles {
		if i := int32(k); r == function || r == object {
			g := add(c.a, i)
			g.a = append(g.a, i)
		}
	}
	return funcs, objects
}

// key is the number of the name that items of one role must have in common to be
// correlated. Both builds count alike.
func (s *side) key(i int32) int32 {
	name := s.names[i]
	if s.allLocal(i) || strings.Contains(name, ".lto_priv.") {
		if k := stem(name); k != name {
			return s.Number(k)
		}
	}
	return s.Symbols[s.symbol[i]].Number
}

// stable reports whether the group's name tells all.
func (g *group) stable() bool {
	return len(g.a) == 1 && len(g.b) == 1 && !g.numbered
}

func (c *correlation) join(a, b int32) {
	c.a.pair[a], c.b.pair[b] = b, a
	c.joined++
}

// byContent pairs items whose content is equal and occurs once on both sides,
// and returns the others.
func (c *correlation) byContent(as, bs []int32, hash func(s *side, i int32) uint64) (restA, restB []int32) {
	hashes := make(map[uint64]*[2][]int32)
	note := func(s *side, side int, list []int32) {
		for _, i := range list {
			h := hash(s, i)
			if hashes[h] == nil {
				hashes[h] = &[2][]int32{}
			}
			hashes[h][side] = append(hashes[h][side], i)
		}
	}
	note(c.a, 0, as)
	note(c.b, 1, bs)
	for _, e := range hashes {
		if len(e[0]) == 1 && len(e[1]) == 1 {
			c.join(e[0][0], e[1][0])
		}
	}
	return c.a.free(slices.Clone(as)), c.b.free(slices.Clone(bs))
}

// plainHash is weakHash for names as they are.
func (c *correlation) plainHash(s *side, i int32) uint64 { return s.weakHash(c.seed, i, plainName) }

// plainName is the stem of a name, and nothing for a label, whose number says
// nothing.
func plainName(name string) string {
	if asm.IsLocalLabel(name) {
		return ""
	}
	return stem(name)
}

// weakHash is a hash of item i's statements in which symbols and labels count
// by what known says of them. With plainName, equal items have equal hashes.
func (s *side) weakHash(seed maphash.Seed, i int32, known func(name string) string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	var refs []asm.Ref
	for _, st := range s.Items[i].Stmts {
		if !st.Kind.Bytes() {
			continue
		}
		if st.Kind == asm.Folded {
			f := &s.Folds[s.FoldOf(st)]
			h.WriteString(f.Name())
			for _, ref := range f.Refs {
				if name, _ := s.Mentioned(ref); s.mentioned(i, ref).ord >= 0 { // else it is a place in the function
					h.WriteString(known(name))
				}
				h.WriteByte(0)
			}
			continue
		}
		text := s.TextOf(st)
		if s.Items[i].Common {
			_, text, _ = strings.Cut(text, ",")
		}
		refs = s.Dialect.Refs(refs[:0], st.Kind, text)
		at := 0
		for _, r := range refs {
			h.WriteString(text[at:r.Lo])
			at = r.Hi
			h.WriteString(known(r.Name(text)))
			h.WriteByte(0)
		}
		h.WriteString(text[at:])
		h.WriteByte('\n')
	}
	return h.Sum64()
}

// partsOfPairs pairs the cold parts of paired functions.
func (c *correlation) partsOfPairs() {
	for j := range c.b.Items {
		i := c.b.pair[j]
		if c.b.roles[j] != function || i == none {
			continue
		}
		if as, bs := c.a.parts[i], c.b.parts[j]; len(as) == len(bs) {
			for k := range as {
				c.join(as[k], bs[k])
			}
		}
	}
}
