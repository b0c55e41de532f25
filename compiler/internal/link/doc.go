// Package link reads what goes into and comes out of a linker run: its
// arguments, response files, the map file, and archives. It reads text and
// bytes that others wrote; all of it is bounded and none of it is executed.
package link
