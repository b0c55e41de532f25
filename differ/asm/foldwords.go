package asm

// Eight bytes are looked at as one number. A byte is compared by its lower six
// bits, with a sum that cannot reach the next byte: bit 6 of (c&63)+64-n is set
// if they are n or more, and that of (c&63^n)+63 if they are not n. The bits
// above tell whether the byte is 64 or more.
const (
	each   = 0x0101010101010101
	low    = 0x3f * each
	bit6   = 0x40 * each
	other6 = 0x3f * each
)

// large has bit 6 of each byte from 64 on.
func large(x uint64) uint64 { return (x | x>>1) & bit6 }

// oddBytes has bit 6 of each byte of x that ends a line or is left to the
// parser in all dialects, and of others that compilers hardly write. hx is
// large(x).
func oddBytes(x, hx uint64) uint64 {
	v := x & low
	odd := (v+(64-'\n')*each)&^(v+(64-' ')*each) | // line ends and other control bytes
		(v + (64-':')*each) | // : ; < = > ?
		^((v | 8*each) ^ '/'*each + other6) // ' and /
	return odd&^hx&bit6 | x>>1&bit6 // and what is not ASCII
}

// candidatesWord is for dialects in which every word is a symbol that is not
// marked as something else.
func candidatesWord(before, x uint64) uint64 {
	hb, hx := large(before), large(x)
	u, v := before&low, x&low
	odd := oddBytes(x, hx) |
		(v+(64-'!')*each)&^(v+(64-'$')*each)&^hx&bit6 | // ! " #
		((x&(0x1f*each)+0x1f*each)&(0x1f*each)+(0x20-0x1a)*each)<<1&hx // @ [ \ ] ^ ` { | } ~, and _, which is in symbols only
	// A letter or point begins a word behind bytes before the point, but for %.
	begins := ^(u + (64-'.')*each) & (u ^ '%'*each + other6) &^ hb & (hx | ^(v ^ '.'*each + other6))
	// The end of a numeric label.
	ends := (u + (64-'0')*each) &^ hb & hx &^ ((v | 4*each) ^ ('f'&63)*each + other6)
	return odd | (begins|ends)&bit6
}

// candidatesPlain is for dialects in which words need not be symbols.
func candidatesPlain(before, x uint64) uint64 {
	hb, hx := large(before), large(x)
	u, v := before&low, x&low
	odd := oddBytes(x, hx) |
		(v+(64-'"')*each)&^(v+(64-'&')*each)&^hx&bit6 | // " # $ %
		^(v^('{'&63)*each+other6)&hx | ^(v^('\\'&63)*each+other6)&hx
	ends := (u + (64-'0')*each) &^ hb & hx &^ ((v | 4*each) ^ ('f'&63)*each + other6)
	return odd&bit6 | ends&bit6
}
