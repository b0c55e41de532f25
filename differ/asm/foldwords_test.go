package asm

import "testing"

// TestCandidates holds, for each pair of bytes in each place, that no byte is
// passed over that shares a bit with the one before it.
func TestCandidates(t *testing.T) {
	for _, d := range dialects {
		p := plainBytes(d, classes(d))
		const fill = ' ' * each
		for at := range 8 {
			for pair := range 1 << 16 {
				x, y := uint64(pair>>8), uint64(pair&255)
				if p.candidates('a'*each, x*each) != 0 {
					continue // skip looks behind it
				}
				behind := fill&^(255<<(8*at)) | y<<(8*at)
				before := fill&^(255<<(8*at)) | x<<(8*at)
				found := p.candidates(before, behind)
				if p.before[x]&p.behind[y] != 0 && found>>(8*at)&0x40 == 0 {
					t.Fatalf("%s: %q behind %q at %d is passed over", d.Arch.Name, rune(y), rune(x), at)
				}
				if found&^bit6 != 0 {
					t.Fatalf("%s: %q behind %q: %#x", d.Arch.Name, rune(y), rune(x), found)
				}
			}
		}
		for _, plain := range []string{"\tmovq\t%rax, 8(%rdi) ", "\tldr\tx0, [sp, 16] \t "} {
			if d.Registers == 0 == (plain[2] == 'o') {
				continue
			}
			if found := p.candidates(word(plain[5:]), word(plain[6:])); found != 0 {
				t.Errorf("%s: %q: %#x", d.Arch.Name, plain, found)
			}
		}
	}
}
