package main

import "testing"

func TestLacking(t *testing.T) {
	for status, want := range map[string]string{
		"Name:\tx\nCapEff:\t000001ffffffffff\n": "",
		"Name:\tx\nCapEff:\t000001fffff7ffff\n": "CAP_SYS_PTRACE ",
		"CapEff:\t00000000a80425fb\n":           "CAP_SYS_PTRACE CAP_SYS_ADMIN ", // a container's
		"CapEff:\t0000000000000000\n":           "CAP_SYS_PTRACE CAP_DAC_OVERRIDE CAP_SYS_ADMIN ",
		"Name:\tx\n":                            "",
	} {
		got := ""
		for _, c := range lacking([]byte(status)) {
			got += c.name + " "
			if c.without == "" {
				t.Errorf("%s: not said what cannot be done", c.name)
			}
		}
		if got != want {
			t.Errorf("%q: %q: want %q", status, got, want)
		}
	}
}
