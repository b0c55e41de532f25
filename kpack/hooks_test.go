package kpack

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// hookS is a new function of a fix.
func hookS(mark, name string) string {
	return fmt.Sprintf("\t.section .kpatch.text,\"ax\",%[1]sprogbits\n\t.type %[2]s, %[1]sfunction\n%[2]s:\n\tret\n\t.size %[2]s, .-%[2]s\n", mark, name)
}

// declare is what fother.h makes of a hook, in patch assembly.
func declare(mark, function string, point, limit, order, last int) string {
	return fmt.Sprintf("\t.section .kpatch.hooks,\"aw\",%sprogbits\n\t.8byte %s\n\t.4byte %d, %d, %d, %d\n", mark, function, point, limit, order, last)
}

// TestHooks: hooks come out in the order in which they run, survive the file, and
// have all that they need where a patch is linked.
func TestHooks(t *testing.T) {
	for a, mark := range map[*arch.Arch]string{arch.X86_64: "@", arch.AArch64: "%"} {
		t.Run(a.Name, func(t *testing.T) { checkHooks(t, a, mark) })
	}
}

func checkHooks(t *testing.T, a *arch.Arch, mark string) {
	more := hookS(mark, "one.kpatch") + hookS(mark, "two.kpatch") + hookS(mark, "free.kpatch") +
		declare(mark, "two.kpatch", 1, 60000, 1, 0) + declare(mark, "one.kpatch", 1, 1, 0, 0) +
		declare(mark, "one.kpatch", 4, 20, 2, 0) + declare(mark, "two.kpatch", 4, 30, 3, 0) + declare(mark, "free.kpatch", 4, 40, 9, 1)
	p, err := fixtureWith(t, a, more)
	if err != nil {
		t.Fatal(err)
	}
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, h := range back.Hooks {
		got = append(got, fmt.Sprint(h.Point, " ", h.Function, " ", h.Limit))
	}
	want := []string{"pre_apply one 1ms", "pre_apply two 1m0s", "post_revert two 30ms", "post_revert one 20ms", "post_revert free 40ms"}
	if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(back.Hooks, p.Hooks) {
		t.Errorf("hooks %q, want %q", got, want)
	}
	if len(p.Meta.AddressTaken) > 0 {
		t.Errorf("the address of %v counts as taken", p.Meta.AddressTaken)
	}
	checkHookPlace(t, back)
}

// checkHookPlace links p and looks at what its hooks have.
func checkHookPlace(t *testing.T, p *Patch) {
	t.Helper()
	const page, base = 4096, specs.Addr(0x4000000)
	l, err := p.Layout(page, 100)
	if err != nil {
		t.Fatal(err)
	}
	im, err := p.Link(l, base, 0, func(Symbol) (specs.Addr, bool, error) { return base + 0x1000000, false, nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	h := im.Hooks
	in := func(r Region, a specs.Addr) bool { return uint64(a-base)-r.Offset < r.Size }
	if !in(l.Text, h.Code) || !in(l.Text, h.Exit) || !in(l.Data, h.Control+HookControl-1) || !in(l.Data, h.Thread) || uint64(h.Stack-base) != l.Data.Offset+hookStack || h.Stack%16 != 0 {
		t.Errorf("places %+v in %+v", h, l)
	}
	code := im.Text[uint64(h.Code-base)-l.Text.Offset:]
	word := func(at int) specs.Addr { return specs.Addr(binary.LittleEndian.Uint32(code[at:])) }
	to := h.Code + 7 + word(3)
	if p.Arch == arch.AArch64 { // adrp and add
		to = h.Code&^0xfff + (word(4)>>29&3|word(4)>>3&0x1ffffc)<<12 + word(8)>>10&0xfff
	}
	if to != h.Control {
		t.Errorf("the code has its control block at %v, want %v", to, h.Control)
	}
	if p.Arch == arch.AArch64 {
		// Nothing there leads to itself.
	} else if self := binary.LittleEndian.Uint64(im.Data[uint64(h.Thread-base)-l.Data.Offset:]); self != uint64(h.Thread) {
		t.Errorf("the thread pointer is %#x, and it leads to %#x", uint64(h.Thread), self)
	}
	for point, want := range [HookPoints]int{2, 0, 0, 3} {
		n := 0
		for at := h.Lists[point]; ; at += 8 {
			f := specs.Addr(binary.LittleEndian.Uint64(im.ROData[at-base:]))
			if f == 0 {
				break
			}
			if !in(l.Text, f) {
				t.Errorf("hook %d of %v is at %v", n, HookPoint(point+1), f)
			}
			n++
		}
		if n != want {
			t.Errorf("%d hooks of %v, want %d", n, HookPoint(point+1), want)
		}
	}
}

// TestHooksRefused: what cannot be a hook is told by name, with what the author
// can do.
func TestHooksRefused(t *testing.T) {
	one := hookS("@", "one.kpatch")
	for _, c := range []struct {
		name, more, want string
		arch             *arch.Arch
	}{
		{"no time", one + declare("@", "one.kpatch", 1, 0, 0, 0), "a.c: hooks: one: a time of 0s: want at most 1m0s", arch.X86_64},
		{"a long time", one + declare("@", "one.kpatch", 1, 60001, 0, 0), "a time of 1m0.001s", arch.X86_64},
		{"point", one + declare("@", "one.kpatch", 5, 10, 0, 0), "point 5 is not known", arch.X86_64},
		{"a function of the original", declare("@", "check.kpatch", 1, 10, 0, 0), "does not name a new function of the fix", arch.X86_64},
		{"no function", declare("@", "0", 1, 10, 0, 0), "does not name a new function of the fix", arch.X86_64},
		{"half a declaration", one + declare("@", "one.kpatch", 1, 10, 0, 0) + "\t.4byte 0\n", "28 bytes of declarations", arch.X86_64},
		{"no time, aarch64", hookS("%", "one.kpatch") + declare("%", "one.kpatch", 1, 0, 0, 0), "a.c: hooks: one: a time of 0s: want at most 1m0s", arch.AArch64},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := fixtureWith(t, c.arch, c.more)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: want %q", err, c.want)
			}
		})
	}
}

// TestDecodeHostileHooks changes rows and seals the file again.
func TestDecodeHostileHooks(t *testing.T) {
	p, err := fixtureWith(t, arch.X86_64, hookS("@", "one.kpatch")+declare("@", "one.kpatch", 1, 10, 0, 0)+declare("@", "one.kpatch", 2, 10, 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(h *Hook){
		"symbol":  func(h *Hook) { h.Symbol = 1 << 20 },
		"point":   func(h *Hook) { h.Point = 9 },
		"no time": func(h *Hook) { h.Limit = 0 },
		"time":    func(h *Hook) { h.Limit = time.Hour },
		"import":  func(h *Hook) { h.Symbol = len(p.Symbols) - 1 },
		"order":   func(h *Hook) { h.Point = PostRevert },
	} {
		bad := *p
		bad.Hooks = append([]Hook(nil), p.Hooks...)
		change(&bad.Hooks[0])
		if _, err := bad.Encode(); err == nil || !strings.Contains(err.Error(), sectionHooks) {
			t.Errorf("%s: %v", name, err)
		}
	}
	after := *p
	after.Hooks, after.Functions = append([]Hook(nil), p.Hooks...), append([]Function(nil), p.Functions...)
	after.Hooks[1].Point, after.Functions[0].NextCall = PostRevert, true
	after.Meta.Consistency = specs.Consistency{NextCall: []string{after.Functions[0].Name}, Reason: "test"}
	if _, err := after.Encode(); err == nil || !strings.Contains(err.Error(), "when calls of check may still be under way") {
		t.Errorf("after a revert, beside a function of next_call: %v", err)
	}
	bad := *p
	for range maxHooks {
		bad.Hooks = append(bad.Hooks, p.Hooks[1])
	}
	if _, err := bad.Encode(); err == nil || !strings.Contains(err.Error(), sectionHooks) {
		t.Errorf("too many: %v", err)
	}
}

// TestHookState: whatever the process wrote, what is read is bounded.
func TestHookState(t *testing.T) {
	b := HookStart{Point: PostApply, Place: HookPlace{Lists: [HookPoints]specs.Addr{1, 2, 3, 4}}}.Bytes()
	if s, err := ReadHookState(b); err != nil || s != (HookState{Point: PostApply}) {
		t.Errorf("%+v, %v", s, err)
	}
	for i := range b {
		b[i] = 0xff
	}
	if _, err := ReadHookState(b); err == nil {
		t.Error("point 0xffffffff is read")
	}
	binary.LittleEndian.PutUint32(b[hookPoint:], uint32(PreApply))
	s, err := ReadHookState(b)
	if err != nil || s.Ended > maxHooks || s.Failed > maxHooks || s.Errno != 1 || !s.Done || !s.Begun {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := ReadHookState(b[1:]); err == nil {
		t.Error("half a block is read")
	}
}
