// Package specfile reads and writes specs as YAML.
//
// [Read] takes a file, [Parse] bytes; both give a [specs.Spec] with absolute
// paths and defaults filled in, or an [*Error] that lists every problem as
// file:line:column with what was expected. [Format] writes what Parse reads.
// [Schema] is the form of a spec for editors, also in specs/spec.schema.json;
// specs/examples has specs to begin with.
//
//	name: nginx                     # required; letters, digits, '.', '_', '-'
//	description: one line or more
//	source: nginx-1.22              # folder, archive or address; default: the spec's own folder
//	checksum: sha256:HEX            # of an archive; an address needs one
//	patches: [a.patch, b.patch]     # required; in order, applied by patch -p1
//	configure: [./configure]        # shell commands, once for each build
//	build: [make]                   # shell commands; this is the default
//	install: [make install]         # shell commands; into $DESTDIR
//	env: {CFLAGS: -O2}              # for all commands
//	targets: [objs/nginx]           # default: all that changed
//	series: default
//	level: 1
//	cves: [CVE-2026-0001]
//	consistency: strict             # or {next-call: [FUNCTION], reason: TEXT}
//	allow: [{change: struct conn, reason: TEXT}]
//
// A source is a folder, an archive (.tar, .tar.gz, .tgz, .tar.xz, .tar.bz2,
// .tar.zst, .zip) or an address in the notation of go-getter:
//
//	https://HOST/PATH.tar.gz               with checksum: sha256:HEX or sha512:HEX
//	https://HOST/PATH.tar.gz?checksum=…    the same
//	git::https://HOST/PATH.git?ref=COMMIT  a full commit id is checksum enough
//	git::ssh://git@HOST/PATH?ref=v1.2      with checksum: git:COMMIT
//
// A spec is plain data: anchors, aliases, merge keys, tags and a second
// document are refused, and so are unknown and repeated keys. Relative paths
// are relative to the spec's folder and stay inside it, also by way of
// symbolic links; whoever means another place says so with an absolute path.
package specfile
