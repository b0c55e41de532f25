package shim

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestModify(t *testing.T) {
	for _, test := range []struct{ name, remove, add, args, want string }{
		{"nothing set", "", "", "-g -c a.c", "-g -c a.c"},
		{"removed", "-g;-O2", "", "-g -O2 -c a.c", "-c a.c"},
		{"every one", "-g", "", "-g -c -g a.c", "-c a.c"},
		{"whole arguments only", "-g", "", "-g3 -c a.c", "-g3 -c a.c"},
		{"added at the end", "", "-DX;-O1", "-c a.c -o a.o", "-c a.c -o a.o -DX -O1"},
		{"empty parts", ";;-g;", ";-DX;;", "-g -c a.c", "-c a.c -DX"},
		{"files stay", "a.c;-", "", "-c a.c", "-c a.c"},
		{"standard input", "-g", "-DX", "-g -xc -", "-xc - -DX"},
		{"a link", "", "-Wl,-q", "a.o -o a", "a.o -o a -Wl,-q"},
		{"preprocessing", "-g", "-DX", "-g -E a.c", "-g -E a.c"},
		{"a question", "-v", "-DX", "-v", "-v"},
		{"a question about a program", "", "-DX", "-print-prog-name=ld", "-print-prog-name=ld"},
		{"no input", "", "-DX", "-o a", "-o a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv(EnvRemoveArgs, test.remove)
			t.Setenv(EnvAppendArgs, test.add)
			args := strings.Fields(test.args)
			if got := strings.Join(modify(args), " "); got != test.want {
				t.Errorf("%q, want %q", got, test.want)
			}
			if strings.Join(args, " ") != test.args {
				t.Error("the caller's arguments are changed")
			}
		})
	}
}

// TestModifyStages: arguments are changed where the build is captured, and
// never for a configure script.
func TestModifyStages(t *testing.T) {
	bin, s := sandbox(t)
	for _, name := range []string{"libcare-cc", "fother-cc", "fother-c++"} {
		self(t, filepath.Join(bin, name))
	}
	script(t, filepath.Join(bin, "real"), `printf '%s|' "$@"`)
	for _, test := range []struct{ command, stage, want string }{
		{"libcare-cc -g -c a.c", "original", "-c|a.c|-DX|"},
		{"fother-cc -g -c a.c", "patched", "-c|a.c|-DX|"},
		{"fother-c++ -g -c a.cc", "original", "-c|a.cc|-DX|"},
		{"libcare-cc -g -c a.c", "configure", "-g|-c|a.c|"},
		{"libcare-cc -g -c a.c", "", "-g|-c|a.c|"},
		{"libcare-cc -g -c conftest.c", "original", "-g|-c|conftest.c|"},
		{"libcare-cc -g -o x /tmp/qemu-conf.c", "original", "-g|-o|x|/tmp/qemu-conf.c|"},
	} {
		words := strings.Fields(test.command)
		cmd := exec.Command(filepath.Join(bin, words[0]), words[1:]...)
		cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, EnvStage+"=") }),
			EnvStage+"="+test.stage, EnvStore+"="+s.Dir(), EnvRemoveArgs+"=-g", EnvAppendArgs+"=-DX",
			EnvReal+"="+filepath.Join(bin, "real"), EnvRealCXX+"="+filepath.Join(bin, "real"))
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != test.want {
			t.Errorf("%s in stage %q: %q, %v, want %q", test.command, test.stage, out, err, test.want)
		}
	}
}
