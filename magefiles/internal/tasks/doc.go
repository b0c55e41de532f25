// Package tasks is what the project's own Mage targets do: the checks of CI,
// the slow tests, the run against real software.
package tasks
