package verify

import "testing"

// TestForms: what assemblers, linkers and compilers may write in several forms
// has one shape, and what means something else has another.
func TestForms(t *testing.T) {
	shape := func(code string) [maxInsn + 1]byte {
		t.Helper()
		var in insn
		decodeX86_64([]byte(code), 0x1000, &in)
		if int(in.size) != len(code) || in.bad {
			t.Errorf("% x: %d bytes", code, in.size)
		}
		if in.via {
			return directX86_64(&in)
		}
		return in.shape
	}
	for _, c := range []struct {
		name, a, b string
		same       bool
	}{
		{"shl %eax", "\xd1\xe0", "\xc1\xe0\x01", true},
		{"shr %al", "\xd0\xe8", "\xc0\xe8\x01", true},
		{"sar %rdx", "\x48\xd1\xfa", "\x48\xc1\xfa\x01", true},
		{"rol %cx", "\x66\xd1\xc1", "\x66\xc1\xc1\x01", true},
		{"sarl 8(%rsp)", "\xd1\x7c\x24\x08", "\xc1\x7c\x24\x08\x01", true},
		{"rcr %r9d", "\x41\xd1\xd9", "\x41\xc1\xd9\x01", true},
		{"shll 8(%rip)", "\xd1\x25\x08\x00\x00\x00", "\xc1\x25\x07\x00\x00\x00\x01", true},
		{"shl by 1 and by 2", "\xd1\xe0", "\xc1\xe0\x02", false},
		{"shl by 0 and by 1", "\xc1\xe0\x00", "\xc1\xe0\x01", false},
		{"shl by 33 and by 1", "\xc1\xe0\x21", "\xc1\xe0\x01", false},
		{"shl and shr", "\xd1\xe0", "\xc1\xe8\x01", false},
		{"shl %eax and %al", "\xd1\xe0", "\xc0\xe0\x01", false},
		{"shl by 1 and by %cl", "\xd3\xe0", "\xc1\xe0\x01", false},
		{"cmp $address, %rax", "\x48\x3d\x60\x12\x40\x00", "\x48\x81\xf8\x60\x12\x40\x00", true},
		{"add $address, %eax", "\x05\x60\x12\x40\x00", "\x81\xc0\x60\x12\x40\x00", true},
		{"test $address, %rax", "\x48\xa9\x60\x12\x40\x00", "\x48\xf7\xc0\x60\x12\x40\x00", true},
		{"cmp $address, %rax and %eax", "\x48\x3d\x60\x12\x40\x00", "\x81\xf8\x60\x12\x40\x00", false},
		{"cmp $address, %rax and %rcx", "\x48\x3d\x60\x12\x40\x00", "\x48\x81\xf9\x60\x12\x40\x00", false},
		{"cmp $address, %rax and %r8", "\x48\x3d\x60\x12\x40\x00", "\x49\x81\xf8\x60\x12\x40\x00", false},
		{"cmp $address and sub, %rax", "\x48\x3d\x60\x12\x40\x00", "\x48\x81\xe8\x60\x12\x40\x00", false},
		{"cmp and test $address, %eax", "\x3d\x60\x12\x40\x00", "\xa9\x60\x12\x40\x00", false},
		{"mov $address, %esi and %rsi", "\xbe\x98\x3d\x40\x00", "\x48\xc7\xc6\x98\x3d\x40\x00", true},
		{"mov $address, %esi and mov entry(%rip), %rsi", "\xbe\x98\x3d\x40\x00", "\x48\x8b\x35\xc9\xf0\xff\xff", true},
		{"mov $address, %r9d and mov entry(%rip), %r9", "\x41\xb9\x98\x3d\x40\x00", "\x4c\x8b\x0d\xc9\xf0\xff\xff", true},
		{"mov $address, %edi and %rsi", "\xbf\x98\x3d\x40\x00", "\x48\xc7\xc6\x98\x3d\x40\x00", false},
		{"mov $address, %si", "\x66\xbe\x98\x3d", "\x48\xc7\xc6\x98\x3d\x40\x00", false},
	} {
		if got := shape(c.a) == shape(c.b); got != c.same {
			t.Errorf("%s: the same: %v, want %v", c.name, got, c.same)
		}
	}
	var a, b insn
	decodeX86_64([]byte("\xd1\x25\x08\x00\x00\x00"), 0x1000, &a)
	decodeX86_64([]byte("\xc1\x25\x07\x00\x00\x00\x01"), 0x1000, &b)
	if a.ref != b.ref {
		t.Errorf("shll at %#x and at %#x", a.ref[0].value, b.ref[0].value)
	}
}
