package verify

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/fother/fother/kpack/elfobj"
	"github.com/fother/fother/specs/testenv"
)

// TestLengths: the decoder finds the same instructions as objdump.
func TestLengths(t *testing.T) {
	testenv.Needs(t, "objdump")
	files, _ := filepath.Glob("/lib/x86_64-linux-gnu/lib[cm].so.6")
	files = append(files, strings.Fields(os.Getenv("VERIFY_LENGTHS"))...)
	if len(files) == 0 {
		testenv.Skip(t, "no x86_64 libc on this host")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { lengths(t, file) })
	}
}

func lengths(t *testing.T, file string) {
	f, err := elfobj.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	s := f.Section(".text")
	code, err := s.Data()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("objdump", "-d", "-w", "-j", ".text", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	total, wrong := 0, 0
	var in insn
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		field := strings.SplitN(sc.Text(), "\t", 3)
		if len(field) < 2 || !strings.HasSuffix(field[0], ":") {
			continue
		}
		addr, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(field[0], ":")), 16, 64)
		if err != nil {
			continue
		}
		want := len(strings.Fields(field[1]))
		if len(field) < 3 || strings.Contains(field[2], "(bad)") {
			want = 1
		}
		decodeX86_64(code[addr-uint64(s.Addr):], addr, &in)
		if strings.HasPrefix(field[1], "9b ") && want > 1 {
			want = 1 // objdump shows fwait with the instruction after it
		}
		if total++; int(in.size) != want {
			if wrong++; wrong <= 40 {
				t.Errorf("%d bytes: objdump has %s", in.size, sc.Text())
			}
		}
	}
	t.Logf("%d instructions, %d differ", total, wrong)
	if total < 1000 {
		t.Errorf("only %d instructions", total)
	}
}
