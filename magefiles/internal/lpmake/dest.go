package lpmake

import (
	"bytes"
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/fother/fother/compiler"
	"github.com/fother/fother/specs"
)

// checkInstall asks make what make install would do, since one that does not
// heed the variable writes over what is installed on this machine. It refuses
// only what surely goes elsewhere: what scripts do, make does not show.
func (r *run) checkInstall(ctx context.Context) error {
	printed, err := r.dry(ctx, "-n")
	switch {
	case ctx.Err() != nil:
		return err
	case err != nil:
		r.say("warning: make -n install fails: whether make install heeds %s is not known", r.DestDir)
		return nil
	case r.mentions(printed):
		return nil
	}
	database, err := r.dry(ctx, "-n -p")
	if ctx.Err() != nil {
		return err
	}
	d := dryRun{commands: commandsOf(printed), database: database, asked: err == nil}
	switch {
	case len(d.commands) == 0:
		return nil
	case d.elsewhere(r.DestDir):
		return hinted(ErrUsage, d.hint(r.DestDir), "make install %s=%s would write elsewhere: nothing that it runs names that folder:\n  | %s",
			r.DestDir, r.Original, strings.Join(d.commands[:min(len(d.commands), 5)], "\n  | "))
	}
	r.say("warning: make -n install does not show whether make install heeds %s: if it does not, it writes elsewhere than to %s", r.DestDir, r.Original)
	return nil
}

// dry returns what make install prints with more options.
func (r *run) dry(ctx context.Context, options string) (string, error) {
	var out bytes.Buffer
	o := r.runner(specs.StageConfigure, nil)
	o.Log, o.Env = &out, append(o.Env, "LC_ALL=C")
	o.Commands = []string{r.install(options)}
	err := compiler.Run(ctx, o)
	return out.String(), err
}

// mentions reports whether commands have to do with the folder of the original
// installation.
func (r *run) mentions(commands string) bool {
	names := []string{r.Original, real(r.Original), "LPMAKE_ORIGINAL_DIR"}
	if rel, err := filepath.Rel(r.Dir, r.Original); err == nil && inside(r.Original, r.Dir) {
		names = append(names, rel)
	}
	for line := range strings.Lines(commands) {
		if makeSays.MatchString(line) {
			continue
		}
		if slices.ContainsFunc(names, func(name string) bool { return strings.Contains(line, name) }) {
			return true
		}
	}
	shell := regexp.MustCompile(`\$\{?` + regexp.QuoteMeta(r.DestDir) + `\b`)
	if shell.MatchString(commands) {
		return true
	}
	// What CMake makes takes DESTDIR from the environment.
	return r.DestDir == "DESTDIR" && strings.Contains(commands, "cmake_install.cmake")
}

// dryRun is what make prints without doing it.
type dryRun struct {
	commands []string
	database string // make -p, which has recipes as they are written
	asked    bool   // the database is there
}

// makeSays is a line of make's own, not of a command.
var makeSays = regexp.MustCompile(`^\S*make(\[\d+\])?: `)

func commandsOf(printed string) (out []string) {
	for line := range strings.Lines(strings.ReplaceAll(printed, "\\\n", " ")) {
		if line = strings.TrimSpace(line); line != "" && !makeSays.MatchString(line) {
			out = append(out, line)
		}
	}
	return out
}

// otherMake is a recipe that runs make, but not as $(MAKE): then -n does not
// go on there.
var otherMake = regexp.MustCompile(`(?m)(^\t|^\t.*[;&|(][ \t]*)[@+-]*[ \t]*g?make[ \t]`)

// elsewhere reports whether the commands, which do not name the folder, surely
// go elsewhere: the makefiles know DESTDIR and not the variable, or nothing is
// run that could take the variable from the environment.
func (d *dryRun) elsewhere(variable string) bool {
	if !d.asked || otherMake.MatchString(d.database) {
		return false
	}
	if variable != "DESTDIR" && d.uses("DESTDIR") && !d.uses(variable) {
		return true
	}
	return !slices.ContainsFunc(d.commands, func(c string) bool { return !plainCommands(c) })
}

// uses reports whether a makefile refers to a variable.
func (d *dryRun) uses(variable string) bool {
	name := regexp.QuoteMeta(variable)
	return regexp.MustCompile(`\$[({]` + name + `[)}:]|\$\$\{?` + name + `\b`).MatchString(d.database)
}

func (d *dryRun) hint(variable string) string {
	if variable != "DESTDIR" && d.uses("DESTDIR") {
		return "the makefile knows DESTDIR: without -d it is told that"
	}
	return "-d VAR names the variable by which the makefile is told where to install, DESTDIR if it is not given; " +
		"if it has none, put a copy in lpmakefile that installs below $(DESTDIR)"
}

var (
	quoted     = regexp.MustCompile(`'[^']*'|"(?:[^"\\]|\\.)*"`)
	redirected = regexp.MustCompile(`[0-9]*[<>]+&?\s*[^\s;&|()]+`)
	separators = regexp.MustCompile(`[;&|(){}]+`)
	assigned   = regexp.MustCompile(`^\w+=`)
	scripts    = regexp.MustCompile(`^(libtool|install-sh|mkinstalldirs)$`)
)

// keywords of the shell that stand before a command.
var keywords = strings.Fields("if then elif else while until do ! time")

// plain are commands that do what their arguments say, and the shell's words
// that begin no command. Make is one where each is $(MAKE), see otherMake.
var plain = strings.Fields("install ginstall cp mv ln mkdir rmdir rm chmod chown chgrp touch tar test [ : true false echo printf cd set exit umask " +
	"export pwd basename dirname grep sed cat cmp gzip bzip2 xz strip objcopy ranlib ar ld gcc cc g++ c++ ldconfig uname id date sleep " +
	"install-sh mkinstalldirs libtool make gmake for case fi done esac")

// plainCommands reports whether a line of shell surely runs plain commands
// only.
func plainCommands(line string) bool {
	if strings.ContainsAny(line, "`") || strings.Contains(line, "$(") {
		return false
	}
	line = redirected.ReplaceAllString(quoted.ReplaceAllString(line, "Q"), "")
	for _, part := range separators.Split(line, -1) {
		words := strings.Fields(part)
		for len(words) > 0 && (slices.Contains(keywords, words[0]) || assigned.MatchString(words[0])) {
			words = words[1:]
		}
		if len(words) == 0 {
			continue
		}
		name := filepath.Base(words[0])
		if (name == "sh" || name == "bash") && len(words) > 1 && scripts.MatchString(filepath.Base(words[1])) {
			continue
		}
		if !slices.Contains(plain, name) {
			return false
		}
	}
	return true
}
