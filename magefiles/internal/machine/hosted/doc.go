// Package hosted lets a machine without compilers run those of its host: a
// program on the machine, under the names of the tools ([Names]), sends its
// arguments and the files that they name through a port to the host
// ([Client]), which runs the cross tool of that name and sends back what the
// tool said and which files it wrote ([Serve]).
//
// Both sides have one folder at the same path; in it all files are that travel.
// The host keeps what it has seen there, so that what one tool wrote the next
// one finds. One command is under way at a time.
package hosted
