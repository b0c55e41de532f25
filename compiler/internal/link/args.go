package link

import (
	"os"
	"path/filepath"
	"strings"
)

// Args is what capture has to know of a linker's command line. The options
// are those of GNU ld, gold, lld and mold that ld(1) documents.
type Args struct {
	// All are the arguments, response files expanded.
	All []string
	// Output is the linked file, "a.out" by default.
	Output string
	// Map is the map file that the user asked for, or empty.
	Map string
	// PrintMap is set if the user wants the map on standard output.
	PrintMap bool
	// Strips is set if the output will lack local symbols.
	Strips bool
	// Shared is set for -shared.
	Shared bool
	// Query is set if the linker was only asked about itself.
	Query bool
	// Files are the arguments that are no options.
	Files []string
}

// withValue are options of one dash or two whose value may be the next
// argument, as far as the value could be taken for something else.
var withValue = map[string]bool{
	"plugin": true, "plugin-opt": true, "T": true, "script": true, "dT": true, "default-script": true,
	"e": true, "entry": true, "m": true, "L": true, "library-path": true, "l": true, "library": true,
	"h": true, "soname": true, "rpath": true, "rpath-link": true, "dynamic-linker": true, "I": true,
	"u": true, "undefined": true, "y": true, "trace-symbol": true, "z": true, "A": true, "a": true, "b": true, "format": true, "c": true,
	"F": true, "f": true, "G": true, "R": true, "just-symbols": true, "version-script": true,
	"dynamic-list": true, "wrap": true, "defsym": true, "init": true, "fini": true, "sysroot": true,
	"assert": true, "exclude-libs": true, "retain-symbols-file": true, "oformat": true,
	"dependency-file": true, "out-implib": true, "Ttext": true, "Tdata": true, "Tbss": true, "section-start": true,
}

// ParseArgs reads a linker's arguments, without the program name.
func ParseArgs(dir string, args []string) (*Args, error) {
	all, err := Expand(dir, args)
	if err != nil {
		return nil, err
	}
	a := &Args{All: all, Output: "a.out"}
	for i := 0; i < len(all); i++ {
		name, value, joined := option(all[i])
		if name == "" {
			a.Files = append(a.Files, all[i])
			continue
		}
		next := func() string {
			if joined {
				return value
			}
			if i++; i < len(all) {
				return all[i]
			}
			return ""
		}
		a.option(all[i], name, next)
	}
	a.mapPath(dir)
	return a, nil
}

// option takes an option apart. Its name lacks the dashes and is empty if arg
// is none; -oFILE is the only short option whose joined value matters here.
func option(arg string) (name, value string, joined bool) {
	if len(arg) < 2 || arg[0] != '-' {
		return "", "", false
	}
	if !strings.HasPrefix(arg, "--") && arg[1] == 'o' && len(arg) > 2 {
		return "o", arg[2:], true
	}
	name = strings.TrimPrefix(arg[1:], "-")
	if n, v, ok := strings.Cut(name, "="); ok {
		return n, v, true
	}
	return name, "", false
}

func (a *Args) option(arg, name string, next func() string) {
	switch name {
	case "o", "output":
		a.Output = next()
	case "Map":
		a.Map = next()
	case "M", "print-map":
		a.PrintMap = true
	case "s", "strip-all", "x", "discard-all":
		a.Strips = true
	case "shared", "Bshareable":
		a.Shared = true
	case "no-pie", "pie", "pic-executable":
	case "v", "V", "version", "help", "target-help", "print-output-format", "print-sysroot":
		a.Query = true
	default:
		if withValue[name] {
			next()
		}
	}
}

// mapPath applies ld's rules for names of map files: "-" is standard output,
// a folder gets a file named after the output, and % stands for the output.
func (a *Args) mapPath(dir string) {
	if a.Map == "" {
		return
	}
	if a.Map == "-" {
		a.Map, a.PrintMap = "", true
		return
	}
	a.Map = strings.Replace(a.Map, "%", a.Output, 1)
	abs := a.Map
	if !filepath.IsAbs(abs) {
		abs = filepath.Join(dir, abs)
	}
	if info, err := os.Stat(abs); err == nil && info.IsDir() {
		a.Map = filepath.Join(a.Map, filepath.Base(a.Output)+".map")
	}
}

// Unstripped returns the arguments for a second run of the same link that
// keeps all symbols, writes to output and mapFile, and leaves alone all other
// files that the user asked for.
func (a *Args) Unstripped(output, mapFile string) []string {
	out := make([]string, 0, len(a.All)+3)
	for i := 0; i < len(a.All); i++ {
		name, _, joined := option(a.All[i])
		switch name {
		case "s", "strip-all", "x", "discard-all", "M", "print-map", "t", "trace", "cref", "stats":
			continue
		case "o", "output", "Map", "dependency-file", "out-implib":
			if !joined {
				i++
			}
			continue
		}
		out = append(out, a.All[i])
		if withValue[name] && !joined && i+1 < len(a.All) {
			i++
			out = append(out, a.All[i])
		}
	}
	return append(out, "-o", output, "-Map="+mapFile)
}
