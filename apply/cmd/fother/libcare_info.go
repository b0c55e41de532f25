package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fother/fother/apply"
)

// libcareInfo is the command info.
type libcareInfo struct {
	*libcare
	procs        processes
	id           string
	name         *regexp.Regexp
	folder       string // "" for none
	store        *store
	descriptions bool

	vulnerable, older int // objects
}

func (l *libcare) info(ctx context.Context, args []string) int {
	c := &libcareInfo{libcare: l, descriptions: true}
	help, err := c.parse(args)
	switch {
	case help:
		return l.help()
	case err != nil:
		return l.fail(err)
	}
	if c.folder != "" && c.id == "" {
		if c.store, err = openStore([]string{c.folder}); err != nil {
			return l.fail(err)
		}
	}
	pids, err := c.procs.list()
	if err != nil {
		return l.fail(err)
	}
	code := exitDone
	for i := range l.survey(ctx, pids) {
		if c.procs.all && passOver(i.err) || ctx.Err() != nil {
			continue
		}
		if err := errors.Join(i.err, c.process(i)); err != nil {
			code = l.fail(fmt.Errorf("process %d: %w", i.PID, err))
		}
	}
	l.noteLeftOut()
	if ctx.Err() != nil {
		return l.fail(fmt.Errorf("interrupted: %w", ctx.Err()))
	}
	c.summary()
	return code
}

func (c *libcareInfo) parse(args []string) (help bool, err error) {
	options, rest, err := getopt(args, "hb:p:s:r:vn")
	if err != nil {
		return false, usageError{err}
	}
	if len(rest) > 0 {
		return false, usageError{fmt.Errorf("info takes no argument %q", rest[0])}
	}
	c.procs.all = true
	if exists(libcareFolder) {
		c.folder = libcareFolder
	}
	named := false
	for _, o := range options {
		switch o.letter {
		case 'h':
			return true, nil
		case 'b':
			c.id = strings.ToLower(o.value)
		case 'p':
			err = c.procs.Set(o.value)
		case 's':
			c.folder = o.value
			if named = c.folder != "" && c.folder != os.DevNull; !named {
				c.folder = ""
			}
		case 'r':
			c.name, err = regexp.Compile(o.value)
		case 'v':
			c.verbose = true
		case 'n':
			c.descriptions = false
		}
		if err != nil {
			return false, usageError{fmt.Errorf("-%c %q: %w", o.letter, o.value, err)}
		}
	}
	if c.id != "" && (c.name != nil || named) {
		return false, usageError{errors.New("-b cannot stand with -r or -s")}
	}
	return false, nil
}

// process tells about one process what LibCare does: nothing, if none of its
// objects is patched or could be.
func (c *libcareInfo) process(i surveyed) error {
	var errs []error
	head := fmt.Sprintf("pid=%d comm=%s\n", i.PID, clean(programName(i)))
	for _, o := range i.Objects {
		name := filepath.Base(o.Path)
		if o.BuildID == "" || strings.HasPrefix(o.Path, "[") || c.name != nil && !c.name.MatchString(name) {
			continue
		}
		if c.id != "" {
			if c.id == string(o.BuildID) {
				fmt.Fprintf(c.stdout, "%s%s %s\n", head, clean(name), o.BuildID)
				return nil
			}
			continue
		}
		text, err := c.object(o.ObjectInfo, i.Applied)
		errs = append(errs, err)
		if text != "" {
			fmt.Fprintf(c.stdout, "%s%s", head, text)
			head = ""
		}
	}
	if head == "" && c.descriptions {
		fmt.Fprintln(c.stdout, strings.Repeat("=", 40))
	}
	return errors.Join(errs...)
}

// object returns the lines about an object, or nothing if it is not patched
// and the store has nothing for it.
func (c *libcareInfo) object(o apply.ObjectInfo, all []apply.Applied) (string, error) {
	there := libcareApplied(o, all)
	var best *offer
	var err error
	if c.store != nil {
		var offers []*offer
		if offers, err = c.store.lookup(o.BuildID); len(offers) > 0 {
			best = offers[0]
			for _, offer := range offers {
				if offer.level > best.level {
					best = offer
				}
			}
		}
	}
	if there == nil && best == nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s buildid=%s", clean(filepath.Base(o.Path)), o.BuildID)
	if there != nil {
		fmt.Fprintf(&b, " patchlvl=%d", there.Level)
	}
	if best != nil && best.level != 0 {
		fmt.Fprintf(&b, " latest=%d", best.level)
	}
	title := ""
	switch {
	case best == nil:
	case best.level == 0 && there == nil:
		b.WriteString(" VULNERABLE")
		title = "known to be vulnerable:"
		c.vulnerable++
	case there == nil || best.level > there.Level:
		title = "new patch:"
		c.older++
	default:
		title = "the latest patch is applied:"
	}
	b.WriteString("\n")
	if title != "" && c.descriptions {
		text, e := c.store.describe(best)
		err = errors.Join(err, e)
		fmt.Fprintf(&b, "\n%s\n", title)
		for line := range strings.Lines(text) {
			fmt.Fprintf(&b, "%s\n", strings.TrimRight(line, "\r\n"))
		}
	}
	return b.String(), err
}

// libcareApplied returns the patch of an object whose level is told: of the
// default series, the only one that LibCare knows, else the highest.
func libcareApplied(o apply.ObjectInfo, all []apply.Applied) *apply.Applied {
	var best *apply.Applied
	for i, a := range all {
		if a.BuildID != o.BuildID || !inForce(a) {
			continue
		}
		if a.Series == "default" {
			return &all[i]
		}
		if best == nil || a.Level > best.Level {
			best = &all[i]
		}
	}
	return best
}

func (c *libcareInfo) summary() {
	if c.vulnerable > 0 {
		fmt.Fprintf(c.stdout, "%d object(s) are vulnerable\n", c.vulnerable)
	}
	if c.older > 0 {
		fmt.Fprintf(c.stdout, "%d object(s) may be updated to the latest patch\nRun: libcare-ctl patch -p all %s\n", c.older, clean(c.folder))
	}
}

// programName is the base name of a process's program, as LibCare tells it.
func programName(i surveyed) string {
	path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", i.PID))
	if err != nil {
		return i.Name
	}
	return strings.TrimSuffix(filepath.Base(path), " (deleted)")
}
