package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/fother/fother/apply/fleet"
)

// denyFile is the list that is read if none is named.
const denyFile = "/etc/fother/deny"

const denyHelp = `  --deny FILE     what is never touched (/etc/fother/deny, if it exists): lines
                  "exe /path/of/pattern*", "unit name.service", "user name"
`

// deny is the option --deny.
type deny struct {
	path string
	list *fleet.Deny
	// left is how many processes were left alone.
	left int
}

func (d *deny) declare(fs *flag.FlagSet) { fs.StringVar(&d.path, "deny", "", "") }

// read reads the list.
func (d *deny) read() error {
	name := d.path
	if name == "" {
		name = denyFile
		if _, err := os.Lstat(name); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	text, err := newTrust().read(name, fleet.MaxDenyList)
	if err == nil {
		if d.list, err = fleet.ParseDeny(text); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		}
	}
	if err != nil {
		err = fmt.Errorf("what must not be touched is not known: %w", err)
	}
	if unsafe := (*unsafeFileError)(nil); errors.As(err, &unsafe) {
		err = hinted{err, "others must not be able to change the deny list: chown it and the folders that it is in, and chmod go-w"}
	}
	return err
}

// refuses reports whether a process is to be left alone: of all processes it is
// counted, and told with -v, one that is named is an error.
func (d *deny) refuses(t *tool, procs processes, pid int) (bool, error) {
	err := d.list.Check(pid)
	if err == nil || !procs.all {
		return err != nil, err
	}
	d.left++
	if t.verbose {
		t.note("process %d: %v", pid, err)
	}
	return true, nil
}

// note tells how many processes were left alone.
func (d *deny) note(t *tool) {
	if d.left > 0 && !t.verbose {
		t.note("%s left alone, as the deny list has it; -v names them", count(d.left, "process"))
	}
}
