package kpack

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// TestRedirect has rows of entry bytes and the jump that takes their place.
// Bytes are as objdump shows them, words of aarch64 least significant byte
// first.
func TestRedirect(t *testing.T) {
	const from = specs.Addr(0x401000)
	tests := []struct {
		arch  *arch.Arch
		entry string
		to    specs.Addr
		site  specs.Addr
		code  string
		err   string
	}{
		{arch.X86_64, "5548 89e5 c3", from + 0x1000, from, "e9 fb0f0000", ""},
		{arch.X86_64, "5548 89e5 c3", from - 0x1000, from, "e9 fbefffff", ""},
		{arch.X86_64, "5548 89e5 c3", from + 1<<31, from, "e9 fbffff7f", ""},
		{arch.X86_64, "5548 89e5 c3", from + 1<<31 + 5, 0, "", "does not fit into 32 bits"},
		{arch.X86_64, "5548 89e5", from + 0x1000, 0, "", "needs 5 bytes and there is room for 4"},
		{arch.X86_64, "f30f1efa 5548 89e5 c3", from + 0x1000, from + 4, "e9 f70f0000", ""},
		{arch.X86_64, "f30f1efa 31c0 c3 90", from + 0x1000, 0, "", "needs 9 bytes and there is room for 8"},
		{arch.X86_64, "", from, 0, "", "room for 0"},
		{arch.AArch64, "fd7bbfa9 fd030091", from + 0x1000, from, "00040014", ""},
		{arch.AArch64, "fd7bbfa9", from - 4, from, "ffffff17", ""},
		{arch.AArch64, "5f2403d5 fd7bbfa9", from + 0x1000, from + 4, "ff030014", ""}, // bti c
		{arch.AArch64, "df2403d5 fd7bbfa9", from + 0x1000, from + 4, "ff030014", ""}, // bti jc
		{arch.AArch64, "3f2303d5 fd7bbfa9", from + 0x1000, from, "5f2403d5 ff030014", ""},
		{arch.AArch64, "7f2303d5 fd7bbfa9", from + 0x1000, from, "5f2403d5 ff030014", ""},
		{arch.AArch64, "3f2303d5", from + 0x1000, 0, "", "needs 8 bytes and there is room for 4"},
		{arch.AArch64, "5f2403d5", from + 0x1000, 0, "", "needs 8 bytes and there is room for 4"},
		{arch.AArch64, "fd7b", from + 0x1000, 0, "", "needs 4 bytes and there is room for 2"},
		{arch.AArch64, "fd7bbfa9", from + 1<<27, 0, "", "does not fit into 28 bits"},
		{arch.AArch64, "fd7bbfa9", from + 2, 0, "", "does not fit"},
	}
	for _, tt := range tests {
		t.Run(tt.arch.Name+" "+tt.entry, func(t *testing.T) {
			site, code, err := Redirect(tt.arch, unhex(t, tt.entry), 0, from, tt.to)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(tt.err, "room") != errors.Is(err, ErrTooShort) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || site != tt.site || string(code) != string(unhex(t, tt.code)) {
				t.Errorf("%v at %v, error %v, want %s at %v", hex.EncodeToString(code), site, err, tt.code, tt.site)
			}
		})
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPadding: what follows a function and is not code of another.
func TestPadding(t *testing.T) {
	tests := []struct {
		m     *machine
		bytes string
		want  int
	}{
		{machineX86_64, "", 0},
		{machineX86_64, "90", 1},
		{machineX86_64, "6690 0f1f00", 5},
		{machineX86_64, "0f1f4000 0f1f440000", 9},
		{machineX86_64, "660f1f440000", 6},
		{machineX86_64, "0f1f8000000000", 7},
		{machineX86_64, "0f1f840000000000 55", 8},
		{machineX86_64, "662e0f1f840000000000", 10},
		{machineX86_64, "66662e0f1f840000000000", 11},
		{machineX86_64, "cccccc 0000 c3", 5},
		{machineX86_64, "55", 0},
		{machineX86_64, "f30f1efa", 0}, // endbr64: the next function
		{machineX86_64, "0f1f84", 0},   // cut
		{machineX86_64, "660f0b", 0},   // ud2
		{machineAArch64, "1f2003d5 00000000 5f2403d5", 8},
		{machineAArch64, "1f2003", 0},
		{machineAArch64, "c0035fd6", 0},
	}
	for _, tt := range tests {
		if got := tt.m.padding(unhex(t, tt.bytes)); got != tt.want {
			t.Errorf("%v: %s: %d bytes of padding, want %d", tt.m.arch, tt.bytes, got, tt.want)
		}
	}
}
