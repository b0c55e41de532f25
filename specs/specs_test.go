package specs

import (
	"strings"
	"testing"
)

func TestBias(t *testing.T) {
	for _, test := range []struct {
		bias Bias
		v    VAddr
		a    Addr
	}{
		{0, 0x401000, 0x401000},
		{0x555555554000, 0x1139, 0x555555555139},
		{^Bias(0x400000 - 1), 0x401000, 0x1000}, // loaded below its link-time address
	} {
		if got := test.bias.Addr(test.v); got != test.a {
			t.Errorf("bias %#x: address of %v is %v, want %v", test.bias, test.v, got, test.a)
		}
		if got := test.bias.VAddr(test.a); got != test.v {
			t.Errorf("bias %#x: link-time address of %v is %v, want %v", test.bias, test.a, got, test.v)
		}
	}
}

func TestRange(t *testing.T) {
	r := Range[Addr]{0x1000, 0x2000}
	for a, want := range map[Addr]bool{0xfff: false, 0x1000: true, 0x1fff: true, 0x2000: false} {
		if r.Contains(a) != want {
			t.Errorf("%v contains %v: want %v", r, a, want)
		}
	}
	for o, want := range map[Range[Addr]]bool{{0, 0x1000}: false, {0, 0x1001}: true, {0x1fff, 0x3000}: true, {0x2000, 0x3000}: false} {
		if r.Overlaps(o) != want {
			t.Errorf("%v overlaps %v: want %v", r, o, want)
		}
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "ab": "", "abc": "", "xyz0": "", "ABCD": "abcd", "00ff": "00ff",
		strings.Repeat("00", 64): strings.Repeat("00", 64), strings.Repeat("00", 65): "",
	} {
		got, err := ParseBuildID(s)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("build-id %q: %q, %v", s, got, err)
		}
	}
	for s, ok := range map[string]bool{"": false, "default": true, "a/b": false, "..": false, "-x": false, "1.2_x-y": true, strings.Repeat("a", 65): false, "ä": false} {
		if _, err := ParseSeries(s); (err == nil) != ok {
			t.Errorf("series %q: %v", s, err)
		}
	}
	for s, want := range map[string]Level{"": 0, "0": 0, "1": 1, "-1": 0, "4294967295": 4294967295, "4294967296": 0, "1x": 0} {
		if got, err := ParseLevel(s); got != want || (err == nil) != (want != 0) {
			t.Errorf("level %q: %d, %v", s, got, err)
		}
	}
}

func TestDigestText(t *testing.T) {
	d := DigestOf([]byte("fother"))
	text, err := d.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var back Digest
	if err := back.UnmarshalText(text); err != nil || back != d {
		t.Errorf("%s became %v, %v", text, back, err)
	}
	for _, bad := range []string{"", "00", strings.Repeat("g", 64), strings.Repeat("0", 66)} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a digest", bad)
		}
	}
}
