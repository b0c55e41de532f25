package bundle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// zstdMagic begins a Zstandard frame (RFC 8878, 3.1.1).
var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

const (
	// maxWindow bounds what a decoder has to remember, in bytes.
	maxWindow = 8 << 20
	// maxBlock is the largest content of one block (RFC 8878, 3.1.1.2.4).
	maxBlock = 128 << 10
)

// checkFrame makes sure, before anything is allocated, that data is one
// Zstandard frame and nothing else, with a checksum and an honest size. It
// returns the size of the content.
func checkFrame(data []byte) (uint64, error) {
	var h zstd.Header
	if err := h.Decode(data); err != nil {
		return 0, fmt.Errorf("frame header: %w", err)
	}
	switch {
	case h.Skippable:
		return 0, errors.New("begins with a frame to be skipped")
	case !h.HasFCS || !h.HasCheckSum || h.DictionaryID != 0:
		return 0, errors.New("the frame has no size or checksum, or wants a dictionary")
	case h.FrameContentSize > maxContent:
		return 0, fmt.Errorf("%w: content of %d bytes: want at most %d", ErrTooLarge, h.FrameContentSize, maxContent)
	case !h.SingleSegment && h.WindowSize > maxWindow:
		return 0, fmt.Errorf("%w: a window of %d bytes: want at most %d", ErrTooLarge, h.WindowSize, maxWindow)
	}
	end, blocks, err := frameEnd(data, h.HeaderSize)
	if err != nil {
		return 0, err
	}
	if end != len(data) {
		return 0, fmt.Errorf("%d bytes follow the frame", len(data)-end)
	}
	if h.FrameContentSize > uint64(blocks)*maxBlock {
		return 0, fmt.Errorf("says that its %d blocks hold %d bytes", blocks, h.FrameContentSize)
	}
	return h.FrameContentSize, nil
}

// frameEnd goes through the blocks from at on, and returns where the frame ends
// with its checksum. Source: RFC 8878, 3.1.1.2.
func frameEnd(data []byte, at int) (end, blocks int, err error) {
	const header, checksum, rle = 3, 4, 1
	for last := false; !last; blocks++ {
		if at+header > len(data) {
			return 0, 0, errors.New("ends within a block")
		}
		h := uint32(data[at]) | uint32(binary.LittleEndian.Uint16(data[at+1:]))<<8
		last = h&1 != 0
		size := int(h >> 3)
		if h>>1&3 == rle {
			size = 1
		}
		at += header + size
	}
	if at+checksum > len(data) {
		return 0, 0, errors.New("ends within a block")
	}
	return at + checksum, blocks, nil
}

// decompress returns the content of a bundle.
func decompress(data []byte) ([]byte, error) {
	size, err := checkFrame(data)
	if err != nil {
		return nil, err
	}
	content, err := decoder().DecodeAll(data, nil)
	if err != nil {
		return nil, err
	}
	if uint64(len(content)) != size {
		return nil, fmt.Errorf("content of %d bytes: the frame says %d", len(content), size)
	}
	return content, nil
}

var decoder = sync.OnceValue(func() *zstd.Decoder {
	// Single segments have a window as large as their content.
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxContent), zstd.WithDecoderMaxWindow(maxContent))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
})
