package main

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/fother/fother/magefiles/internal/lpmake"
)

func TestParse(t *testing.T) {
	fix := []string{"fix.patch"}
	for args, want := range map[string]flags{
		"fix.patch":                      {patches: fix},
		"-c fix.patch":                   {clean: true, patches: fix},
		"fix.patch --clean":              {clean: true, patches: fix},
		"--cl fix.patch":                 {clean: true, patches: fix},
		"-u":                             {update: true},
		"--update fix.patch":             {update: true, patches: fix},
		"-s src fix.patch":               {source: "src", patches: fix},
		"-ssrc fix.patch":                {source: "src", patches: fix},
		"--srcdir src fix.patch":         {source: "src", patches: fix},
		"--srcdir=src fix.patch":         {source: "src", patches: fix},
		"--src=a=b fix.patch":            {source: "a=b", patches: fix},
		"-d ROOT fix.patch":              {destdir: "ROOT", patches: fix},
		"-dROOT fix.patch":               {destdir: "ROOT", patches: fix},
		"--destdir ROOT fix.patch":       {destdir: "ROOT", patches: fix},
		"--destdir=ROOT fix.patch":       {destdir: "ROOT", patches: fix},
		"-cvd ROOT fix.patch":            {clean: true, verbose: true, destdir: "ROOT", patches: fix},
		"-cs src one two":                {clean: true, source: "src", patches: []string{"one", "two"}},
		"-- -c --clean":                  {patches: []string{"-c", "--clean"}},
		"one -s src two -- three -u":     {source: "src", patches: []string{"one", "two", "three", "-u"}},
		"-":                              {patches: []string{"-"}},
		"-h":                             {help: true},
		"--help -u -c":                   {help: true, update: true, clean: true},
		"--verbose fix.patch -s a -s b":  {verbose: true, source: "b", patches: fix},
		"--d D --v --s S --c -- f.patch": {destdir: "D", verbose: true, source: "S", clean: true, patches: []string{"f.patch"}},
	} {
		got, err := parse(strings.Fields(args))
		if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%s: %+v, %v, want %+v", args, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"":                        "no source patch is given",
		"-c":                      "no source patch is given",
		"--":                      "no source patch is given",
		"-x fix.patch":            "unknown option -x",
		"-cx fix.patch":           "unknown option -x",
		"--clear fix.patch":       "unknown option --clear",
		"--=x fix.patch":          "unknown option --",
		"--clean=yes fix.patch":   "--clean takes no value",
		"fix.patch -s":            "-s needs a value",
		"fix.patch --srcdir":      "--srcdir needs a value",
		"fix.patch --srcdir=":     "--srcdir needs a value",
		"fix.patch --destdir":     "--destdir needs a value",
		"-u -c fix.patch":         "only one can be given",
		"--update --clean -- fix": "only one can be given",
	} {
		_, err := parse(strings.Fields(args))
		if err == nil || !strings.Contains(err.Error(), want) || !errors.Is(err, lpmake.ErrUsage) {
			t.Errorf("%s: error %v, want %q", args, err, want)
		}
	}
}
