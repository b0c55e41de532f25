package kpack

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// HookPoint is when a hook runs. The numbers are those of include/fother.h.
type HookPoint uint32

// The points, in the order in which a patch comes to them.
const (
	PreApply HookPoint = 1 + iota
	PostApply
	PreRevert
	PostRevert
)

// HookPoints is how many there are.
const HookPoints = 4

func (p HookPoint) String() string {
	names := [...]string{"", "pre_apply", "post_apply", "pre_revert", "post_revert"}
	if p >= PreApply && int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("point %d", uint32(p))
}

// Vetoes reports whether a hook of the point can keep the change from being
// made.
func (p HookPoint) Vetoes() bool { return p == PreApply || p == PreRevert }

// MarshalText writes the point's name.
func (p HookPoint) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (p *HookPoint) UnmarshalText(text []byte) error {
	for q := PreApply; q <= PostRevert; q++ {
		if q.String() == string(text) {
			*p = q
			return nil
		}
	}
	return fmt.Errorf("hook point %.40q is not known", text)
}

// Hook is a function of the patch that runs in the process around the switch,
// in a thread of its own; see include/fother.h.
type Hook struct {
	Point    HookPoint
	Function string
	// Limit is how long it may take.
	Limit time.Duration
	// Symbol is the index in Patch.Symbols of its code.
	Symbol int
	// Release is set for one after the revert that gives back what variables of
	// the patch lead to: it does not run if a newer level goes on with them.
	Release bool
}

const (
	// sectionHooks is the section of declarations in patch assembly, and in the
	// .kpatch file that of a row for each hook.
	sectionHooks = ".kpatch.hooks"
	// declarationSize is that of struct fother_hook, hookSize that of a row.
	declarationSize = 24
	hookSize        = 16

	maxHooks = 64

	// hookReleases, in a row, and releases, in the last word of a declaration, say
	// Hook.Release.
	hookReleases = 1
	releases     = 2
)

// MaxHookLimit bounds how long a hook may take.
const MaxHookLimit = time.Minute

// HasHooks reports whether patches for an architecture can have hooks.
func HasHooks(a *arch.Arch) bool {
	m, err := machineOf(a)
	return err == nil && m.hooks != nil
}

var errNoHooks = errors.New("hooks are not supported on this architecture")

// hookDeclaration is a hook with what orders it.
type hookDeclaration struct {
	Hook
	unit        int
	order, last uint32
}

// declared adds the hooks that a unit declares.
func (b *builder) declared(um *unitMerge) (reasons []error) {
	if um.hooks == 0 {
		return nil
	}
	refuse := func(err error) []error {
		return append(reasons, &Refusal{Unit: um.unit.Name, Err: fmt.Errorf("hooks: %w", err)})
	}
	if b.machine.hooks == nil {
		return refuse(hint("leave the hooks out: the fix has to do without", errNoHooks))
	}
	failed := func(err error) []error { return []error{fmt.Errorf("%s: %s: %w", um.unit.Name, sectionHooks, err)} }
	data, err := um.unit.Object.Sections[um.hooks].Data()
	if err != nil {
		return failed(err)
	}
	relocs, err := um.unit.Object.Relocs(um.hooks)
	if err != nil {
		return failed(err)
	}
	if len(data)%declarationSize != 0 || len(data)/declarationSize > maxHooks {
		return refuse(fmt.Errorf("%d bytes of declarations", len(data)))
	}
	for at := 0; at < len(data); at += declarationSize {
		i := slices.IndexFunc(relocs, func(r elfobj.Reloc) bool { return r.Offset == uint64(at) && r.Type == b.machine.address })
		symbol := -1
		if i >= 0 && relocs[i].Symbol < len(um.symbols) {
			symbol = b.hookFunction(um, relocs[i].Symbol, uint64(relocs[i].Addend))
		}
		if symbol < 0 {
			return refuse(hint("declare hooks with the macros of fother.h, for functions of the same file that the original does not have",
				errors.New("a declaration does not name a new function of the fix")))
		}
		word := func(off int) uint32 { return binary.LittleEndian.Uint32(data[at+off:]) }
		h := Hook{HookPoint(word(8)), strings.TrimSuffix(b.patch.Symbols[symbol].Name, carriedSuffix), time.Duration(word(12)) * time.Millisecond, symbol, word(20)&releases != 0}
		if err := h.check(); err != nil {
			reasons = refuse(hint("name a time from 1 to 60000 milliseconds", fmt.Errorf("%s: %w", h.Function, err)))
			continue
		}
		b.hooks = append(b.hooks, hookDeclaration{h, um.number, word(16), word(20)})
	}
	return reasons
}

// hookFunction returns the patch's symbol of the function at symbol i of a
// unit's object plus addend, or -1. Redirected functions are none: a hook is the
// patch's own.
func (b *builder) hookFunction(um *unitMerge, i int, addend uint64) int {
	s := um.symbols[i]
	at, ok := um.section[s.Section]
	if !ok {
		return -1
	}
	return slices.IndexFunc(b.patch.Symbols, func(c Symbol) bool {
		return c.Binding == Carried && c.Func && c.Name != "" && c.Section == at.section && c.Value == at.offset+s.Value+addend && !b.labels[c.Name]
	})
}

// check reports what no hook can be.
func (h Hook) check() error {
	switch {
	case h.Point < PreApply || h.Point > PostRevert:
		return fmt.Errorf("%v is not known", h.Point)
	case h.Limit <= 0 || h.Limit > MaxHookLimit:
		return fmt.Errorf("a time of %v: want at most %v", h.Limit, MaxHookLimit)
	case h.Release && h.Point != PostRevert:
		return fmt.Errorf("it gives data back, at %v", h.Point)
	}
	return nil
}

// sortHooks puts the hooks that the units declare into the order in which they
// run.
func (b *builder) sortHooks() error {
	if len(b.hooks) > maxHooks {
		return fmt.Errorf("%d hooks: want at most %d", len(b.hooks), maxHooks)
	}
	slices.SortStableFunc(b.hooks, func(x, y hookDeclaration) int {
		order := cmp.Or(cmp.Compare(x.unit, y.unit), cmp.Compare(x.order, y.order), strings.Compare(x.Function, y.Function))
		if x.Point == PreRevert || x.Point == PostRevert {
			order = -order
		}
		return cmp.Or(cmp.Compare(x.Point, y.Point), cmp.Compare(x.last, y.last), order)
	})
	for _, h := range b.hooks {
		b.patch.Hooks = append(b.patch.Hooks, h.Hook)
	}
	return b.patch.checkHooks()
}

// checkHooks reports what hooks cannot be together with the functions of p: those
// after a revert free data, and calls of functions of next_call that are under
// way then still use it.
func (p *Patch) checkHooks() error {
	h := slices.IndexFunc(p.Hooks, func(h Hook) bool { return h.Point == PostRevert })
	f := slices.IndexFunc(p.Functions, func(f Function) bool { return f.NextCall })
	if h < 0 || f < 0 {
		return nil
	}
	return hint("name no function under consistency, or do without hooks after the revert, which shadow variables bring with them",
		fmt.Errorf("hook %s runs after a revert, when calls of %s may still be under way (consistency: next-call)", p.Hooks[h].Function, p.Functions[f].Name))
}

func (p *Patch) hookTable() []byte {
	var b []byte
	for _, h := range p.Hooks {
		b = binary.LittleEndian.AppendUint32(b, uint32(h.Symbol+1))
		b = binary.LittleEndian.AppendUint32(b, uint32(h.Point))
		b = binary.LittleEndian.AppendUint32(b, uint32(h.Limit/time.Millisecond))
		flags := uint32(0)
		if h.Release {
			flags = hookReleases
		}
		b = binary.LittleEndian.AppendUint32(b, flags)
	}
	return b
}

// Releases are the indices in Patch.Variables of those that its hooks with Release
// refer to.
func (p *Patch) Releases() (variables []int) {
	for _, h := range p.Hooks {
		code := p.Symbols[h.Symbol]
		for _, r := range p.Sections[code.Section].Relocs {
			if !h.Release || r.Offset < code.Value || r.Offset-code.Value >= code.Size {
				continue
			}
			at := p.Symbols[r.Symbol]
			i := slices.IndexFunc(p.Variables, func(v Variable) bool {
				s := p.Symbols[v.Symbol]
				return at.Binding == Carried && at.Section == s.Section && at.Value >= s.Value && at.Value-s.Value < s.Size
			})
			if i >= 0 && !slices.Contains(variables, i) {
				variables = append(variables, i)
			}
		}
	}
	return variables
}

func (d *decoder) hooks() error {
	s := d.file.Section(sectionHooks)
	if s == nil {
		return nil
	}
	b, err := s.Data()
	if err != nil {
		return err
	}
	if !HasHooks(d.patch.Arch) {
		return errNoHooks
	}
	if s.Flags&elf.SHF_ALLOC != 0 || len(b)%hookSize != 0 || len(b) > maxHooks*hookSize {
		return fmt.Errorf("section %s: %d bytes", sectionHooks, len(b))
	}
	for ; len(b) > 0; b = b[hookSize:] {
		h := Hook{Symbol: int(binary.LittleEndian.Uint32(b)) - 1, Point: HookPoint(binary.LittleEndian.Uint32(b[4:])),
			Limit: time.Duration(binary.LittleEndian.Uint32(b[8:])) * time.Millisecond, Release: binary.LittleEndian.Uint32(b[12:])&hookReleases != 0}
		if err := errors.Join(h.check(), d.code(h.Symbol, "")); err != nil {
			return fmt.Errorf("section %s: %w", sectionHooks, err)
		}
		h.Function = strings.TrimSuffix(d.patch.Symbols[h.Symbol].Name, carriedSuffix)
		if n := len(d.patch.Hooks); n > 0 && (d.patch.Hooks[n-1].Point > h.Point || d.patch.Hooks[n-1].Release && !h.Release) {
			return fmt.Errorf("section %s: hook %q is not in its order", sectionHooks, h.Function)
		}
		if err := checkText(h.Function); err != nil {
			return err
		}
		d.patch.Hooks = append(d.patch.Hooks, h)
	}
	if err := d.patch.checkHooks(); err != nil {
		return fmt.Errorf("section %s: %w", sectionHooks, err)
	}
	return nil
}

// HookPlace is where what a patch's hooks need is in the memory of a process;
// the zero value if the patch has none.
type HookPlace struct {
	// Control is a [HookStart] and what comes of it, in rw- memory.
	Control specs.Addr
	// Code is what a borrowed thread runs to create the hooks' thread. It is
	// done when the thread is at Created, and goes home by itself, without a step
	// beyond CodeEnd. The hooks' thread ends itself when it is sent to Exit.
	Code, Created, CodeEnd, Exit specs.Addr
	// Lists are the hooks of each point, from PreApply on: addresses of functions, and a
	// 0, in r-- memory.
	Lists [HookPoints]specs.Addr
	// Handed is the list of PostRevert without those that have Release.
	Handed specs.Addr
	// Stack is the end of the thread's stack, Thread its thread pointer.
	Stack, Thread specs.Addr
}
