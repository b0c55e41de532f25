package main

import (
	"fmt"
	"strings"

	"github.com/fother/fother/magefiles/internal/lpmake"
)

// flags is what the command line says.
type flags struct {
	help, update, clean, verbose bool

	source, destdir string
	patches         []string
}

// usageError is a wrong command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }
func (e *usageError) Unwrap() error { return lpmake.ErrUsage }
func (e *usageError) Hint() string  { return "-h shows how it is used" }

// option is one that the command line may have.
type option struct {
	short byte
	long  string
	set   *bool
	value *string
}

// parse reads a command line as getopt_long does: options may stand after
// other arguments, -sDIR, -s DIR, --srcdir=DIR and --srcdir DIR are one, and
// names may be cut short as long as they are unique.
func parse(args []string) (*flags, error) {
	f := new(flags)
	options := []option{
		{'h', "help", &f.help, nil}, {'u', "update", &f.update, nil}, {'c', "clean", &f.clean, nil}, {'v', "verbose", &f.verbose, nil},
		{'s', "srcdir", nil, &f.source}, {'d', "destdir", nil, &f.destdir},
	}
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		var err error
		switch {
		case arg == "--":
			f.patches = append(f.patches, args...)
			args = nil
		case strings.HasPrefix(arg, "--"):
			args, err = parseLong(options, arg[2:], args)
		case len(arg) > 1 && arg[0] == '-':
			args, err = parseShort(options, arg[1:], args)
		default:
			f.patches = append(f.patches, arg)
		}
		if err != nil {
			return nil, err
		}
	}
	return f, f.check()
}

func (f *flags) check() error {
	switch {
	case f.help:
		return nil
	case f.update && f.clean:
		return &usageError{"--update builds nothing, --clean builds everything: only one can be given"}
	case !f.update && len(f.patches) == 0:
		return &usageError{"no source patch is given"}
	}
	return nil
}

// parseLong reads --name or --name=value.
func parseLong(options []option, arg string, rest []string) ([]string, error) {
	name, value, given := strings.Cut(arg, "=")
	var found []option
	for _, o := range options {
		if o.long == name {
			found = []option{o}
			break
		}
		if name != "" && strings.HasPrefix(o.long, name) {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		return nil, &usageError{fmt.Sprintf("unknown option --%s", name)}
	}
	o := found[0]
	if o.set != nil {
		if given {
			return nil, &usageError{fmt.Sprintf("--%s takes no value", o.long)}
		}
		*o.set = true
		return rest, nil
	}
	if given {
		rest = append([]string{value}, rest...)
	}
	return o.take("--"+o.long, rest)
}

// parseShort reads the letters of one argument.
func parseShort(options []option, letters string, rest []string) ([]string, error) {
	for i := 0; i < len(letters); i++ {
		known := false
		for _, o := range options {
			if o.short != letters[i] {
				continue
			}
			known = true
			if o.set != nil {
				*o.set = true
				break
			}
			if more := letters[i+1:]; more != "" {
				rest = append([]string{more}, rest...)
			}
			return o.take("-"+string(o.short), rest)
		}
		if !known {
			return nil, &usageError{fmt.Sprintf("unknown option -%c", letters[i])}
		}
	}
	return rest, nil
}

// take sets o to the next argument.
func (o option) take(name string, rest []string) ([]string, error) {
	if len(rest) == 0 || rest[0] == "" {
		return nil, &usageError{name + " needs a value"}
	}
	*o.value = rest[0]
	return rest[1:], nil
}
