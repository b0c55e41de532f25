// Package corpus holds real security fixes to try Fother on: patches of Debian
// 12's source packages nginx, cjson, memcached and less.
//
// A [Case] is one patch of a package's series, counted from 1. [Case.Prepare]
// fetches the source package, applies what comes before the patch, and returns
// a spec whose fix is the patch and whose commands build the tree with the
// hardening flags of the distribution. The flags are written out, so that the
// same is built everywhere.
//
// [Debian] is a list of its own, of fixes of many other packages: daemons,
// libraries, C++, a few of them built by clang or with link-time optimization.
// The share of fixes that become live patches is measured on it, and it says
// which are refused rightly, and why. Its source packages are known by digest.
//
// The package builds nothing and patches nothing; package pipeline does.
package corpus
