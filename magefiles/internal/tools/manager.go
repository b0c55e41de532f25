package tools

import (
	"bufio"
	"bytes"
	"io"
	"slices"
	"strings"
)

// A manager is a distribution's package manager.
type manager struct {
	install string   // command line before the names of packages
	ids     []string // ID or ID_LIKE of its distributions, os-release(5)
	column  int      // in packageNames
}

var managers = []*manager{
	{"apt-get install -y --no-install-recommends", []string{"debian", "ubuntu"}, 0},
	{"dnf install -y", []string{"fedora", "rhel", "centos"}, 1},
	{"pacman -S --needed", []string{"arch"}, 2},
	{"zypper install -y", []string{"suse", "opensuse", "sles"}, 3},
}

// packageNames says in which packages a need comes: for apt, dnf, pacman and
// zypper. "" means that the distribution has none.
var packageNames = map[string][4]string{
	"gcc":                   {"gcc libc6-dev", "gcc glibc-devel", "gcc", "gcc glibc-devel"},
	"g++":                   {"g++", "gcc-c++", "gcc", "gcc-c++"},
	"clang":                 {"clang", "clang", "clang", "clang"},
	"as":                    {"binutils", "binutils", "binutils", "binutils"},
	"ld":                    {"binutils", "binutils", "binutils", "binutils"},
	"ld.gold":               {"binutils", "binutils-gold", "binutils", "binutils-gold"},
	"ld.lld":                {"lld", "lld", "lld", "lld"},
	"ld.mold":               {"mold", "mold", "mold", "mold"},
	"readelf":               {"binutils", "binutils", "binutils", "binutils"},
	"objdump":               {"binutils", "binutils", "binutils", "binutils"},
	"objcopy":               {"binutils", "binutils", "binutils", "binutils"},
	"strip":                 {"binutils", "binutils", "binutils", "binutils"},
	"make":                  {"make", "make", "make", "make"},
	"cmake":                 {"cmake", "cmake", "cmake", "cmake"},
	"autoconf":              {"autoconf", "autoconf", "autoconf", "autoconf"},
	"automake":              {"automake", "automake", "automake", "automake"},
	"libtoolize":            {"libtool", "libtool", "libtool", "libtool"},
	"libtool":               {"libtool-bin", "libtool", "libtool", "libtool"},
	"patch":                 {"patch", "patch", "patch", "patch"},
	"git":                   {"git", "git", "git", "git"},
	"gdb":                   {"gdb", "gdb", "gdb", "gdb"},
	"perf":                  {"linux-perf", "perf", "perf", "perf"},
	"nginx":                 {"nginx-light", "nginx", "nginx", "nginx"},
	"docker-registry":       {"docker-registry", "docker-distribution", "docker-registry", "distribution-registry"},
	"openssl":               {"openssl", "openssl", "openssl", "openssl"},
	"faketime":              {"faketime", "libfaketime", "libfaketime", "libfaketime"},
	"ar":                    {"binutils", "binutils", "binutils", "binutils"},
	"nm":                    {"binutils", "binutils", "binutils", "binutils"},
	"zstd":                  {"zstd", "zstd", "zstd", "zstd"},
	"bzip2":                 {"bzip2", "bzip2", "bzip2", "bzip2"},
	"systemd-analyze":       {"systemd", "systemd", "systemd", "systemd"},
	"tar":                   {"tar", "tar", "tar", "tar"},
	"dpkg-source":           {"dpkg-dev", "dpkg-dev", "dpkg", "dpkg"},
	"dpkg-deb":              {"dpkg", "dpkg", "dpkg", "dpkg"},
	"apt-get":               {"apt", "", "", ""},
	"qemu-system-aarch64":   {"qemu-system-arm", "qemu-system-aarch64-core", "qemu-system-aarch64", "qemu-arm"},
	"aarch64-linux-gnu-gcc": {"gcc-aarch64-linux-gnu libc6-dev-arm64-cross", "", "aarch64-linux-gnu-gcc", ""},
	"aarch64-linux-gnu-g++": {"g++-aarch64-linux-gnu", "", "aarch64-linux-gnu-gcc", ""},
	"debootstrap":           {"debootstrap", "debootstrap", "debootstrap", ""},
	"unshare":               {"util-linux", "util-linux", "util-linux", "util-linux"},
	"nsenter":               {"util-linux", "util-linux", "util-linux", "util-linux"},
	"pivot_root":            {"util-linux", "util-linux", "util-linux", "util-linux"},
	"mount":                 {"mount", "util-linux", "util-linux", "util-linux"},
	"ip":                    {"iproute2", "iproute", "iproute2", "iproute2"},
	"dpkg-buildflags":       {"dpkg-dev", "dpkg-dev", "dpkg", "dpkg"},
	"dh_autoreconf":         {"debhelper", "", "", ""},
	"bison":                 {"bison", "bison", "bison", "bison"},
	"flex":                  {"flex", "flex", "flex", "flex"},
	"bc":                    {"bc", "bc", "bc", "bc"},
	"xz":                    {"xz-utils", "xz", "xz", "xz"},
	"pkg-config":            {"pkgconf", "pkgconf-pkg-config", "pkgconf", "pkgconf"},
	"nettle/ecdsa.h":        {"nettle-dev", "nettle-devel", "nettle", "libnettle-devel"},
	"expat.h":               {"libexpat1-dev", "expat-devel", "expat", "libexpat-devel"},
	"utf8.h":                {"libutfcpp-dev", "utf8cpp-devel", "utf8cpp", "utfcpp-devel"},
	"stdio.h":               {"libc6-dev", "glibc-devel", "glibc", "glibc-devel"},
	"zlib.h":                {"zlib1g-dev", "zlib-devel", "zlib", "zlib-devel"},
	"pcre2.h":               {"libpcre2-dev", "pcre2-devel", "pcre2", "pcre2-devel"},
	"openssl/ssl.h":         {"libssl-dev", "openssl-devel", "openssl", "libopenssl-devel"},
	"event.h":               {"libevent-dev", "libevent-devel", "libevent", "libevent-devel"},
	"sasl/sasl.h":           {"libsasl2-dev", "cyrus-sasl-devel", "libsasl", "cyrus-sasl-devel"},
	"FLAC/all.h":            {"libflac-dev", "flac-devel", "flac", "flac-devel"},
	"ogg/ogg.h":             {"libogg-dev", "libogg-devel", "libogg", "libogg-devel"},
	"opus/opus.h":           {"libopus-dev", "opus-devel", "opus", "libopus-devel"},
	"vorbis/codec.h":        {"libvorbis-dev", "libvorbis-devel", "libvorbis", "libvorbis-devel"},
	"jpeglib.h":             {"libjpeg-dev", "libjpeg-turbo-devel", "libjpeg-turbo", "libjpeg8-devel"},
	"png.h":                 {"libpng-dev", "libpng-devel", "libpng", "libpng16-devel"},
	"curses.h":              {"libncurses-dev", "ncurses-devel", "ncurses", "ncurses-devel"},
}

// manager returns the package manager of h, or nil.
func (h host) manager() *manager {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		f, err := h.root.Open(name)
		if err != nil {
			continue
		}
		data, err := io.ReadAll(io.LimitReader(f, 64<<10))
		f.Close()
		if err != nil {
			continue
		}
		for _, id := range distributions(data) {
			for _, m := range managers {
				if slices.Contains(m.ids, id) {
					return m
				}
			}
		}
	}
	return nil
}

// distributions returns the ID and then the ID_LIKE words of an os-release
// file (os-release(5)). A derivative's own name may have a suffix after a dash,
// such as opensuse-leap; the part before it follows as a word of its own.
func distributions(osRelease []byte) []string {
	var id, like []string
	for sc := bufio.NewScanner(bytes.NewReader(osRelease)); sc.Scan(); {
		key, value, ok := strings.Cut(strings.TrimSpace(sc.Text()), "=")
		if !ok {
			continue
		}
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			id = strings.Fields(value)
		case "ID_LIKE":
			like = strings.Fields(value)
		}
	}
	var all []string
	for _, word := range append(id, like...) {
		all = append(all, word)
		if before, _, dashed := strings.Cut(word, "-"); dashed {
			all = append(all, before)
		}
	}
	return all
}

// packages returns the packages for the needs, each once, and false if one is
// unknown.
func (m *manager) packages(needs []string) ([]string, bool) {
	var all []string
	for _, need := range needs {
		names := strings.Fields(packageNames[need][m.column])
		if len(names) == 0 {
			return nil, false
		}
		for _, name := range names {
			if !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	return all, true
}
