package asm

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// pointsByByte is what points.read finds in a text that begins and ends with a
// line, said byte by byte.
func pointsByByte(d *Dialect, text string) (offsets []int32) {
	class := classes(d)
	for k := range len(text) {
		c, before, head := text[k], byte('\n'), false
		if k > 0 {
			before = text[k-1]
			head = before == '\t' && (k == 1 || text[k-2] == '\n')
		}
		is := class[c] == classOdd || class[c] == classExact || strings.IndexByte(":=\r", c) >= 0
		switch {
		case before == '\n':
			is = c != '\t'
		case head:
			is = c < 'a' || c > 'z' || strings.IndexByte(d.naming, c) >= 0
		case class[before] == classDigit:
			is = is || c == 'b' || c == 'f'
		case class[before] == classPlain && d.bareWord == nil:
			is = is || class[c] == classIdent
		}
		if is {
			offsets = append(offsets, int32(k))
		}
	}
	return offsets
}

// TestPoints holds, for every pair of bytes and for texts of bytes that count,
// that the points are what they are byte by byte, wherever the blocks end.
func TestPoints(t *testing.T) {
	var pairs strings.Builder
	for pair := range 1 << 16 {
		if pairs.Write([]byte{byte(pair >> 8), byte(pair)}); pair%20 == 0 {
			pairs.WriteByte('\n')
		}
	}
	texts := []string{pairs.String() + "\n", "\t" + pairs.String() + "\n"}
	random := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		var s strings.Builder
		for range 1000 + random.IntN(2000) {
			s.WriteByte("\n\n\n\t\t\t  .,:;=#/'\"%$@()[]{}abfrzZ_L019\\!\r\x00\x80"[random.IntN(42)])
		}
		texts = append(texts, s.String()+"\n")
	}
	for _, d := range dialects {
		p := &points{table: newPointTable(d, classes(d))}
		for _, text := range texts {
			var got []int32
			i := 0
			for p.seek(text, i) {
				got = append(got, p.list[p.next:slices.Index(p.list[:], int32(p.to))]...)
				i = p.to
			}
			if len(text)-i > pointReach {
				t.Fatalf("%s: stopped at %d of %d", d.Arch.Name, i, len(text))
			}
			want := pointsByByte(d, text[:i])
			if !slices.Equal(got, want) {
				k := 0
				for k < len(got) && k < len(want) && got[k] == want[k] {
					k++
				}
				t.Fatalf("%s: point %d: %v, not %v in %q", d.Arch.Name, k, got[k:min(k+3, len(got))], want[k:min(k+3, len(want))], text[:min(len(text), 100)])
			}
		}
	}
}

// TestPointsSeek holds that points are found again for a line that was read, and
// that a line is refused that is too long or near the end of the text.
func TestPointsSeek(t *testing.T) {
	line := "\tcall\tf\n"
	text := strings.Repeat(line, 200)
	p := &points{table: newPointTable(&x86_64, classes(&x86_64))}
	for _, n := range []int{0, 7, 3, 4, 120, 60, 190} {
		if i := n * len(line); !p.seek(text, i) || int(p.list[p.next]) != i+len("\tcall\t") {
			t.Errorf("line %d: %d", n, p.list[p.next])
		}
	}
	for _, text := range []string{strings.Repeat("\tret\n", 12), strings.Repeat("x", pointReach) + "\n" + text} {
		if p.seek(text, 0) {
			t.Errorf("read %q", text[:40])
		}
	}
}

// TestLabelAt holds that a label is the same whether it is read by its first
// bytes or by its whole name.
func TestLabelAt(t *testing.T) {
	f := newFamilies(0)
	const behind = ":\n\tret\n\tret\n"
	for range 2 { // with the families that are known then
		for _, name := range []string{".L7", ".L0", ".L07", ".L12345678", ".L123456789", ".L", ".Lx", ".LC7", ".LC07", ".LC007", ".LC0", ".LC",
			".LBB7_12", ".LBB7_0", ".LBB7_00", ".LBB71_2", ".L7b", ".L7$", ".L7.8", ".Lfunc_end10", ".LVL87654321", ".LVL987654321", ".L\xff1"} {
			for _, text := range []string{name + behind, name + "\n", name + "+4(%rip), %rax\n"} {
				got, end := f.at(text, 0)
				if want := f.of(name); got != want || end != len(name) {
					t.Errorf("%q: %v up to %d, not %v up to %d", text, got, end, want, len(name))
				}
			}
		}
	}
	for _, digits := range []string{"1", "42", "907", "1234", "99999", "100000", "7654321", "10203040"} {
		want := int32(0)
		for _, c := range digits {
			want = 10*want + c - '0'
		}
		if n, end := number8(digits+behind, 0); n != want || end != len(digits) {
			t.Errorf("%s: %d up to %d", digits, n, end)
		}
	}
}

func TestCommon(t *testing.T) {
	const text = "\tmovq\t%rax, 8(%rdi)\n\tcall\tmemcpy@PLT\n"
	for n := range len(text) {
		for m := range n + 1 {
			for bit := range 8 {
				other := text[:m] + string([]byte{text[m] ^ 1<<bit}) + text[m+1:]
				if got := common(text[:n], other); got != m {
					t.Errorf("%d of %d: %d", m, n, got)
				}
				if got := common(other, text[:n]); got != m {
					t.Errorf("%d of %d, the other way round: %d", m, n, got)
				}
			}
			if got := common(text[:m], text); got != m {
				t.Errorf("the first %d: %d", m, got)
			}
		}
	}
}

func TestIndirect(t *testing.T) {
	for operands, want := range map[string]bool{
		"\tx0, [x1]": true, "\tx0, [x1, 8]!\n\tret\n": true, "\tx0, [x1], 16\n": true, "\tx0, [x1, #:lo12:a]\n": true, "\tx0, [x1]!": true,
		"\tx0, .LC1\n": false, "\tx0, x1, [x2]\n": false, "\tx0, =a\n": false, "\tx0\n\tldr\tx0, [x1]\n": false,
		"\tx0, [x1\n\tldr\tx0, [x1]\n": false, "\tx0, [x1": false, "\tx0, [x1]!a\n": false, "\tx0, [x1] a\n": false, "\tx0": false, "": false,
	} {
		if got := a64Indirect(operands); got != want {
			t.Errorf("%q: %v", operands, got)
		}
	}
}
