package kpack

import (
	"debug/elf"
	"encoding/binary"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
	"github.com/fother/fother/specs/testenv"
)

// TestFieldsAArch64: each field takes what AAELF64 says it holds, and no more. Those that check
// nothing (_NC) take all.
func TestFieldsAArch64(t *testing.T) {
	const movz, ldr = 0xd2800005, 0x58000001
	for _, c := range []struct {
		typ  elf.R_AARCH64
		insn uint32
		v    int64
		want uint32 // 0 if the value does not fit
	}{
		{elf.R_AARCH64_MOVW_UABS_G0, movz, 0xffff, movz | 0xffff<<5},
		{elf.R_AARCH64_MOVW_UABS_G0, movz, 0x10000, 0},
		{elf.R_AARCH64_MOVW_UABS_G0, movz, -1, 0},
		{elf.R_AARCH64_MOVW_UABS_G0_NC, movz, -2, movz | 0xfffe<<5},
		{elf.R_AARCH64_MOVW_UABS_G1, movz, 0xabcd1234, movz | 0xabcd<<5},
		{elf.R_AARCH64_MOVW_UABS_G1, movz, 1 << 32, 0},
		{elf.R_AARCH64_MOVW_UABS_G1_NC, movz, 0x7_0001_0000, movz | 1<<5},
		{elf.R_AARCH64_MOVW_UABS_G2, movz, 0xffff_0000_0000, movz | 0xffff<<5},
		{elf.R_AARCH64_MOVW_UABS_G2, movz, 1 << 48, 0},
		{elf.R_AARCH64_MOVW_UABS_G2_NC, movz, 0x7_0003_0000_0000, movz | 3<<5},
		{elf.R_AARCH64_MOVW_UABS_G3, movz, -1 << 48, movz | 0xffff<<5},
		{elf.R_AARCH64_TLSLE_MOVW_TPREL_G2, movz, 0x5_0000_0010, movz | 5<<5},
		{elf.R_AARCH64_TLSLE_MOVW_TPREL_G2, movz, 1 << 48, 0},
		{elf.R_AARCH64_TLSLE_MOVW_TPREL_G1_NC, movz, 0x5_0002_0010, movz | 2<<5},
		{elf.R_AARCH64_GOT_LD_PREL19, ldr, 1<<20 - 4, ldr | 0x3ffff<<5},
		{elf.R_AARCH64_GOT_LD_PREL19, ldr, -1 << 20, ldr | 0x40000<<5},
		{elf.R_AARCH64_GOT_LD_PREL19, ldr, 1 << 20, 0},
		{elf.R_AARCH64_GOT_LD_PREL19, ldr, 2, 0},
		{relocPLT32AArch64, 0, 1<<31 - 1, 1<<31 - 1},
		{relocPLT32AArch64, 0, 1 << 31, 0},
	} {
		h := machineAArch64.relocs[uint32(c.typ)]
		field := binary.LittleEndian.AppendUint32(nil, c.insn)
		err := h.put(field, c.v)
		if got := binary.LittleEndian.Uint32(field); (err == nil) != (c.want != 0) || err == nil && got != c.want {
			t.Errorf("%s of %#x: %#x, %v, want %#x", h.name, c.v, got, err, c.want)
		}
	}
}

// tinyS is a program with data of its own, and its fix for the tiny code model.
const tinyS = `
	.text
	.globl _start, check, limit
	.type _start, %function
_start:	bl check
	.size _start, .-_start
	.type check, %function
check:	ret
	nop
	.size check, .-check
	.data
	.type limit, %object
limit:	.xword 7
	.size limit, 8
`

// tiny builds a patch of tinyS whose new body is the given instruction.
func tiny(t *testing.T, insn string) (*Patch, error) {
	t.Helper()
	tuple := arch.AArch64.Tuple
	testenv.Needs(t, tuple+"-as")
	at := filepath.Join(t.TempDir(), "tiny")
	tool(t, tuple+"-as", "-o", at+".o", write(t, at+".s", tinyS))
	tool(t, tuple+"-as", "-o", at+".p.o", write(t, at+".p.s",
		".section .kpatch.text,\"ax\",%progbits\n.globl check.kpatch\n.type check.kpatch, %function\ncheck.kpatch:\n"+insn+"\nret\n.size check.kpatch, .-check.kpatch\n"))
	tool(t, tuple+"-ld", "--build-id", "-o", at, at+".o")
	return Build(BuildInput{
		Arch: arch.AArch64, Name: "tiny", Original: open(t, at), Patched: open(t, at), Meta: Meta{Name: "test", Series: specs.DefaultSeries, Level: 1},
		Units: []BuildUnit{{Name: "tiny.s", Object: open(t, at+".p.o"), OriginalObject: open(t, at+".o"), Functions: []BuildFunction{{Original: "check", Label: "check.kpatch", Reason: "test"}}}},
	})
}

// TestTinyCodeModel: a GOT entry of the patch's own is near wherever the patch lies; what is
// in the target may not be, and is refused by name.
func TestTinyCodeModel(t *testing.T) {
	p, err := tiny(t, "ldr x1, :got:limit")
	if err != nil {
		t.Fatal(err)
	}
	l, err := p.Layout(4096, 64)
	if err != nil {
		t.Fatal(err)
	}
	const base = 0x5000000
	im, err := p.Link(l, base, 0, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	entry := im.Entries[0]
	w := binary.LittleEndian.Uint32(im.Text[entry-base-specs.Addr(l.Text.Offset):])
	slot := entry + specs.Addr(4*signed(w, 5, 19))
	var limit uint64
	for _, s := range p.Symbols {
		if s.Name == "limit" {
			limit = s.Value
		}
	}
	if got := get64(im.ROData[slot-base:]); got != limit || limit == 0 {
		t.Errorf("the entry at %v holds %#x, want limit at %#x", slot, got, limit)
	}
	for insn, want := range map[string]string{
		"adr x1, limit": `symbol "limit": is in the target, and R_AARCH64_ADR_PREL_LO21 reaches no further than a megabyte`,
		"ldr x1, limit": `symbol "limit": is in the target, and R_AARCH64_LD_PREL_LO19 reaches no further than a megabyte`,
		"adrp x1, _GLOBAL_OFFSET_TABLE_\nldr x1, [x1, #:gotpage_lo15:limit]": `symbol "limit": R_AARCH64_LD64_GOTPAGE_LO15 is not supported`,
	} {
		if _, err := tiny(t, insn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", insn, err, want)
		}
	}
}
