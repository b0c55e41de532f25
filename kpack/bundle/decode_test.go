package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/fother/fother/kpack"
	"github.com/fother/fother/specs"
	"github.com/fother/fother/specs/arch"
)

// entry is a file of a hand-made archive.
type entry struct {
	header tar.Header
	body   []byte
}

// entries are those of a good bundle.
func entries(t testing.TB) []entry {
	t.Helper()
	content, err := decompress(encode(t, release(), twoFiles(t)...))
	if err != nil {
		t.Fatal(err)
	}
	var all []entry
	for r := newReader(content); ; {
		h, err := r.tar.Next()
		if err != nil {
			return all
		}
		rest := content[len(content)-r.source.Len():]
		all = append(all, entry{*h, rest[:h.Size:h.Size]})
	}
}

func tarOf(t testing.TB, all []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range all {
		if e.header.Typeflag == tar.TypeReg {
			e.header.Size = int64(len(e.body))
		}
		if err := w.WriteHeader(&e.header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// manifestText replaces text in the manifest.
func manifestText(old, new string) func([]entry) []entry {
	return func(all []entry) []entry {
		if !bytes.Contains(all[0].body, []byte(old)) {
			panic("the manifest does not say " + old)
		}
		all[0].body = bytes.Replace(all[0].body, []byte(old), []byte(new), 1)
		return all
	}
}

// manifestValue changes the manifest, which stays what Encode would write.
func manifestValue(change func(*Manifest)) func([]entry) []entry {
	return func(all []entry) []entry {
		var m Manifest
		if err := json.Unmarshal(all[0].body, &m); err != nil {
			panic(err)
		}
		change(&m)
		text, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			panic(err)
		}
		all[0].body = append(text, '\n')
		return all
	}
}

func TestHostileArchive(t *testing.T) {
	tests := map[string]struct {
		change func([]entry) []entry
		class  error
		want   string
	}{
		"unchanged":         {func(all []entry) []entry { return all }, nil, ""},
		"unknown key":       {manifestText(`"format": 1,`, `"format": 1, "later": [{"x": 1}, {"x": {}}],`), nil, ""},
		"empty":             {func([]entry) []entry { return nil }, ErrNotBundle, "manifest.json is missing"},
		"another archive":   {func(all []entry) []entry { return all[1:] }, ErrNotBundle, "in the place of manifest.json"},
		"no manifest first": {func(all []entry) []entry { return []entry{all[1], all[0], all[2]} }, ErrNotBundle, "in the place of manifest.json"},
		"missing":           {func(all []entry) []entry { return all[:2] }, ErrDamaged, string(idB) + ".kpatch is missing"},
		"twice":             {func(all []entry) []entry { return append(all, all[2]) }, ErrDamaged, "the manifest does not name it"},
		"twice, first":      {func(all []entry) []entry { return []entry{all[0], all[1], all[1], all[2]} }, ErrDamaged, "in the place of " + string(idB)},
		"second manifest":   {func(all []entry) []entry { return append(all, all[0]) }, ErrDamaged, "the manifest does not name it"},
		"order":             {func(all []entry) []entry { return []entry{all[0], all[2], all[1]} }, ErrDamaged, "in the place of"},
		"name out":          {func(all []entry) []entry { all[1].header.Name = "../x"; return all }, ErrDamaged, `"../x"`},
		"name out, agreed on": {func(all []entry) []entry {
			all[1].header.Name = "../x"
			return manifestText(string(idA)+".kpatch", "../x")(all)
		}, ErrDamaged, "the manifest says otherwise"},
		"absolute": {func(all []entry) []entry { all[1].header.Name = "/etc/passwd"; return all }, ErrDamaged, `"/etc/passwd"`},
		"./":       {func(all []entry) []entry { all[1].header.Name = "./" + all[1].header.Name; return all }, ErrDamaged, "in the place of"},
		"link": {func(all []entry) []entry {
			all[1].header = tar.Header{Typeflag: tar.TypeSymlink, Name: all[1].header.Name, Linkname: "/etc/passwd"}
			all[1].body = nil
			return all
		}, ErrDamaged, "type '2'"},
		"device": {func(all []entry) []entry {
			all[1].header, all[1].body = tar.Header{Typeflag: tar.TypeBlock, Name: all[1].header.Name}, nil
			return all
		}, ErrDamaged, "type '4'"},
		"owner":        {func(all []entry) []entry { all[1].header.Uid = 1; return all }, ErrDamaged, "form"},
		"owner's name": {func(all []entry) []entry { all[1].header.Uname = "root"; return all }, ErrDamaged, "form"},
		"mode":         {func(all []entry) []entry { all[1].header.Mode = 0o4755; return all }, ErrDamaged, "form"},
		"time":         {manifestText("04:05:06", "04:05:07"), ErrDamaged, "form"},
		"extension": {func(all []entry) []entry {
			all[1].header.Format = tar.FormatPAX
			all[1].header.PAXRecords = map[string]string{"A.b": "c"}
			return all
		}, ErrDamaged, "form"},
		"format 2":       {manifestText(`"format": 1`, `"format": 2`), ErrFormat, "version 2: this program reads version 1"},
		"format none":    {manifestText(`"format": 1,`, ``), ErrFormat, "version 0"},
		"no JSON":        {manifestText(`{`, `[`), ErrDamaged, "manifest.json"},
		"two values":     {manifestText("{", "{}{"), ErrDamaged, "manifest.json"},
		"key twice":      {manifestText(`"level": 3`, `"level": 3, "LEVEL": 3`), ErrDamaged, `"level" stands twice`},
		"key twice deep": {manifestText(`"arch": "aarch64"`, `"arch": "aarch64", "arch": "aarch64"`), ErrDamaged, `"arch" stands twice`},
		"level":          {manifestText(`"level": 3`, `"level": 4`), ErrDamaged, `level "3": the bundle's is "4"`},
		"level of 2^32":  {manifestText(`"level": 3`, `"level": 4294967296`), ErrDamaged, "level"},
		"series":         {manifestText(`"series": "default"`, `"series": "other"`), ErrDamaged, `series "default"`},
		"CVE":            {manifestText("CVE-2026-2", "CVE-2026-3"), ErrDamaged, "CVEs"},
		"reason":         {manifestText("it never returns", "because"), ErrDamaged, "consistency"},
		"build-id":       {manifestText(`"build_id": "aa`, `"build_id": "ab`), ErrDamaged, "manifest says otherwise"},
		"arch":           {manifestText(`"arch": "x86_64"`, `"arch": "riscv64"`), ErrDamaged, "manifest says otherwise"},
		"function":       {manifestText(`"name": "check"`, `"name": "harmless"`), ErrDamaged, "manifest says otherwise"},
		"next call":      {manifestText(`"next_call": true`, `"next_call": false`), ErrDamaged, "manifest says otherwise"},
		"size":           {manifestValue(func(m *Manifest) { m.Targets[0].Size++ }), ErrDamaged, "the manifest says"},
		"no size":        {manifestValue(func(m *Manifest) { m.Targets[0].Size = -1 }), ErrDamaged, "manifest says otherwise"},
		"digest":         {manifestValue(func(m *Manifest) { m.Targets[0].Digest[5]++ }), ErrDamaged, "digest is not that of the manifest"},
		"no targets":     {manifestValue(func(m *Manifest) { m.Targets = nil }), ErrDamaged, "0 patches"},
		"too many":       {manifestValue(func(m *Manifest) { m.Targets = make([]Target, maxTargets+1) }), ErrDamaged, "4097 patches"},
		"target twice":   {manifestValue(func(m *Manifest) { m.Targets[1] = m.Targets[0] }), ErrDamaged, "two patches for build-id"},
		"not sorted":     {manifestValue(func(m *Manifest) { slices.Reverse(m.Targets) }), ErrDamaged, "not sorted"},
		"local time":     {manifestText(`06Z`, `06.5Z`), ErrDamaged, "whole seconds"},
		"patch":          {func(all []entry) []entry { all[1].body[100] ^= 1; return all }, ErrDamaged, "digest"},
		"another patch":  {anotherPatch(t), ErrDamaged, `level "9"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			data := encoder().EncodeAll(tarOf(t, tt.change(entries(t))), nil)
			b, err := Decode(data)
			if tt.class == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if b != nil || !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %v, %q", err, tt.class, tt.want)
			}
		})
	}
}

// anotherPatch puts a patch of another level, which agrees with nothing but its
// size and digest.
func anotherPatch(t *testing.T) func([]entry) []entry {
	file := patchFile(t, arch.X86_64, idA, bytes.Repeat([]byte{0x90}, 64), func(p *kpack.Patch) { p.Meta.Level = 9 })
	return func(all []entry) []entry {
		all[1].body = file
		return manifestValue(func(m *Manifest) {
			p, err := kpack.Decode(file)
			if err != nil {
				t.Fatal(err)
			}
			m.Targets[0] = targetOf(p, int64(len(file)), m.Targets[0].Digest)
			m.Targets[0].Digest = specs.DigestOf(file)
		})(all)
	}
}

// TestHostileFrame changes what is around the archive.
func TestHostileFrame(t *testing.T) {
	good := encode(t, release(), twoFiles(t)...)
	content, err := decompress(good)
	if err != nil {
		t.Fatal(err)
	}
	with := func(o ...zstd.EOption) []byte {
		e, err := zstd.NewWriter(nil, o...)
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(content, nil)
	}
	skippable := append(binary.LittleEndian.AppendUint64(nil, 4<<32|0x184D2A50), "skip"...)
	var streamed bytes.Buffer
	w, _ := zstd.NewWriter(&streamed)
	w.Write(content[:1000])
	w.Flush()
	w.Write(content[1000:])
	w.Close()
	tests := map[string]struct {
		data  []byte
		class error
		want  string
	}{
		"nothing":          {nil, ErrNotBundle, "zstd"},
		"patch":            {twoFiles(t)[0], ErrNotBundle, "zstd"},
		"skippable first":  {slices.Concat(skippable, good), ErrNotBundle, "zstd"},
		"magic only":       {zstdMagic, ErrDamaged, "frame header"},
		"trailing byte":    {append(slices.Clone(good), 0), ErrDamaged, "1 bytes follow the frame"},
		"second frame":     {slices.Concat(good, good), ErrDamaged, "follow the frame"},
		"skippable behind": {slices.Concat(good, skippable), ErrDamaged, "12 bytes follow"},
		"empty frame":      {slices.Concat(good, encoder().EncodeAll([]byte{1}, nil)), ErrDamaged, "follow the frame"},
		"no checksum":      {with(zstd.WithEncoderCRC(false)), ErrDamaged, "no size or checksum"},
		"no size":          {streamed.Bytes(), ErrDamaged, "no size or checksum"},
		"window":           {window(t, good, 0xf8), ErrTooLarge, "window"},
		"other level":      {with(zstd.WithEncoderLevel(zstd.SpeedFastest)), nil, ""},
		"bomb":             {bomb(maxContent+1, 1<<13), ErrTooLarge, "content of"},
		"bomb that lies":   {bomb(1, 1<<13), ErrDamaged, ""},
		"small bomb":       {bomb(maxContent, 4), ErrDamaged, "its 4 blocks hold"},
		"reserved block":   {reserved(), ErrDamaged, ""},
		"trailing content": {encoder().EncodeAll(append(slices.Clone(content), 1), nil), ErrDamaged, "form"},
		"trailing zeros":   {encoder().EncodeAll(append(slices.Clone(content), make([]byte, 512)...), nil), ErrDamaged, "form"},
		"no end":           {encoder().EncodeAll(content[:len(content)-1024], nil), ErrDamaged, ""},
		"text":             {encoder().EncodeAll(bytes.Repeat([]byte("hello"), 300), nil), ErrNotBundle, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b, err := Decode(tt.data)
			if tt.class == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if b != nil || !errors.Is(err, tt.class) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %v, %q", err, tt.class, tt.want)
			}
		})
	}
}

// frameHeader begins a frame with a checksum, a window and a size of 8 bytes
// (RFC 8878, 3.1.1.1).
func frameHeader(window byte, size uint64) []byte {
	b := append(slices.Clone(zstdMagic), 3<<6|1<<2, window)
	return binary.LittleEndian.AppendUint64(b, size)
}

// bomb is a frame of blocks that repeat one byte, each as long as may be, with a
// wrong checksum.
func bomb(size uint64, blocks int) []byte {
	b := frameHeader(0x50, size) // a window of 1 MiB
	for i := range blocks {
		h := uint32(maxBlock)<<3 | 1<<1
		if i == blocks-1 {
			h |= 1
		}
		b = append(b, byte(h), byte(h>>8), byte(h>>16), 0)
	}
	return append(b, 0, 0, 0, 0)
}

func reserved() []byte {
	return append(frameHeader(0x50, 5), 5<<3|3<<1|1, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 0)
}

// window makes a frame with a window descriptor of a good one.
func window(t *testing.T, good []byte, descriptor byte) []byte {
	var h zstd.Header
	if err := h.Decode(good); err != nil {
		t.Fatal(err)
	}
	return append(frameHeader(descriptor, h.FrameContentSize), good[h.HeaderSize:]...)
}

// TestBombIsCheap: what a file says of its size is not believed.
func TestBombIsCheap(t *testing.T) {
	var before, after runtime.MemStats
	for _, data := range [][]byte{bomb(maxContent, 4), bomb(1<<40, 1<<13), bomb(1, 1<<13)} {
		runtime.ReadMemStats(&before)
		if _, err := Decode(data); err == nil {
			t.Error("a bomb is a bundle")
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
			t.Errorf("%d bytes allocated for a file of %d", n, len(data))
		}
	}
}

// TestDamaged flips and cuts.
func TestDamaged(t *testing.T) {
	good := encode(t, release(), twoFiles(t)...)
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 0x41
		if _, err := Decode(bad); err == nil {
			// Bits that no reader looks at are allowed to differ: there are none.
			t.Errorf("byte %d changed: no error", i)
		}
		if _, err := Decode(good[:i]); err == nil {
			t.Errorf("cut at %d: no error", i)
		}
	}
}
