package asm

import (
	"hash/maphash"
	"unsafe"
)

// nameTable gives names numbers, from 0 in the order in which they come. The two
// builds of a unit share one: symbols that have one name have one number, so that
// most questions about names need no second look at their text.
type nameTable struct {
	seed  maphash.Seed // of its own: nobody can write names that collide
	slots []nameSlot   // a power of two, at least twice as many as there are names
	text  []string
	room  []byte // behind the text of the last name
}

// nameSlot holds a name at its hash or behind it.
type nameSlot struct {
	hash   uint32
	number int32 // plus one; 0 if the slot is free
}

// newNameTable makes room for about n names.
func newNameTable(n int) *nameTable {
	size := 64
	for size < 2*n {
		size *= 2
	}
	return &nameTable{seed: maphash.MakeSeed(), slots: make([]nameSlot, size), text: make([]string, 0, size/2)}
}

// at returns the slot that a name has or would get, and its hash.
func (t *nameTable) at(name string) (slot *nameSlot, hash uint32) {
	hash = uint32(maphash.String(t.seed, name))
	for i := int(hash); ; i++ {
		slot = &t.slots[i&(len(t.slots)-1)]
		if slot.number == 0 || slot.hash == hash && t.text[slot.number-1] == name {
			return slot, hash
		}
	}
}

// find returns the number of a name, or -1.
func (t *nameTable) find(name string) int32 {
	slot, _ := t.at(name)
	return slot.number - 1
}

// number returns the number of a name, which it gets if it has none.
func (t *nameTable) number(name string) int32 {
	slot, hash := t.at(name)
	if slot.number == 0 {
		t.text = append(t.text, t.keep(name))
		*slot = nameSlot{hash, int32(len(t.text))}
		if n := int32(len(t.text)); 2*len(t.text) > len(t.slots) {
			t.grow()
			return n - 1
		}
	}
	return slot.number - 1
}

// keep copies a name: the names are looked at often, and all of them are much
// less than the texts that they come from.
func (t *nameTable) keep(name string) string {
	if name == "" {
		return ""
	}
	if len(t.room) < len(name) {
		t.room = make([]byte, max(1<<13, len(name)))
	}
	n := copy(t.room, name)
	kept := unsafe.String(&t.room[0], n) // nobody writes there again
	t.room = t.room[n:]
	return kept
}

// grow doubles the number of slots.
func (t *nameTable) grow() {
	old := t.slots
	t.slots = make([]nameSlot, 2*len(old))
	for _, s := range old {
		if s.number == 0 {
			continue
		}
		i := int(s.hash)
		for t.slots[i&(len(t.slots)-1)].number != 0 {
			i++
		}
		t.slots[i&(len(t.slots)-1)] = s
	}
}

// enter makes symbol that of the name of that number.
func (u *Unit) enter(number, symbol int32) {
	if n := int(number) + 1 - len(u.index); n > 0 {
		u.index = append(u.index, make([]int32, n)...)
	}
	u.index[number] = symbol + 1
}

// name returns the name of that number.
func (t *nameTable) name(number int32) string { return t.text[number] }

// Lookup returns the index in Symbols of name, or -1.
func (u *Unit) Lookup(name string) int32 { return u.Named(u.table.find(name)) }

// Named returns the index in Symbols of the name of that number, or -1.
func (u *Unit) Named(number int32) int32 {
	if number < 0 || int(number) >= len(u.index) {
		return -1
	}
	return u.index[number] - 1
}

// Number returns the number of a name, which it gets if it has none. Both units
// of a [Pair] count alike, from 0.
func (u *Unit) Number(name string) int32 { return u.table.number(name) }

// Name returns the name of that number.
func (u *Unit) Name(number int32) string { return u.table.name(number) }

// Numbers returns how many names have a number.
func (u *Unit) Numbers() int { return len(u.table.text) }
