package ptrace

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Instructions of filters, as linux/filter.h has them.
func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func branch(op uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op, Jt: yes, Jf: no, K: k}
}

const (
	load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	give    = unix.BPF_RET | unix.BPF_K
	compare = unix.BPF_JEQ | unix.BPF_K
)

// TestVerdict: a filter's answer to a call, as far as it follows from what is known.
func TestVerdict(t *testing.T) {
	let, kill := stmt(give, unix.SECCOMP_RET_ALLOW), stmt(give, unix.SECCOMP_RET_KILL_PROCESS)
	call := Call{"clone", 56, []uint64{0x1_003d0f00}}
	for _, c := range []struct {
		name string
		f    filter
		want uint32
		err  string
	}{
		{"lets all", filter{let}, unix.SECCOMP_RET_ALLOW, ""},
		{"refuses with a number", filter{stmt(give, unix.SECCOMP_RET_ERRNO|7)}, unix.SECCOMP_RET_ERRNO, ""},
		{"of another architecture", filter{stmt(load, 4), branch(compare, auditArch, 1, 0), kill, let}, unix.SECCOMP_RET_ALLOW, ""},
		{"by number", filter{stmt(load, 0), branch(compare, 56, 0, 1), kill, let}, unix.SECCOMP_RET_KILL_PROCESS, ""},
		{"by another number", filter{stmt(load, 0), branch(compare, 57, 0, 1), kill, let}, unix.SECCOMP_RET_ALLOW, ""},
		{"a number above", filter{stmt(load, 0), branch(unix.BPF_JGT, 55, 0, 1), kill, let}, unix.SECCOMP_RET_KILL_PROCESS, ""},
		{"a number from", filter{stmt(load, 0), branch(unix.BPF_JGE, 56, 0, 1), kill, let}, unix.SECCOMP_RET_KILL_PROCESS, ""},
		{"flags, as systemd has it", filter{stmt(load, 16), branch(unix.BPF_JSET, 0x10000000, 0, 1), kill, let}, unix.SECCOMP_RET_ALLOW, ""},
		{"flags that are there", filter{stmt(load, 16), branch(unix.BPF_JSET, 0x10000, 0, 1), kill, let}, unix.SECCOMP_RET_KILL_PROCESS, ""},
		{"the upper half", filter{stmt(load, 20), branch(compare, 1, 0, 1), kill, let}, unix.SECCOMP_RET_KILL_PROCESS, ""},
		{"a jump", filter{stmt(unix.BPF_JMP|unix.BPF_JA, 1), kill, let}, unix.SECCOMP_RET_ALLOW, ""},
		{"memory and arithmetic", filter{
			stmt(load, 0), stmt(unix.BPF_ALU|unix.BPF_ADD, 4), stmt(unix.BPF_ST, 15), // 60
			stmt(unix.BPF_LDX|unix.BPF_MEM, 15), stmt(unix.BPF_LD|unix.BPF_IMM, 3600), stmt(unix.BPF_ALU|unix.BPF_DIV|unix.BPF_X, 0), // 60
			branch(unix.BPF_JEQ|unix.BPF_X, 0, 0, 1), kill, let,
		}, unix.SECCOMP_RET_KILL_PROCESS, ""},
		{"the size of the data, by way of X", filter{
			stmt(unix.BPF_LDX|unix.BPF_LEN, 0), stmt(unix.BPF_MISC|unix.BPF_TXA, 0), stmt(unix.BPF_ALU|unix.BPF_LSH, 25), stmt(unix.BPF_RET|unix.BPF_A, 0),
		}, unix.SECCOMP_RET_KILL_PROCESS, ""},
		{"where it comes from", filter{stmt(load, 8), let}, 0, errUnknown.Error()},
		{"an argument that is not known", filter{stmt(load, 24), let}, 0, errUnknown.Error()},
		{"outside", filter{stmt(load, 64), let}, 0, "outside"},
		{"memory outside", filter{stmt(unix.BPF_ST, 16), let}, 0, "outside"},
		{"memory outside, read", filter{stmt(unix.BPF_LD|unix.BPF_MEM, 16), let}, 0, "instruction"},
		{"by nothing", filter{stmt(unix.BPF_ALU|unix.BPF_DIV, 0), let}, 0, "operation"},
		{"without end", filter{stmt(load, 0), stmt(unix.BPF_JMP|unix.BPF_JA, 1<<32-1)}, 0, "does not end"},
	} {
		got, err := c.f.verdict(&call)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %#x, %v", c.name, got, err)
		}
	}
}

// TestDeniedError: it names the call and what is done to it.
func TestDeniedError(t *testing.T) {
	for want, e := range map[string]*DeniedError{
		"the seccomp filter of thread 7 ends the process for clone": {7, "clone", denials[unix.SECCOMP_RET_KILL_PROCESS]},
		"the seccomp filter of thread 7 cannot be read: why":        {7, "", "cannot be read: why"},
	} {
		if e.Error() != want {
			t.Errorf("%v, want %s", e, want)
		}
	}
	if _, err := Permitted(1<<30, 1<<30, nil); err != nil && !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

// FuzzVerdict: whatever a program says, it comes to an end.
func FuzzVerdict(f *testing.F) {
	f.Add([]byte{0x20, 0, 0, 0, 0, 0, 0, 0, 0x06, 0, 0, 0, 0, 0, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p filter
		for ; len(b) >= 8; b = b[8:] {
			p = append(p, unix.SockFilter{
				Code: uint16(b[0]) | uint16(b[1])<<8, Jt: b[2], Jf: b[3], K: uint32(b[4]) | uint32(b[5])<<8 | uint32(b[6])<<16 | uint32(b[7])<<24,
			})
		}
		p.verdict(&Call{"read", 0, []uint64{1, 2}})
	})
}
