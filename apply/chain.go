package apply

import (
	"encoding/binary"
	"slices"

	"github.com/fother/fother/specs"
)

// chain is the finders of a process while all its threads are stopped.
type chain struct {
	p *Process
	u *unwinders
	// slots are those whose content is understood.
	slots []specs.Addr
	// finders are all that there may be, by entry; order is as they ask each
	// other.
	finders map[specs.Addr]finder
	order   []specs.Addr
	// foreign is set if something is in the chain that is not known: more
	// finders may be behind it. tail is what the last known one goes on to.
	foreign bool
	tail    specs.Addr
	undo    []cell
}

// cell is a word of the chain, with what was in it.
type cell struct{ addr, was specs.Addr }

// newChain knows all finders that there may be, and none of the process yet.
func (p *Process) newChain(u *unwinders, t *transaction) *chain {
	c := &chain{p: p, u: u, finders: make(map[specs.Addr]finder), tail: u.real}
	for _, list := range [][]*record{p.records, t.ins, t.unhook} {
		for _, r := range list {
			if r.Finder.Entry != 0 {
				c.finders[r.Finder.Entry] = r.Finder
			}
		}
	}
	return c
}

// readChain reads the finders of the process; nil if there is no unwinder, or no
// record that has a finder. A GOT entry may still be lazy, then it leads back to
// its object, or be somebody else's: that one is left alone.
func (p *Process) readChain(u *unwinders, t *transaction) *chain {
	if len(u.slots) == 0 {
		return nil
	}
	c := p.newChain(u, t)
	if len(c.finders) == 0 {
		return nil
	}
	for _, s := range u.slots {
		head, ok := c.understood(s)
		if !ok {
			c.foreign = true
			continue
		}
		c.slots = append(c.slots, s.addr)
		if _, ours := c.finders[head]; ours {
			c.follow(head)
		}
	}
	return c
}

// understood returns what is in a GOT entry, and whether it is a finder, the
// dynamic linker's function, or not bound yet.
func (c *chain) understood(s slotOf) (specs.Addr, bool) {
	head, err := c.read(s.addr)
	_, ours := c.finders[head]
	return head, err == nil && (ours || head == c.u.real || s.object.image.Range.Contains(head))
}

// follow goes along the finders from at on.
func (c *chain) follow(at specs.Addr) {
	for !slices.Contains(c.order, at) {
		f, ours := c.finders[at]
		if !ours {
			if at != c.u.real {
				c.foreign, c.tail = true, at
			}
			return
		}
		c.order = append(c.order, at)
		next, err := c.read(f.Next)
		if err != nil {
			c.foreign = true
			return
		}
		at = next
	}
}

func (c *chain) read(a specs.Addr) (specs.Addr, error) {
	v, err := c.p.word(a)
	return specs.Addr(v), err
}

// put writes a word.
func (c *chain) put(a, v specs.Addr) error {
	return c.p.mem.Write(a, binary.LittleEndian.AppendUint64(nil, uint64(v)))
}

// write writes a word, unless it is there.
func (c *chain) write(a, v specs.Addr) error {
	was, err := c.read(a)
	if err != nil || was == v {
		return err
	}
	c.undo = append(c.undo, cell{a, was})
	return c.put(a, v)
}

// add puts the finders of records in front.
func (c *chain) add(records ...*record) error {
	if c == nil {
		return nil
	}
	for _, r := range records {
		if e := r.Finder.Entry; e != 0 && !slices.Contains(c.order, e) {
			c.order = slices.Insert(c.order, 0, e)
		}
	}
	return c.link()
}

// remove takes the finders of records out.
func (c *chain) remove(records ...*record) error {
	if c == nil {
		return nil
	}
	before := len(c.order)
	for _, r := range records {
		c.order = slices.DeleteFunc(c.order, func(e specs.Addr) bool { return e == r.Finder.Entry })
	}
	if len(c.order) == before {
		return nil
	}
	return c.link()
}

// link writes the chain from its end, so that at each write all that can be
// reached is right.
func (c *chain) link() error {
	next := c.tail
	for _, e := range slices.Backward(c.order) {
		if err := c.write(c.finders[e].Next, next); err != nil {
			return err
		}
		next = e
	}
	for _, s := range c.slots {
		if err := c.write(s, next); err != nil {
			return err
		}
	}
	return nil
}

// restore takes all writes back.
func (c *chain) restore() error {
	if c == nil {
		return nil
	}
	for _, w := range slices.Backward(c.undo) {
		if err := c.put(w.addr, w.was); err != nil {
			return err
		}
	}
	c.undo = nil
	return nil
}
