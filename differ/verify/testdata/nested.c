// Nested functions that only their numbers tell apart, and who uses them. Each
// PLANT but 0 turns the users around, and with them the numbers, and changes one
// thing.
#include <stdio.h>

#ifndef PLANT
#define PLANT 0
#endif
#define IS(n) (PLANT == (n))
#define OUT __attribute__((noinline, noclone))

#define FA \
	OUT int fa(int x) \
	{ \
		OUT int helper(int y) \
		{ \
			static int n = IS(6) ? 7 : 5; /* 6 n.: the initial values change places */ \
			n += IS(4) ? y ^ 3 : y; \
			return n; \
		} \
		OUT const char *name(void) { return IS(5) ? "second" : "first"; } \
		return helper(x) * (IS(2) ? 10 : 1 /* 2 fa */) + name()[0]; \
	}
#define FB \
	OUT int fb(int x) \
	{ \
		OUT int helper(int y) \
		{ \
			static int n = IS(6) ? 5 : 7; \
			n += IS(3) || IS(4) ? y * 3 : y; /* 3 helper: one changes */ /* 4 helper: both */ \
			return n; \
		} \
		OUT const char *name(void) { return IS(5) ? "first" : "second"; } /* 5 fa|fb: they change places */ \
		return helper(x) + name()[0]; \
	}

#if PLANT == 0
FA
FB
#else
FB
FA
#endif

int main(int argc, char **argv)
{
	printf("%d %d\n", fa(argc), fb(argc));
	return 0;
}
