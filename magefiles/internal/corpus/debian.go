package corpus

// debianTable has package, position and patch of the cases that the share of
// fixes that become live patches is measured on. Nothing was done to Fother with
// these packages in mind before the first measurement. A "/clang" or "/lto"
// after the package's name builds it by clang, or with link-time optimization.
//
// After "|" stands what one of the reasons of a refusal says that no differ can
// spare the author; "-" stands for a fix that gives the same machine code.
const debianTable = `
dnsmasq          2 CVE-2026-2291.patch | union bigname
dnsmasq          3 CVE-2026-4890.patch
dnsmasq          4 CVE-2026-4891.patch
dnsmasq          5 CVE-2026-4892.patch
dnsmasq          6 CVE-2026-4893.patch
dnsmasq          7 CVE-2026-5172.patch
giflib          10 CVE-2026-23868.patch
giflib          11 CVE-2026-26740.patch
yajl             3 CVE-2017-16516.patch
yajl             4 CVE-2022-24795.patch
yajl             5 CVE-2023-33460.patch
libebml          1 CVE-2023-52339.patch
taglib           3 CVE-2023-47466.patch
libheif          1 CVE-2024-41311.patch
libheif          2 CVE-2023-49462.patch
libheif          3 CVE-2023-29659.patch
libmodbus        3 0001-modbus_reply-fix-copy-paste-error-in-sanity-check-fi.patch
libmodbus        4 CVE-2024-10918-part1.patch
libmodbus        5 CVE-2024-10918-part2.patch
libmodbus        6 CVE-2024-10918-part3.patch | _modbus_rtu_backend: a constant that other units can name changed
libmodbus/clang  6 CVE-2024-10918-part3.patch | _modbus_rtu_backend: a constant that other units can name changed
libmodbus/lto    3 0001-modbus_reply-fix-copy-paste-error-in-sanity-check-fi.patch
libmodbus/lto    6 CVE-2024-10918-part3.patch | _modbus_rtu_backend: a constant that other units can name changed
djvulibre        8 0008-Fix-potential-buffer-overflow-in-MMRDecoder.patch
djvulibre        9 CVE-2021-46310.patch
djvulibre       10 CVE-2021-46312.patch
djvulibre/clang  9 CVE-2021-46310.patch
libsndfile       2 CVE-2022-33065.patch
libsndfile       3 CVE-2024-50612.patch
libwebp          2 CVE-2023-4863.patch | typedef VP8LMetadata
libuv1           5 fix-cve-2024-24806
nghttp2          3 CVE-2023-44487.patch | struct nghttp2_session
nghttp2          6 CVE-2026-27135.patch
xz-utils         8 liblzma-mt-dec-Don-t-free-the-input-buffer-too-early-CVE-.patch
xz-utils        10 liblzma-Fix-a-buffer-overflow-in-lzma_index_append.patch
xz-utils        11 xz-Prevent-an-integer-overflow-in-files-and-files0.patch
mosquitto        9 CVE-2023-0809.patch
mosquitto       10 CVE-2023-28366.patch | struct mosquitto_client_msg (mosquitto_broker_internal.h:386): field dup: _Bool became uint8_t
mosquitto       14 CVE-2024-8376-3of3.patch
mosquitto       18 0018-Further-fix-for-CVE-2023-28366.patch
mosquitto/clang 18 0018-Further-fix-for-CVE-2023-28366.patch
openjpeg2        4 CVE-2023-39327.patch
openjpeg2        5 CVE-2024-56826.patch
openjpeg2        6 CVE-2024-56827.patch
openjpeg2        8 CVE-2026-6192.patch
tiff            13 CVE-2023-41175.patch
tiff            17 CVE-2023-2908.patch
tiff            18 CVE-2023-52356.patch
tiff            19 CVE-2023-26966.patch
tiff            20 CVE-2024-7006.patch
tiff            21 CVE-2025-9900.patch
tiff            22 CVE-2026-4775.patch
libarchive      19 CVE-2026-4426_CVE-2026-5121.patch
libarchive      20 CVE-2026-14164.patch
libarchive      21 CVE-2026-15028.patch
libarchive      22 CVE-2026-16517.patch
libevent         7 CVE-2026-63384.patch
libevent         8 CVE-2026-63385.patch
libevent         9 CVE-2026-63387.patch
libevent        10 CVE-2026-63388.patch | struct bufferevent_private
libevent/lto     9 CVE-2026-63387.patch
libxml2         30 CVE-2025-8732.patch
libxml2         31 CVE-2026-0990.patch
libxml2         32 CVE-2026-0992/01-4af23b523.patch
libxml2         35 CVE-2026-0989.patch
unbound         19 CVE-2025-5994.patch | struct subnet_qstate
unbound         21 CVE-2025-11411/1-iterator-iter_scrub.c-pass-module_env-parameter-to-s.patch
unbound         22 CVE-2025-11411/2-possible-domain-hijacking-attack.patch | struct config_file
unbound         23 CVE-2025-11411/3-additional-fix-for-possible-domain-hijacking.patch
redis           20 CVE-2026-25243.patch
redis           21 CVE-2026-66373.patch
redis           23 CVE-2026-92925.patch
busybox         12 CVE-2022-48174.patch
busybox         14 CVE-2023-42364-part2.patch
busybox         15 CVE-2023-42363.patch
tar              6 Fix-boundary-checking-in-base-256-decoder.patch
tar              7 Fix-handling-of-extended-header-prefixes.patch
openssh         46 CVE-2026-35388.patch
openssh         47 CVE-2026-35385.patch
openssh         48 CVE-2026-35387.patch
openssh         49 CVE-2026-35414.patch
curl            42 CVE-2026-3783.patch
curl            43 CVE-2026-3784.patch
curl            44 CVE-2026-5773.patch
curl            45 CVE-2026-7168.patch
`

// How the trees of many packages are configured and built.
const (
	// settle makes what autoconf and automake left newer than its sources, some
	// of which fixes change.
	settle = "touch made && find . '(' -name aclocal.m4 -o -name configure -o -name config.h.in -o -name Makefile.in ')' -exec touch -r made '{}' +"
	cmake  = `cmake -S . -B b -DCMAKE_BUILD_TYPE=None -DBUILD_SHARED_LIBS=ON` +
		` -DCMAKE_C_FLAGS="$CPPFLAGS $CFLAGS" -DCMAKE_CXX_FLAGS="$CPPFLAGS $CXXFLAGS"` +
		` -DCMAKE_SHARED_LINKER_FLAGS="$LDFLAGS" -DCMAKE_EXE_LINKER_FLAGS="$LDFLAGS"`
	makeAll    = "make -j$JOBS"
	cmakeBuild = "cmake --build b -j $JOBS"
)

var autoconfNeeds = []string{"autoconf", "automake", "libtoolize"}

// debianRecipes say how the packages of [Debian] are built: their versions are
// those of Debian 12's archive, and the digests those of their .dsc files,
// which have the digests of the archives.
var debianRecipes = map[string]recipe{
	"dnsmasq": {
		version: "2.90-4~deb12u2", dsc: "e962782cd9f298a8c6a92ce6f7434629268f53ddbd9908d40d0bec5f08381c5c",
		needs: []string{"pkg-config", "nettle/ecdsa.h"},
		build: []string{`make -j$JOBS CFLAGS="$CPPFLAGS $CFLAGS" LDFLAGS="$LDFLAGS" COPTS=-DHAVE_DNSSEC`},
		runs:  map[string]string{"src/dnsmasq": "-k -p 0 -C /dev/null -u root --pid-file="},
	},
	"giflib": {
		version: "5.2.1-2.5+deb12u1", dsc: "5206a92fd4a057768f429033a3a80bc1e06453f6c60dfec243d8188fa6ade3f4",
		build: []string{`make -j$JOBS CFLAGS="-std=gnu99 -fPIC $CPPFLAGS $CFLAGS" LDFLAGS="$LDFLAGS" libgif.so libgif.a`},
	},
	"yajl": {
		version: "2.1.0-3+deb12u2", dsc: "38420d432584960203b37e108bcf39a5b6f0f2c96620af51e358ad2ce2e8746b",
		needs:     []string{"cmake"},
		configure: []string{cmake},
		build:     []string{"make -C b -j$JOBS yajl"},
	},
	"libebml": {
		version: "1.4.4-1+deb12u1", dsc: "454903b0b66793731ee446bafa3aac50558625c62143443d471751d80f9ec892",
		needs:     []string{"cmake", "g++"},
		configure: []string{cmake},
		build:     []string{cmakeBuild},
	},
	"taglib": {
		version: "1.13-2+deb12u1", dsc: "44c23d5ac3a1b527938e6fee6e423944e698da1ce906daf4e0d8c6754a1c59d9",
		needs:     []string{"cmake", "g++", "zlib.h", "utf8.h"},
		configure: []string{cmake},
		build:     []string{cmakeBuild + " --target tag"},
	},
	"libheif": {
		version: "1.15.1-1+deb12u1", dsc: "e89ce8b9cefe4a72050d2076e0d63206eab20d7b2b8bb699ae576e89073143f3",
		needs:     []string{"cmake", "g++", "jpeglib.h", "png.h"},
		configure: []string{cmake},
		build:     []string{cmakeBuild},
		runs:      map[string]string{"b/examples/heif-convert": "/dev/stdin image.jpg"},
	},
	"libmodbus": {
		version: "3.1.6-2.1+deb12u1", dsc: "ec4fdf10183e2d4cc2e02054b75811e11ae295b3b493b712771ddb9c670bdc9e",
		needs:     autoconfNeeds,
		configure: []string{"autoreconf -fi", "./configure --disable-static"},
		build:     []string{makeAll + " -C src"},
	},
	"djvulibre": {
		version: "3.5.28-2.2~deb12u1", dsc: "379a5063097f1928b3755aab5c0105a6e1cdb111f06c50bce417f814971f9bcb",
		needs:     append([]string{"g++"}, autoconfNeeds...),
		configure: []string{"autoreconf -fi", "./configure --disable-static --disable-desktopfiles"},
		build:     []string{makeAll + " -C libdjvu"},
	},
	"libsndfile": {
		version: "1.2.0-1+deb12u1", dsc: "74686b038b925f4b238d0a37e36671e5b924fe1678083037494923140403fa8e",
		needs:     []string{"cmake", "FLAC/all.h", "ogg/ogg.h", "opus/opus.h", "vorbis/codec.h"},
		configure: []string{cmake + " -DENABLE_MPEG=OFF -DBUILD_PROGRAMS=OFF -DBUILD_EXAMPLES=OFF -DBUILD_TESTING=OFF"},
		build:     []string{cmakeBuild},
	},
	"libwebp": {
		version: "1.2.4-0.2+deb12u1", dsc: "d9ed0b59e2010f255c28d0869fd15b31f9b08aed757bfc91862d43aa9ec1aa99",
		configure: []string{settle, "./configure --disable-static --disable-gl --disable-sdl --disable-png --disable-jpeg --disable-tiff --disable-gif"},
		build:     []string{makeAll},
	},
	"libuv1": {
		version: "1.44.2-1+deb12u1", dsc: "798be0a2bcbcd40bb85302f6ccbf02b240e1958d4ad9cf153b8101c3a82f21b9",
		needs:     []string{"cmake"},
		configure: []string{cmake + " -DLIBUV_BUILD_TESTS=OFF -DBUILD_TESTING=OFF"},
		build:     []string{cmakeBuild + " --target uv"},
	},
	"nghttp2": {
		version: "1.52.0-1+deb12u3", dsc: "d4fcb364e461616ef63cb0653a71f08a9ae23703d497745e90160ed7d1eda393",
		needs:     []string{"cmake"},
		configure: []string{cmake + " -DENABLE_LIB_ONLY=ON"},
		build:     []string{cmakeBuild},
	},
	"xz-utils": {
		version: "5.4.1-1+deb12u2", dsc: "bffc9917562b5787661379621bb1f7510bf7271b03d8ce4181cebc84b90d3c35",
		configure: []string{settle, "./configure --disable-static --disable-doc"},
		build:     []string{makeAll},
		runs:      map[string]string{"src/xz/.libs/xz": "-z -c"},
	},
	"mosquitto": {
		version: "2.0.11-1.2+deb12u2", dsc: "77afb2d38230b37b085ff7b363a71669951044460e28731e958c0b94019e9263",
		needs: []string{"openssl/ssl.h"},
		build: []string{"make -j$JOBS -C lib libmosquitto.so.1 WITH_CJSON=no", "make -j$JOBS -C src mosquitto WITH_CJSON=no WITH_SYSTEMD=no"},
		runs:  map[string]string{"src/mosquitto": "-p 18883"},
	},
	"openjpeg2": {
		version: "2.5.0-2+deb12u3", dsc: "f570a7c10d36f2d5b2553941e7821ed88d1cf7a93f9c49e7f6099e53f4491f47",
		needs:     []string{"cmake"},
		configure: []string{cmake + " -DBUILD_CODEC=ON"},
		build:     []string{cmakeBuild + " --target openjp2 opj_decompress"},
	},
	"tiff": {
		version: "4.5.0-6+deb12u4", dsc: "b32082304d725936078d687303fcf771c9ecf738b505f9a66a29e8ba282c8615",
		needs:     []string{"cmake", "zlib.h"},
		configure: []string{cmake + " -Dtiff-tests=OFF -Dtiff-docs=OFF -Dtiff-contrib=OFF"},
		build:     []string{cmakeBuild + " --target tiff raw2tiff tiffcp"},
	},
	"libarchive": {
		version: "3.6.2-1+deb12u5", dsc: "aa86e919d6899ed11cc78c812d25a99b0493cbcc0e89b303507bf66d7dbda216",
		needs:     append([]string{"zlib.h"}, autoconfNeeds...), // a fix changes Makefile.am
		configure: []string{settle, "./configure --disable-static --without-xml2 --without-expat --without-openssl"},
		build:     []string{makeAll + " libarchive.la bsdtar"},
		runs:      map[string]string{".libs/bsdtar": "-tf -", "bsdtar": "-tf -"},
	},
	"libevent": {
		version: "2.1.12-stable-8+deb12u1", dsc: "acc01f440019a0369c1cf0e6256a22037a65f032b5192ee14bad548889074b55",
		needs:     []string{"cmake", "openssl/ssl.h"},
		configure: []string{cmake + " -DEVENT__DISABLE_TESTS=ON -DEVENT__DISABLE_SAMPLES=ON -DEVENT__DISABLE_BENCHMARK=ON -DEVENT__LIBRARY_TYPE=SHARED"},
		build:     []string{cmakeBuild},
	},
	"libxml2": {
		version: "2.9.14+dfsg-1.3~deb12u6", dsc: "d86ce3efb1b75d2781f72f5cdd187474c148a915d610295c85162681bb070a65",
		configure: []string{settle, "./configure --disable-static --without-python --without-icu --without-lzma"},
		build:     []string{makeAll + " libxml2.la xmllint"},
	},
	"unbound": {
		version: "1.17.1-2+deb12u4", dsc: "7833b82f7a888354c672dd743c19551325cb745e9a70793e90f4c9493ebaa065",
		needs:     []string{"openssl/ssl.h", "expat.h", "bison", "flex"},
		configure: []string{settle, "./configure --disable-static --without-libevent --enable-subnet --without-pythonmodule --without-pyunbound --disable-rpath --with-username= --with-chroot-dir= --with-pidfile= --with-run-dir=/"},
		build:     []string{makeAll + " unbound unbound-checkconf libunbound.la"},
		runs:      map[string]string{"unbound": "-dd -p -c /dev/null", ".libs/unbound": "-dd -p -c /dev/null"},
	},
	"redis": {
		version: "5:7.0.15-1~deb12u10", dsc: "6416560d9f6e692a524867d8a437d97c9310c374a70d0bac1fee9259bf5e9463",
		build: []string{"make -C src -j$JOBS MALLOC=libc redis-server"},
		runs:  map[string]string{"src/redis-server": "--port 0 --save ''"},
	},
	"busybox": {
		version: "1:1.35.0-4+deb12u1", dsc: "9c01fe128b0eeded371c70e37d474fdb5055f71b5d0a778db44c6b0c62d3a7fa",
		configure: []string{"make defconfig"},
		build:     []string{makeAll + " SKIP_STRIP=y"}, // adds its flags to those of the environment
		runs:      map[string]string{"busybox_unstripped": "sh"},
	},
	"tar": {
		version: "1.34+dfsg-1.2+deb12u1", dsc: "c092b25be17ab3b138aabb756497b038516a3f7d23604ccd4bf76ebbabff7a27",
		env:       []string{"FORCE_UNSAFE_CONFIGURE=1"},
		configure: []string{settle, "./configure --disable-nls"},
		build:     []string{makeAll + " -C lib", makeAll + " -C gnu", makeAll + " -C src"},
		runs:      map[string]string{"src/tar": "-tf -"},
	},
	"openssh": {
		version: "1:9.2p1-2+deb12u10", dsc: "af8cfb3ce783604abd28183a52aa0bde8c6bc603cc35758035db48d1dac5f2e2",
		needs:     []string{"openssl/ssl.h", "zlib.h"},
		configure: []string{settle, "./configure --with-privsep-path=/var/empty"},
		build:     []string{makeAll + " sshd ssh ssh-agent scp sftp"},
	},
	"curl": {
		version: "7.88.1-10+deb12u15", dsc: "2744f12e3aef161c0361743fa1b318296b122e566e47f381e4a63320fbcc23f4",
		needs:     []string{"openssl/ssl.h", "zlib.h"},
		configure: []string{settle, "./configure --disable-static --with-openssl --without-libpsl --without-libssh2 --disable-manual"},
		build:     []string{makeAll + " -C lib", makeAll + " -C src"},
	},
}
