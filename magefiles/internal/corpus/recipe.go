package corpus

import (
	"fmt"
	"runtime"
	"slices"
)

// recipe says how a package is built.
type recipe struct {
	version   string
	dsc       string   // SHA-256 of the .dsc file, in hexadecimal; "" leaves the check to apt
	needs     []string // for package tools, beside those of every case
	configure []string
	build     []string
	env       []string
	// Outputs are what is built, relative to the tree.
	outputs []string
	// Runs has arguments with which a program stays, its standard input left
	// open, by its path in the tree.
	runs map[string]string
}

// recipe returns how the case is built.
func (c Case) recipe() recipe {
	r, ok := debianRecipes[c.Package]
	if !ok {
		r = recipes[c.Package]
	}
	switch c.Variant {
	case "clang":
		r.needs = append(slices.Clone(r.needs), "clang")
		r.env = append(slices.Clone(r.env), "CC=clang", "CXX=clang++")
	case "lto":
		r.env = append(slices.Clone(r.env), "AR=gcc-ar", "RANLIB=gcc-ranlib", "NM=gcc-nm",
			"CFLAGS="+cflags+" -flto=auto", "CXXFLAGS="+cflags+" -flto=auto", "LDFLAGS="+ldflags+" -flto=auto")
	}
	return r
}

// Arguments are those with which a program of the case stays, its standard
// input left open, as words of a shell command; false if it does not.
func (c Case) Arguments(program string) (string, bool) {
	args, ok := c.recipe().runs[program]
	return args, ok
}

// What dpkg-buildflags(1) of Debian 12 gives, without paths of the build.
const (
	cppflags = "-Wdate-time -D_FORTIFY_SOURCE=2"
	cflags   = "-g -O2 -fstack-protector-strong -Wformat -Werror=format-security"
	ldflags  = "-Wl,-z,relro -Wl,-z,now -Wl,--build-id"
)

// commonEnv is the environment of all builds.
func commonEnv() []string {
	return []string{
		"CPPFLAGS=" + cppflags, "CFLAGS=" + cflags, "CXXFLAGS=" + cflags, "LDFLAGS=" + ldflags,
		"SOURCE_DATE_EPOCH=1700000000", "LC_ALL=C.UTF-8",
		fmt.Sprintf("JOBS=%d", runtime.NumCPU()),
	}
}

// commonNeeds are for fetching, unpacking and building any case.
var commonNeeds = []string{"apt-get", "dpkg-source", "patch", "gcc", "as", "ld", "make", "stdio.h"}

var recipes = map[string]recipe{
	"nginx": {
		version: "1.22.1-9+deb12u9",
		needs:   []string{"pcre2.h", "zlib.h", "openssl/ssl.h"},
		configure: []string{`./configure --with-cc-opt="$CPPFLAGS $CFLAGS" --with-ld-opt="$LDFLAGS" --prefix=/opt/nginx` +
			` --with-http_ssl_module --with-http_v2_module --with-http_dav_module --with-http_mp4_module` +
			` --with-http_stub_status_module --with-mail --with-mail_ssl_module --with-stream` +
			` --with-stream_ssl_module --with-threads --with-pcre-jit`},
		build:   []string{"make -j$JOBS"},
		outputs: []string{"objs/nginx"},
	},
	"cjson": {
		version: "1.7.15-1+deb12u4",
		needs:   []string{"cmake"},
		configure: []string{`cmake -S . -B b -DCMAKE_BUILD_TYPE=None -DENABLE_CJSON_TEST=OFF -DENABLE_CJSON_UTILS=ON` +
			` -DCMAKE_C_FLAGS="$CPPFLAGS $CFLAGS" -DCMAKE_SHARED_LINKER_FLAGS="$LDFLAGS"`},
		build:   []string{"make -C b -j$JOBS"},
		outputs: []string{"b/libcjson.so.1", "b/libcjson_utils.so.1"},
	},
	"memcached": {
		version:   "1.6.18-1+deb12u1",
		needs:     []string{"event.h", "sasl/sasl.h"},
		configure: []string{"./configure --enable-sasl --enable-sasl-pwdb --enable-proxy"},
		build:     []string{"make -C vendor -j$JOBS", "make -j$JOBS memcached"},
		outputs:   []string{"memcached"},
	},
	"less": {
		version:   "590-2.1~deb12u2",
		needs:     []string{"curses.h"},
		configure: []string{"./configure"},
		build:     []string{"make -j$JOBS less"},
		outputs:   []string{"less"},
	},
}
