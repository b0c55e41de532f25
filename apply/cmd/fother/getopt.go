package main

import (
	"fmt"
	"strings"
)

// option is one that was given, with its value if it takes one.
type option struct {
	letter byte
	value  string
}

// getopt reads short options as getopt(3) does. spec holds the letters, with a
// colon after those that take a value; a plus at its start ends the options at
// the first argument that is none, else they may stand anywhere before "--".
func getopt(args []string, spec string) (options []option, rest []string, err error) {
	letters, first := strings.CutPrefix(spec, "+")
	for len(args) > 0 {
		arg := args[0]
		args = args[1:]
		if arg == "--" {
			return options, append(rest, args...), nil
		}
		if len(arg) < 2 || arg[0] != '-' {
			rest = append(rest, arg)
			if first {
				return options, append(rest, args...), nil
			}
			continue
		}
		for i := 1; i < len(arg); i++ {
			at := strings.IndexByte(letters, arg[i])
			if at < 0 || arg[i] == ':' {
				return nil, nil, fmt.Errorf("option -%c is not known", arg[i])
			}
			o := option{letter: arg[i]}
			if !strings.HasPrefix(letters[at+1:], ":") {
				options = append(options, o)
				continue
			}
			switch o.value = arg[i+1:]; {
			case o.value != "":
			case len(args) > 0:
				o.value, args = args[0], args[1:]
			default:
				return nil, nil, fmt.Errorf("option -%c wants a value", arg[i])
			}
			options = append(options, o)
			break
		}
	}
	return options, rest, nil
}
