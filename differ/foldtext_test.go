package differ_test

import (
	"strings"
	"testing"

	"github.com/fother/fother/differ"
	"github.com/fother/fother/specs/arch"
)

// withTable is a function with a jump table and a cold part that has an exception
// table, as gcc writes them.
const withTable = `	.section	.text.unlikely,"ax",@progbits
.LCOLDB1:
	.text
.LHOTB1:
	.globl	f
	.type	f, @function
f:
.LFB0:
	.cfi_startproc
	cmpl	$3, %edi
	ja	.L2
	movl	%edi, %edi
	movslq	.L4(,%rdi,4), %rax
	jmp	*%rax
	.section	.rodata
	.align 4
.L4:
	.long	.L5-.L4
	.long	.L6-.L4
	.text
.L5:
	movl	$1, %eax
	ret
.L6:
	call	g
	ret
	.cfi_endproc
	.section	.text.unlikely
	.cfi_startproc
	.type	f.cold, @function
f.cold:
.L2:
	call	abort
	.cfi_endproc
.LFE0:
	.section	.gcc_except_table,"a",@progbits
.LLSDAC0:
	.byte	0xff
	.uleb128 .L2-.LCOLDB1
	.text
	.size	f, .-f
	.section	.text.unlikely
	.size	f.cold, .-f.cold
.LCOLDE1:
	.text
.LHOTE1:
	.type	h, @function
h:
	movl	$2, %eax
	ret
	.size	h, .-h
	.section	.rodata
	.align 4
.L9:
	.long	1
`

// TestFoldStructure changes the lines that say where functions and tables begin
// and end, in one build: to leave out the statements of functions that are alike
// must make no difference.
func TestFoldStructure(t *testing.T) {
	for name, edit := range map[string][2]string{
		"other home":            {"\t.text\n.LHOTB1:", ".LHOTB1:"},
		"home is the table's":   {"\t.text\n.LHOTB1:", "\t.section\t.rodata\n.LHOTB1:"},
		"split table":           {"\t.long\t.L6-.L4\n", "\t.p2align 2\n\t.long\t.L6-.L4\n"},
		"table without label":   {".L9:\n", ""},
		"table goes on":         {"\t.align 4\n.L9:\n", ""},
		"only aligned":          {"\t.align 4\n.L9:\n", ".L9:\n"},
		"bytes before":          {"\t.section\t.text.unlikely,\"ax\",@progbits\n", "\t.section\t.rodata\n.L8:\n\t.section\t.text.unlikely,\"ax\",@progbits\n"},
		"cold part goes on":     {"\t.size\tf.cold, .-f.cold\n", "\tnop\n\t.size\tf.cold, .-f.cold\n"},
		"cold part without end": {"\t.size\tf.cold, .-f.cold\n", ""},
		"end behind the size":   {"\t.size\tf.cold, .-f.cold\n", "\t.size\tf.cold, .-f.cold\n\t.cfi_endproc\n"},
		"other type":            {"\t.type\th, @function\n", "\t.type\th, @object\n"},
		"type of another":       {"\t.type\tf.cold, @function\n", "\t.type\tf.cold.2, @function\n"},
		"empty visit":           {"\t.text\n\t.size\tf, .-f\n", "\t.section\t.text.unlikely\n\t.text\n\t.size\tf, .-f\n"},
		"no size":               {"\t.size\tf, .-f\n", ""},
		"open string":           {"\t.cfi_startproc\n\tcmpl", "\t.cfi_startproc\"\n\tcmpl"},
		"hidden label":          {"\tmovl\t$2, %eax\n", "\tleaq\t.LCOLDB1(%rip), %rax\n"},
		"other base":            {".L2-.LCOLDB1", ".L2-.LHOTB1"},
		"base without part":     {".LCOLDB1:\n\t.text\n", "\t.text\n.LCOLDB1:\n"},
		"base is no base":       {".LCOLDB1:\n", ".LCOLDB1:\n\tnop\n"},
		"base that others use":  {"\tmovl\t$2, %eax\n", "\tmovl\t$.LCOLDB1-.LHOTB1, %eax\n"},
		"label in a table":      {"\tmovl\t$2, %eax\n", "\tleaq\t.L4(%rip), %rax\n"},
		"first flags":           {"\t.section\t.text.unlikely,\"ax\",@progbits\n", "\t.section\t.rodata,\"aw\"\n\t.section\t.text.unlikely,\"ax\",@progbits\n"},
	} {
		patched := strings.Replace(withTable, edit[0], edit[1], 1)
		if patched == withTable {
			t.Errorf("%s: nothing was changed", name)
		}
		for _, texts := range [][2]string{{withTable, patched}, {patched, withTable}, {patched, patched}} {
			t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
				set, err := differ.DiffBoth(t, differ.Input{Unit: "u.c", Arch: arch.X86_64, Original: []byte(texts[0]), Patched: []byte(texts[1])})
				if err == nil && texts[0] == texts[1] && set.Assembly != nil {
					t.Errorf("a unit and itself differ:\n%s", set.Assembly)
				}
			})
		}
	}
}

// TestFoldsWhatIsAlike holds that nothing that compilers write makes the differ
// read all statements of a function that both builds have alike.
func TestFoldsWhatIsAlike(t *testing.T) {
	for name, edit := range map[string][]string{
		"exception table of a cold part":   {"", ""},
		"numbers of a function among many": {".LFB0", ".LFB18000", ".LFE0", ".LFE18000", "AC0", "AC18000"},
		"position in a comment":            {"\tcmpl", "\t.loc\t0 9 0  # unit.cc:9:0\n\tcmpl"},
	} {
		original := withTable
		for ; len(edit) > 0; edit = edit[2:] {
			if strings.Count(original, edit[0]) == 0 {
				t.Errorf("%s: nothing was changed", name)
			}
			original = strings.Replace(original, edit[0], edit[1], 1)
		}
		patched := strings.Replace(original, "movl\t$2", "movl\t$3", 1)
		if in := (differ.Input{Unit: "u.c", Arch: arch.X86_64, Original: []byte(original), Patched: []byte(patched)}); !differ.Folds(t, in) {
			t.Errorf("%s: all statements were read", name)
		}
	}
}

// TestBlockOfItself holds that the comparison of a block that refers to itself
// ends, and that such a block is what it is.
func TestBlockOfItself(t *testing.T) {
	const text = "\t.data\n\t.set\t.LANCHOR0,. + 0\n\t.type\tx, %object\n\t.size\tx, 8\nx:\n\t.xword\t.LANCHOR0\n\t.type\ty, %object\ny:\n\t.xword\t1\n" +
		"\t.text\n\t.type\tf, %function\nf:\n\tadrp\tx0, .LANCHOR0\n\tret\n\t.size\tf, .-f\n"
	for patched, same := range map[string]bool{text: true, strings.Replace(text, "\t1\n", "\t2\n", 1): false} {
		set, err := differ.DiffBoth(t, differ.Input{Unit: "u.c", Arch: arch.AArch64, Original: []byte(text), Patched: []byte(patched)})
		if same != (err == nil && set.Assembly == nil) {
			t.Errorf("same %v: %v, %v", same, set, err)
		}
	}
}
