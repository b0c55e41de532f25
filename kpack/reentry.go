package kpack

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
)

// reentry refuses a function whose calls may end in the old code, if such a
// call may come back to the entry: it would run into the jump there. That is
// where a loop begins with the function itself, or with the bytes that the jump
// takes.
func (b *builder) reentry(f Function) error {
	taken, err := b.taken(f)
	if err != nil {
		return err
	}
	taken.Lo = f.Original.Lo
	c := &comesBack{file: b.in.Original, bodies: []specs.Range[specs.VAddr]{f.Original}, taken: taken}
	if f.Cold.Size() > 0 {
		c.bodies = append(c.bodies, f.Cold)
	}
	for _, body := range c.bodies {
		code, err := c.file.ReadAt(body.Lo, body.Size())
		if err != nil {
			return err
		}
		at, found := b.machine.jumpsTo(code, body.Lo, c.taken)
		if !found {
			at, found = c.tables(code, body.Lo)
		}
		if !found && b.machine.indirect != nil {
			if at, indirect := b.machine.indirect(code, body.Lo); indirect {
				return &indirectError{function: f.Name, at: at, taken: c.taken.Size()}
			}
		}
		if found {
			return hint("leave it out of next-call; in the next release, compile it with -falign-loops=16",
				fmt.Errorf("consistency next-call: what is at %v may lead a call that is under way back to the first %d bytes, where the jump to the new code will be", at, c.taken.Size()))
		}
	}
	return c.words()
}

// indirectError refuses a function with a jump of which it is not known where
// it leads.
type indirectError struct {
	function string
	at       specs.VAddr
	taken    uint64 // bytes
}

func (e *indirectError) Error() string {
	return fmt.Sprintf("consistency next-call: the jump at %v goes to the address in a register, as of a switch: it may lead a call that is under way back to the first %d bytes, where the jump to the new code will be", e.at, e.taken)
}

// Hint says what the user can do.
func (e *indirectError) Hint() string {
	return fmt.Sprintf("leave %s out of next_call; a program that is to be patched so later needs -fno-jump-tables, and there no computed goto and no call through a pointer as the last thing done", e.function)
}

// comesBack looks for ways into the first bytes of a function.
type comesBack struct {
	file   *elfobj.File
	bodies []specs.Range[specs.VAddr]
	taken  specs.Range[specs.VAddr]
}

// tables looks through the tables of 32-bit distances to which code refers,
// as switch statements have them. Everything that might be a reference counts:
// what is no table does not lead into the function.
func (c *comesBack) tables(code []byte, at specs.VAddr) (specs.VAddr, bool) {
	for i := 0; i+4 <= len(code); i++ {
		v := binary.LittleEndian.Uint32(code[i:])
		// lea table(%rip), and absolute addresses of 32 bits
		for _, table := range []specs.VAddr{at + specs.VAddr(i) + 4 + specs.VAddr(int32(v)), specs.VAddr(v)} {
			if place, found := c.table(table); found {
				return place, true
			}
		}
	}
	return 0, false
}

// table follows the distances at t as long as they lead into the function.
func (c *comesBack) table(t specs.VAddr) (specs.VAddr, bool) {
	for at := t; ; at += 4 {
		b, err := c.file.ReadAt(at, 4)
		if err != nil {
			return 0, false
		}
		to := t + specs.VAddr(int32(binary.LittleEndian.Uint32(b)))
		if c.taken.Contains(to) {
			return at, true
		}
		if !c.bodies[0].Contains(to) && !c.bodies[len(c.bodies)-1].Contains(to) {
			return 0, false
		}
	}
}

// words refuses addresses, as computed goto has them, of what lies behind the
// function's first byte. That of the first byte is the function's own.
func (c *comesBack) words() error {
	inside := func(v uint64) bool { return specs.VAddr(v) != c.taken.Lo && c.taken.Contains(specs.VAddr(v)) }
	relocs, err := c.file.DynRelocs()
	if err != nil && !errors.Is(err, elfobj.ErrNoDynamic) {
		return err
	}
	found := false
	for _, r := range relocs {
		found = found || r.Symbol == 0 && inside(uint64(r.Addend))
	}
	for i := range c.file.Sections {
		s := &c.file.Sections[i]
		if s.Flags&elf.SHF_ALLOC == 0 || s.Flags&elf.SHF_EXECINSTR != 0 || s.Type != elf.SHT_PROGBITS {
			continue
		}
		data, err := s.Data()
		if err != nil {
			return err
		}
		for ; len(data) >= 8; data = data[8:] {
			found = found || inside(binary.LittleEndian.Uint64(data))
		}
	}
	if found {
		return hint("leave it out of next-call", errors.New("consistency next-call: the address of its first instructions is taken: a call that is under way might go back there"))
	}
	return nil
}
