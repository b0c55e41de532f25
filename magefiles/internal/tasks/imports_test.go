package tasks

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/fother/fother/"

// allowed says which of the project's packages each package may import; the
// tests of a package are not held to it. A package that is not listed may
// import what its nearest listed parent may, and that parent.
var allowed = map[string][]string{
	"specs":                 {},
	"specs/arch":            {},
	"specs/specfile":        {"specs"},
	"specs/testenv":         {},
	"compiler":              {"specs", "specs/arch", "kpack/elfobj"},
	"differ":                {"specs/arch"},
	"differ/semantic":       {"kpack/elfobj"},
	"differ/verify":         {"specs", "specs/arch", "kpack/elfobj"},
	"kpack":                 {"specs", "specs/arch", "kpack/elfobj"},
	"kpack/elfobj":          {"specs", "specs/arch"},
	"kpack/include":         {},
	"registry":              {"specs", "registry/catalog"},
	"registry/catalog":      {"specs"},
	"apply":                 {"specs", "specs/arch", "kpack", "kpack/elfobj"},
	"apply/cmd/fother":      {"specs", "specs/arch", "kpack", "kpack/elfobj", "kpack/bundle", "registry", "registry/catalog", "apply", "apply/fleet"},
	"apply/fleet":           {"specs", "kpack", "kpack/bundle", "registry/catalog", "apply"},
	"apply/internal/ptrace": {"specs", "specs/arch"},
	"apply/internal/unwind": {"specs", "specs/arch", "kpack/elfobj"},
	"magefiles":             {"specs", "specs/arch", "specs/specfile", "compiler", "differ", "differ/semantic", "differ/verify", "kpack", "kpack/elfobj", "kpack/bundle", "kpack/include", "apply", "registry"},
}

// std lists the packages that import nothing but the standard library and each
// other.
var std = []string{"specs", "specs/arch"}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; seen++ {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		checkImports(t, p)
	}
	if seen < 10 {
		t.Errorf("only %d packages listed", seen)
	}
}

func checkImports(t *testing.T, p listed) {
	name := strings.TrimPrefix(p.ImportPath, module)
	room := name
	for allowed[room] == nil {
		i := strings.LastIndexByte(room, '/')
		if i < 0 {
			t.Errorf("%s has no place in the table of packages", name)
			return
		}
		room = room[:i]
	}
	for _, imp := range p.Imports {
		to, ours := strings.CutPrefix(imp, module)
		switch {
		case ours && to != room && !strings.HasPrefix(to, room+"/") && !permits(room, to):
			t.Errorf("%s may not import %s", name, to)
		case !ours && slices.Contains(std, room) && strings.Contains(imp, "."):
			t.Errorf("%s may import the standard library only, not %s", name, imp)
		}
	}
}

// permits reports whether packages of room may import to, or a package that it
// stands for.
func permits(room, to string) bool {
	for _, a := range allowed[room] {
		if to == a || strings.HasPrefix(to, a+"/") && allowed[to] == nil {
			return true
		}
	}
	return false
}

// TestSkips holds the line that tests are skipped for want of something by
// package testenv only, which fails in CI: any other Skip stands under a
// condition that is on purpose.
func TestSkips(t *testing.T) {
	out, err := exec.Command("git", "ls-files", ":/*_test.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Fields(string(out))
	if len(files) < 20 {
		t.Fatalf("only %d files with tests", len(files))
	}
	onPurpose := regexp.MustCompile(`testing\.Short\(\)|testenv\.Long\(\)|arch\.(X86_64|AArch64)|GOARCH`)
	for _, name := range files {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		condition := ""
		var visit func(ast.Node) bool
		visit = func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.IfStmt:
				outer, b := condition, bytes.Buffer{}
				if err := printer.Fprint(&b, fset, n.Cond); err != nil {
					t.Fatal(err)
				}
				condition = b.String()
				ast.Inspect(n.Body, visit)
				condition = outer
				if n.Else != nil {
					ast.Inspect(n.Else, visit)
				}
				return false
			case *ast.CallExpr:
				called, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, called.Sel.Name) {
					break
				}
				if x, ok := called.X.(*ast.Ident); ok && x.Name != "testenv" && !onPurpose.MatchString(condition) {
					t.Errorf("%s: this skips in CI too: use package testenv", fset.Position(n.Pos()))
				}
			}
			return true
		}
		ast.Inspect(f, visit)
	}
}

// TestNativeOnly holds the line that only the ptrace package knows the host's
// architecture.
func TestNativeOnly(t *testing.T) {
	out, err := exec.Command("git", "grep", "-lE", `runtime\.GOARCH|^//go:build.*(amd64|arm64)`, "--", ":/*.go", ":!:*_test.go").Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	for _, f := range strings.Fields(string(out)) {
		if !strings.Contains(f, "apply/internal/ptrace/") {
			t.Errorf("%s asks for the host's architecture", f)
		}
	}
}
