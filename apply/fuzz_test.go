package apply

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/fother/fother/apply/internal/ptrace"
	"github.com/fother/fother/kpack"
	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

func FuzzMaps(f *testing.F) {
	f.Add("7f2912ce1000-7f2912d07000 r--p 00001000 fe:00 326269   /usr/lib/a b\\012c (deleted)\n")
	f.Add("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n")
	f.Add("1-2 r--p 0 0:0 0\n")
	f.Fuzz(func(t *testing.T, text string) {
		maps, err := parseMaps(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, m := range maps {
			if m.Range.Hi < m.Range.Lo || len(m.Perm) != 4 {
				t.Errorf("accepted %+v", m)
			}
		}
		slices.SortFunc(maps, func(a, b Mapping) int { return compareAddr(a.Range.Lo, b.Range.Lo) })
		gaps(maps, spacings[0])
		mappingAt(maps, 1<<40)
	})
}

func TestMaps(t *testing.T) {
	maps, err := parseMaps(strings.NewReader("1000-3000 r-xp 00002000 fe:00 77                         /a b\\012c (deleted)\n4000-5000 rw-s 0 00:00 0 \n"))
	if err != nil || len(maps) != 2 {
		t.Fatal(maps, err)
	}
	want := Mapping{Range: specs.Range[specs.Addr]{Lo: 0x1000, Hi: 0x3000}, Perm: "r-xp", Offset: 0x2000, Dev: "fe:00", Inode: 77, Path: "/a b\nc (deleted)"}
	if maps[0] != want {
		t.Errorf("%+v", maps[0])
	}
	if m := maps[1]; !m.writable() || m.private() || !m.anonymous() || mappingAt(maps, 0x4fff) != &maps[1] || mappingAt(maps, 0x3000) != nil {
		t.Errorf("%+v", m)
	}
	for _, bad := range []string{"x\n", "1000 r-xp 0 0:0 0\n", "2000-1000 r-xp 0 0:0 0\n", "1000-2000 r-x 0 0:0 0\n", "1000-2000 r-xp 0 0:0\n",
		"100:-2000 r-xp 0 0:0 0\n", "1000-2000 r-xp 0 0:0 a\n", "-2000 r-xp 0 0:0 0\n", "1000-10000000000000000 r-xp 0 0:0 0\n",
		"1000-2000 r-xp 0 0:0 18446744073709551616\n", "1000-2000 r-xp 0 0:0 1 /" + strings.Repeat("x", maxMapsLine), strings.Repeat("1", 2*mapsBuffer)} {
		if _, err := parseMaps(strings.NewReader(bad)); err == nil {
			t.Errorf("accepted %.100q", bad)
		}
	}
}

// TestLongMaps has a maps file of several buffers, with lines across their ends.
func TestLongMaps(t *testing.T) {
	var text strings.Builder
	n := 0
	for ; text.Len() < 3*mapsBuffer; n++ {
		fmt.Fprintf(&text, "%x-%x r--p %x fe:%02x %d   /%s\n", n<<12, (n+1)<<12, n, n/8, n/8, strings.Repeat("y", n/8%100))
	}
	maps, err := parseMaps(iotest.OneByteReader(strings.NewReader(text.String())))
	if err != nil || len(maps) != n {
		t.Fatal(len(maps), err)
	}
	for i, m := range maps {
		want := Mapping{
			Range: specs.Range[specs.Addr]{Lo: specs.Addr(i << 12), Hi: specs.Addr((i + 1) << 12)}, Perm: "r--p", Offset: uint64(i),
			Dev: fmt.Sprintf("fe:%02x", i/8), Inode: uint64(i / 8), Path: "/" + strings.Repeat("y", i/8%100),
		}
		if m != want {
			t.Fatalf("line %d: %+v, want %+v", i, m, want)
		}
	}
	if _, err := parseMaps(iotest.TimeoutReader(strings.NewReader(text.String()))); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("a read that fails: %v", err)
	}
}

// fakeMemory is a process's memory at one address.
type fakeMemory struct {
	base specs.Addr
	data []byte
}

func (m *fakeMemory) ReadAt(b []byte, off int64) (int, error) {
	at := uint64(off) - uint64(m.base)
	if at >= uint64(len(m.data)) {
		return 0, errors.New("not mapped")
	}
	n := copy(b, m.data[at:])
	if n < len(b) {
		return n, errors.New("not mapped")
	}
	return n, nil
}

func (m *fakeMemory) ReadSpans(spans []ptrace.Span) error {
	for i := range spans {
		spans[i].N, _ = m.ReadAt(spans[i].Buf, int64(spans[i].Addr))
	}
	return nil
}

const fakeBase = specs.Addr(0x7000_0000_0000)

func goodRecord(tb testing.TB) []byte {
	r := &record{recordState: recordState{state: applied, leader: fakeBase}, recordBody: recordBody{
		ID:   specs.PatchID{BuildID: "abcd", Series: "default", Level: 3},
		Base: fakeBase, Size: 0x3000, Regions: [3]region{{0, 0x1000}, {0x1000, 0x1000}, {0x2000, 0x1000}}, Gates: region{0x1800, 0x100},
		State: region{0x2000, 0x1000}, Held: []specs.Range[specs.Addr]{{Lo: fakeBase - 0x1000, Hi: fakeBase}},
		Variables: []recordedVariable{{kpack.Variable{Name: "own", Size: 8}, fakeBase + 0x2008}, {kpack.Variable{Name: "held", Size: 8}, fakeBase - 8}},
		Functions: []recordedFunction{{Name: "f", Lo: 0x400000, Hi: 0x400100, Site: 0x400004, Entry: fakeBase + 0x1000,
			Old: []byte{1, 2, 3, 4, 5}, New: []byte{0xe9, 0, 0, 0, 0}, Gated: []byte{0xe9, 1, 0, 0, 0}, Gate: fakeBase + 0x1840}},
	}}
	b, err := r.encode(2048)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// seal puts the right checksum on a record, so that fuzzing gets behind it.
func seal(b []byte) []byte {
	b = bytes.Clone(b)
	n := int(binary.LittleEndian.Uint32(b[12:]))
	if n <= len(b)-recordFixed {
		sum := sha256.Sum256(b[recordFixed:][:n])
		copy(b[32:], sum[:])
	}
	return b
}

func FuzzRecord(f *testing.F) {
	f.Add(goodRecord(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < recordFixed {
			return
		}
		mem := &fakeMemory{fakeBase, seal(b)}
		r, err := readRecord(mem, fakeBase)
		if err != nil {
			return
		}
		m := r.memory()
		for i := range r.Regions {
			if p := r.part(i); p.Lo < m.Lo || p.Hi > m.Hi {
				t.Errorf("region %v outside %v", p, m)
			}
		}
		for _, fn := range r.Functions {
			if len(fn.Old) != len(fn.New) || len(fn.New) > maxEntry {
				t.Errorf("accepted %+v", fn)
			}
		}
		size := uint64(0)
		for _, z := range goingZones(r, nextCall) {
			size += z.Size()
		}
		if size != r.text().Size() {
			t.Errorf("zones of %d bytes for code of %d", size, r.text().Size())
		}
		size = r.block().Size()
		for _, m := range r.core() {
			if m.Lo > m.Hi {
				t.Errorf("memory %v", m.Range)
			}
			size += m.Size()
		}
		if want := r.Regions[0].Size + r.Regions[1].Size + r.Regions[2].Size; size != want {
			t.Errorf("%d bytes are freed of %d", size, want)
		}
		for _, v := range r.Variables {
			if !slices.ContainsFunc(r.blocks(), func(b specs.Range[specs.Addr]) bool { return b.Contains(v.At) }) {
				t.Errorf("variable at %v is in no block", v.At)
			}
		}
		r.describe()
	})
}

// TestRecordedState: what a process says of variables and blocks is bounded.
func TestRecordedState(t *testing.T) {
	for what, damage := range map[string]func(*record){
		"a block outside":   func(r *record) { r.State.Offset = 0x1000 },
		"too large a block": func(r *record) { r.State.Size = 0x2000 },
		"an empty block":    func(r *record) { r.Held[0].Hi = r.Held[0].Lo },
		"not of pages":      func(r *record) { r.Held[0].Lo++ },
		"an endless block":  func(r *record) { r.Held[0].Lo = 0x1000 },
		"too many blocks":   func(r *record) { r.Held = make([]specs.Range[specs.Addr], maxHeld+1) },
		"in no block":       func(r *record) { r.Variables[0].At = fakeBase },
		"beyond its block":  func(r *record) { r.Variables[1].Size = 9 },
		"without a size":    func(r *record) { r.Variables[1].Size = 0 },
		"hooks of no variable": func(r *record) {
			r.Hooks.Released = make([]specs.Addr, maxRecordedVariables+1)
			r.Hooks.All = make([]recordedHook, 1)
		},
	} {
		r, err := readRecord(&fakeMemory{fakeBase, goodRecord(t)}, fakeBase)
		if err != nil {
			t.Fatal(err)
		}
		damage(r)
		if r.check(fakeBase) == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

// TestRoomNearState: new code lies where it reaches the variables of the level that
// it replaces.
func TestRoomNearState(t *testing.T) {
	const gib = 1 << 30
	exe := mapped(0x5555_5555_0000, 0x5555_5556_0000, "/exe")
	for _, at := range []specs.Addr{exe.Range.Lo - 3*gib/2, exe.Range.Hi + 3*gib/2} {
		held := specs.Range[specs.Addr]{Lo: at, Hi: at + 0x1000}
		// All is full that is not on the other side.
		full := mapped(exe.Range.Lo-2*gib, exe.Range.Lo, "/x")
		if at > exe.Range.Lo {
			full = mapped(exe.Range.Hi, exe.Range.Hi+2*gib, "/x")
		}
		maps := []Mapping{exe, full, mapped(0x7fff_0000_0000, 0x7fff_0001_0000, "[stack]")}
		slices.SortFunc(maps, func(a, b Mapping) int { return compareAddr(a.Range.Lo, b.Range.Lo) })
		s := &step{patch: &kpack.Patch{Arch: arch.X86_64}, object: &object{image: &elfobj.Image{Range: exe.Range}}, layout: kpack.Layout{Size: 0x3000}, held: []specs.Range[specs.Addr]{held}}
		base, err := findRoom(maps, s, 4096)
		if err != nil {
			t.Fatal(err)
		}
		if lo, hi := min(base, held.Lo), max(base+0x3000, held.Hi); uint64(hi-lo) > dataReach {
			t.Errorf("%v is too far from %v", base, held)
		}
		s.held[0] = specs.Range[specs.Addr]{Lo: exe.Range.Hi + 5*gib, Hi: exe.Range.Hi + 5*gib + 0x1000}
		if base, err := findRoom(maps, s, 4096); !errors.Is(err, ErrNoMemory) {
			t.Errorf("%v, %v: nothing reaches both", base, err)
		}
	}
}

func TestRecordRoundTrip(t *testing.T) {
	b := goodRecord(t)
	maps := []Mapping{{Range: specs.Range[specs.Addr]{Lo: fakeBase, Hi: fakeBase + 0x1000}, Perm: "r--p"}}
	page := append(bytes.Clone(b), make([]byte, 4096-len(b))...)
	records, damaged, err := findRecords(&fakeMemory{fakeBase, page}, maps, 4096)
	if err != nil || len(damaged) > 0 || len(records) != 1 || records[0].ID.Level != 3 || records[0].Functions[0].Site != 0x400004 {
		t.Fatalf("%+v, %v, %v", records, damaged, err)
	}
	// A copy elsewhere is none.
	maps[0].Range = specs.Range[specs.Addr]{Lo: fakeBase + 0x10000, Hi: fakeBase + 0x11000}
	records, damaged, _ = findRecords(&fakeMemory{fakeBase + 0x10000, page}, maps, 4096)
	if len(records) != 0 || len(damaged) != 1 {
		t.Errorf("a copy: %v, %v", records, damaged)
	}
	// Writable memory holds none.
	maps[0].Perm = "rw-p"
	if records, damaged, _ = findRecords(&fakeMemory{fakeBase + 0x10000, page}, maps, 4096); len(records)+len(damaged) != 0 {
		t.Errorf("in writable memory: %v, %v", records, damaged)
	}
}

func mapped(lo, hi specs.Addr, path string) Mapping {
	return Mapping{Range: specs.Range[specs.Addr]{Lo: lo, Hi: hi}, Perm: "r-xp", Path: path}
}

func TestRoomIsWithinReach(t *testing.T) {
	const kib, mib, gib = 1 << 10, 1 << 20, 1 << 30
	exe := mapped(0x5555_5555_0000, 0x5555_5556_0000, "/exe")
	stack := mapped(0x7fff_0000_0000, 0x7fff_0001_0000, "[stack]")
	for _, c := range []struct {
		name string
		a    *arch.Arch
		maps []Mapping
		ok   bool
	}{
		{"alone", arch.X86_64, []Mapping{exe, stack}, true},
		{"alone", arch.AArch64, []Mapping{exe, stack}, true},
		{"full below", arch.X86_64, []Mapping{mapped(exe.Range.Lo-4*gib, exe.Range.Lo, "/x"), exe, stack}, true},
		{"full above", arch.X86_64, []Mapping{exe, mapped(exe.Range.Hi, exe.Range.Hi+4*gib, ""), stack}, true},
		{"full", arch.X86_64, []Mapping{mapped(exe.Range.Lo-4*gib, exe.Range.Lo, "/x"), exe, mapped(exe.Range.Hi, exe.Range.Hi+4*gib, ""), stack}, false},
		{"too far", arch.AArch64, []Mapping{mapped(exe.Range.Lo-200*mib, exe.Range.Lo, "/x"), exe, mapped(exe.Range.Hi, exe.Range.Hi+200*mib, ""), stack}, false},
		{"a hole", arch.AArch64, []Mapping{mapped(exe.Range.Lo-200*mib, exe.Range.Lo-300*kib, "/x"), exe, mapped(exe.Range.Hi, exe.Range.Hi+200*mib, ""), stack}, true},
		{"low", arch.X86_64, []Mapping{mapped(0x400000, 0x500000, "/exe"), mapped(0x500000, 0x600000, "[heap]"), stack}, true},
		{"large", arch.AArch64, []Mapping{exe, mapped(exe.Range.Hi, exe.Range.Hi+300*mib, "/exe"), stack}, true},
		{"large", arch.X86_64, []Mapping{exe, mapped(exe.Range.Hi, exe.Range.Hi+300*mib, "/exe"), stack}, true},
		{"larger", arch.AArch64, []Mapping{exe, mapped(exe.Range.Hi, exe.Range.Hi+3*gib, "/exe"), stack}, false},
		{"calls far", arch.AArch64, []Mapping{exe, mapped(exe.Range.Hi, exe.Range.Hi+300*mib, "/exe"), stack}, true}, // by a veneer
	} {
		target := exe.Range
		if c.name == "low" {
			target = c.maps[0].Range
		}
		image := target
		p := &kpack.Patch{Arch: c.a, Functions: []kpack.Function{{Original: specs.Range[specs.VAddr]{Lo: specs.VAddr(target.Lo), Hi: specs.VAddr(target.Hi)}}}}
		switch c.name {
		case "large", "larger", "calls far": // most of it is data
			image.Hi = c.maps[1].Range.Hi
		}
		if c.name == "calls far" {
			p.Symbols = []kpack.Symbol{{Name: "far", Binding: kpack.Original, Value: uint64(image.Hi) - 64, Func: true}}
			p.Sections = []kpack.Section{{Name: ".kpatch.text", Kind: kpack.Text, Relocs: []kpack.Reloc{{Type: uint32(elf.R_AARCH64_CALL26)}}}}
		}
		s := &step{
			patch:  p,
			object: &object{image: &elfobj.Image{Range: image}},
			layout: kpack.Layout{Size: 12 * kib},
		}
		base, err := findRoom(c.maps, s, 4096)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrNoMemory) {
			t.Errorf("%s, %v: %v, %v", c.name, c.a, base, err)
		}
		if err != nil {
			continue
		}
		end := base + specs.Addr(s.layout.Size)
		lo, hi := min(base, target.Lo), max(end, target.Hi)
		if uint64(hi-lo) > c.a.JumpReach || base%4096 != 0 {
			t.Errorf("%s, %v: %v is too far from %v", c.name, c.a, base, target)
		}
		for _, m := range c.maps {
			if m.Range.Overlaps(specs.Range[specs.Addr]{Lo: base, Hi: end}) {
				t.Errorf("%s, %v: %v overlaps %v", c.name, c.a, base, m.Range)
			}
		}
	}
}

func TestCallsAreKnown(t *testing.T) {
	for _, c := range []struct {
		a    *arch.Arch
		code []byte
		want bool
	}{
		{arch.X86_64, []byte{0x90, 0x90, 0xe8, 1, 2, 3, 4}, true},                    // call rel32
		{arch.X86_64, []byte{0x90, 0x90, 0x90, 0xff, 0xd0}, true},                    // call *%rax
		{arch.X86_64, []byte{0x41, 0xff, 0xd4}, true},                                // call *%r12
		{arch.X86_64, []byte{0xff, 0x15, 1, 2, 3, 4}, true},                          // call *x(%rip)
		{arch.X86_64, []byte{0xff, 0x54, 0x24, 0x08}, true},                          // call *8(%rsp)
		{arch.X86_64, []byte{0x5b, 0xc3, 0x66, 0x90, 0x0f, 0x1f, 0x44, 0, 0}, false}, // padding
		{arch.X86_64, []byte{0xc3}, false},                                           // ret
		{arch.AArch64, []byte{0x01, 0x00, 0x00, 0x94}, true},                         // bl
		{arch.AArch64, []byte{0x00, 0x00, 0x3f, 0xd6}, true},                         // blr x0
		{arch.AArch64, []byte{0x00, 0x08, 0x3f, 0xd7}, true},                         // blraa x0, x0
		{arch.AArch64, []byte{0xc0, 0x03, 0x5f, 0xd6}, false},                        // ret
		{arch.AArch64, []byte{0x1f, 0x20, 0x03, 0xd5}, false},                        // nop
		{arch.AArch64, []byte{0x94}, false},                                          // not a whole one
	} {
		if got := afterCall[c.a](c.code); got != c.want {
			t.Errorf("%v % x: %v", c.a, c.code, got)
		}
	}
}
