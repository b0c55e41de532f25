// Package corpus holds real security fixes to try Fother on: patches of Debian
// 12's source packages nginx, cjson, memcached and less.
//
// A [Case] is one patch of a package's series, counted from 1. [Case.Prepare]
// fetches the source package, applies what comes before the patch, and returns
// a spec whose fix is the patch and whose commands build the tree with the
// hardening flags of the distribution. The flags are written out, so that the
// same is built everywhere.
//
// The package builds nothing and patches nothing; package pipeline does.
package corpus
