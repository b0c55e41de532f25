// Something of everything, for TestMutations.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct op { const char *name; int (*f)(int); };
static int neg(int x) { return -x; }
static int twice(int x) { static int count; count++; return 2 * x + count; }
static const struct op ops[] = { { "neg", neg }, { "twice", twice } };
static struct op spare = { "spare", neg };
static int total, history[4];
int global = 5;
const double factors[] = { 1.5, 2.25 };
static const int table[5] = { 1, 2, 3, 4, 9 };
static const int *const pointers[] = { table, table + 2 };
static const char letters[] = "abcdef";
__thread int per_thread = 3;
static void start(void) __attribute__((constructor));
static void start(void) { total = atoi("12"); }

__attribute__((noinline)) static int select_one(int k, const char *s)
{
	switch (k) {
	case 0: puts("zero"); break;
	case 1: puts(s); break;
	case 2: total++; return 7;
	case 3: return table[total & 3];
	case 4: return global * 3;
	case 5: abort();
	}
	return strlen(s) + letters[k & 3];
}

int map(int k)
{
	switch (k) { case 1: return 17; case 2: return 4; case 3: return 99; case 4: return 12; case 5: return 31; }
	return 0;
}

int jump(int k, int n)
{
	static const void *const where[] = { &&zero, &&one };
	goto *where[k & 1];
zero:	n += 10;
one:	return n * 3;
}

int work(int a, char **v)
{
	static int count;
	count += a;
	if (__builtin_expect(a > 100, 0)) {
		fprintf(stderr, "%s %f\n", __func__, a * factors[a & 1]);
		abort();
	}
	per_thread++;
	history[a & 3] += *pointers[a & 1];
	__asm__ volatile("1: nop; jmp 1b\n\t.pushsection fixups,\"a\"\n\t.quad 1b\n\t.popsection");
	return select_one(a, v[0]) + ops[a & 1].f(a) + spare.f(a) + (int)(a * 3.25);
}
