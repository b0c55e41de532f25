// Package tools knows what the machine lacks and how it gets there.
//
// A need is the name of a program ("gcc", found on PATH) or of a C header
// ("zlib.h", found in the system's include folders). [Check] returns a
// [*MissingError] that names all that is not there with the one command that
// installs it on this distribution. [Install] runs that command where it can:
// as root with apt. [Apt] fetches packages for other architectures and source
// packages with a state apart from the system's, so that nothing on the machine
// changes.
//
// The package does not decide what is needed; its callers do.
package tools
