/* One program with much of what linked code may refer to. Each PLANT changes
   one thing; what follows the number is what the oracle has to name. GROW puts
   new data, strings and code in front, which changes nothing but addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#ifndef PLANT
#define PLANT 0
#endif
#define IS(n) (PLANT == (n))
#define NOINLINE __attribute__((noinline))

#ifdef GROW
NOINLINE int grown(int x)
{
	static const char *const words[] = {"a new string", "one more", "eat"};
	static int count, table[37];
	static double grown_scale = 2.75;
	printf("%s %d %f\n", words[x % 3], table[x % 37]++ + ++count, grown_scale * 1.5);
	switch (x) {
	case 0: return count; case 1: return 7; case 2: return x * 3; case 3: return -1;
	case 4: return x ^ 99; case 5: puts("grown five"); return 5; case 6: return 60;
	}
	return 0;
}
char grown_buffer[77] = "grown";
__thread int grown_thread = 3;
#endif

struct item { int kind, size, weight; const char *name; long extra[3]; };
static int first_counter = 1, second_counter = 2;
int shared_value = 10, other_value = 20;
char buffer[300];
static __thread int thread_one = 1;
static __thread int thread_two = 2;
static long series[16] = {1, 2, 3, 4, 5, 6, 7, 8};
static long after_series[4];
static const int squares[] = {0, 1, 4, 9, 16, IS(10) ? 26 : 25, 36, 49, 64, 81}; /* 10 squares */
static int limits[] = {5, 6, IS(11) ? 70 : 7, 8, 9}; /* 11 limits */

NOINLINE int immediate(int x) { return x * 37 + (IS(1) ? 6 : 5); } /* 1 immediate */
NOINLINE int compare(int x) { if (IS(2) ? x > 12 : x >= 12) puts("large"); return x + 2; } /* 2 compare */
NOINLINE int callee_a(int x) { return x * 7 + shared_value; }
NOINLINE int callee_b(int x) { return x * 9 + other_value; }
NOINLINE int caller(int x) { return (IS(3) ? callee_b(x) : callee_a(x)) + 1; } /* 3 caller */
NOINLINE const char *message(int x) { return x ? (IS(4) ? "heat" : "meat") : "treat"; } /* 4 message */

NOINLINE int dispatch(int x) /* 5 dispatch */
{
	switch (x) {
	case 10: puts("ten"); return 1;
	case 11: return callee_a(x);
	case 12: puts("twelve"); return 3;
	case 13: return callee_b(x) + 4;
	case 14: puts("fourteen"); return shared_value;
	case IS(5) ? 16 : 15: return other_value * 3;
	case IS(5) ? 15 : 16: puts("sixteen"); return 9;
	case 17: return x * x;
	case 18: return callee_a(x + 1) - 1;
	}
	return 0;
}

NOINLINE int global(int x) { return x + (IS(6) ? other_value : shared_value); } /* 6 global */
NOINLINE long field(struct item *i) { return i->kind + (IS(7) ? i->weight : i->size) + i->extra[1]; } /* 7 field */
NOINLINE int operands(int a, int b) { return IS(8) ? b - a : a - b; } /* 8 operands */

NOINLINE int unlikely_path(int x) /* 9 unlikely_path */
{
	if (__builtin_expect(x == 123456, 0)) {
		fprintf(stderr, "bad %d\n", x);
		if (x > 99) fputs("very bad\n", stderr);
		fflush(stderr);
		exit(IS(9) ? 4 : 3);
	}
	return x + first_counter;
}

NOINLINE int lookup(unsigned x) { return squares[x % 10] + limits[x % 5]; }
NOINLINE size_t import(const char *s) { return IS(12) ? strspn(s, "abc") : strcspn(s, "abc"); } /* 12 import */
NOINLINE double scale(double x) { return x * (IS(13) ? 1.25 : 1.125) + 0.5; } /* 13 scale */
NOINLINE int statics(int x) { if (x) return ++first_counter; return IS(14) ? ++first_counter : ++second_counter; } /* 14 statics */

typedef int (*handler)(int);
static const handler handlers[] = {immediate, IS(15) ? caller : compare, callee_a, callee_b}; /* 15 handlers */
handler writable_handlers[] = {callee_a, IS(16) ? immediate : callee_b}; /* 16 writable_handlers */
NOINLINE int indirect(int x) { return handlers[x & 3](x) + writable_handlers[x & 1](x); }

NOINLINE int numbered_one(void) { static int count = 5; return ++count; }
NOINLINE int numbered_two(void) { static int count = IS(17) ? 8 : 7; return count += 2; } /* 17 count */
NOINLINE int threads(void) { return IS(18) ? ++thread_two : ++thread_one; } /* 18 threads */
NOINLINE int threads_two(void) { return thread_one += thread_two; }

NOINLINE int labels(const unsigned char *p) /* 19 labels */
{
	static const void *const jump[] = {&&stop, IS(19) ? &&twice : &&add, IS(19) ? &&add : &&twice, &&less};
	int v = 1;
	goto *jump[*p++ & 3];
add: v += 3; goto *jump[*p++ & 3];
twice: v *= 2; goto *jump[*p++ & 3];
less: v -= callee_a(v); goto *jump[*p++ & 3];
stop: return v;
}

NOINLINE long initialiser(int x) /* 20 initialiser */
{
	long local[] = {1, 2, 30, 4, 5, IS(20) ? 6 : 60, 7, 8, 9, 1000};
	local[x % 10] += x;
	long sum = 0;
	for (int i = 0; i < 10; i++) sum += local[i] * (i + 1);
	return sum;
}

NOINLINE const wchar_t *wide(void) { return IS(21) ? L"wide thing" : L"wide string"; } /* 21 wide */
NOINLINE long end_pointer(void) { long s = 0; for (long *p = series; p < series + 16; p++) s += *p; return s; }
NOINLINE long use_after(int x) { return after_series[x & 3]++ + series[(x + 1) & 15]; }
NOINLINE long before(int x) { return series[x - 1] + limits[x + 2]; }
#if IS(22)
__attribute__((constructor)) static void at_start(void) { shared_value++; } /* 22 .init_array */
#endif
static NOINLINE int clone(int x, int mode) { return mode == 1 ? x * shared_value + (IS(23) ? 12 : 11) : x - mode; } /* 23 clone */
NOINLINE int clones(int x) { return clone(x, 1) + clone(x + 3, 1); }
NOINLINE int variadic(int n, ...) /* 24 variadic */
{
	va_list ap;
	int sum = 0;
	va_start(ap, n);
	while (n-- > 0) sum += va_arg(ap, int);
	va_end(ap);
	return IS(24) ? sum | 1 : sum;
}
#if IS(25)
NOINLINE int brought(int x) { return x * 3 + first_counter; }
#endif
NOINLINE int calls_new(int x) /* 25 calls_new brought */
{
#if IS(25)
	return brought(x);
#else
	return x * 4 + first_counter;
#endif
}
static jmp_buf env;
NOINLINE int jumps(int x) { if (setjmp(env)) return 3; if (x) longjmp(env, IS(26) ? 2 : 1); return x; } /* 26 jumps */
NOINLINE float vector(float *a, int n) /* 27 vector */
{
	float s = 0;
	for (int i = 0; i < n; i++) a[i] = a[i] * 3.5f + (IS(27) ? 2.75f : 2.25f), s += a[i];
	return s;
}
NOINLINE void store(int x) { buffer[(IS(28) ? 17 : 16)] = (char)x; buffer[200] = 1; } /* 28 store */
NOINLINE void struct_store(struct item *i) { i->name = "item"; i->kind = IS(29) ? 0x01020305 : 0x01020304; } /* 29 struct_store */
NOINLINE void *address(void) { return IS(30) ? (void *)callee_a : (void *)callee_b; } /* 30 address */
#if !IS(31)
NOINLINE void dropped(void) { puts("dropped"); shared_value++; }
#endif
NOINLINE void drops(void) /* 31 drops dropped */
{
#if !IS(31)
	dropped();
#endif
	other_value++;
}

int main(int argc, char **argv)
{
	struct item it = {argc, 2, 3, argv[0], {4, 5, 6}};
	float f[9] = {1, 2, 3};
	printf("%d %d %d %s %d\n", immediate(argc), compare(argc), caller(argc), message(argc), dispatch(argc));
	printf("%d %ld %d %d %d\n", global(argc), field(&it), operands(argc, 3), unlikely_path(argc), lookup(argc));
	printf("%zu %f %d %d %d %d\n", import(argv[0]), scale(argc), statics(argc), indirect(argc), numbered_one(), numbered_two());
	printf("%d %d %d %ld %ls\n", threads(), threads_two(), labels((const unsigned char *)argv[0]), initialiser(argc), wide());
	printf("%ld %ld %ld %d %d\n", end_pointer(), use_after(argc), before(argc), clones(argc), variadic(2, 3, 4));
	printf("%d %d %f %p\n", calls_new(argc), jumps(argc), vector(f, argc), address());
	store(argc);
	struct_store(&it);
	drops();
	printf("%d %d %s %d\n", buffer[argc], buffer[16], it.name, it.kind);
#ifdef GROW
	return grown(argc);
#else
	return 0;
#endif
}
