// Strings that nothing refers to: what a few bytes are compared with is in the
// code, and the string lies behind another all the same. Each plant is a change
// in one of those, or in constants that begin as a string does.
#include <stdio.h>
#include <string.h>

#ifndef PLANT
#define PLANT 0
#endif

struct tag {
	char name[24];
	long values[16];
};

__attribute__((noinline, noclone)) int put(const char *text, const char *name)
{
	return printf("%s %s\n", text, name);
}

__attribute__((noinline, noclone)) int list(const char *texts)
{
	int n = 0;
	for (; *texts; texts += strlen(texts) + 1)
		n += printf("%s\n", texts);
	return n;
}

__attribute__((noinline, noclone)) long sum(const struct tag *tag)
{
	long n = tag->name[0];
	for (int i = 0; i < 16; i++)
		n += tag->values[i];
	return n;
}

__attribute__((noinline)) int sends(int n)
{
#if PLANT == 1 /* 1 sends */
	if (n > 1000)
		return -1;
#elif PLANT == 2 /* 2 sends */
	return put("application/octet-strean", "type") + n;
#endif
	return put("application/octet-stream", "type") + n;
}

__attribute__((noinline)) int parses(const char *text)
{
#if PLANT == 3 /* 3 parses */
	return memcmp(text, "ICAP/", 5) == 0;
#else
	return memcmp(text, "HTTP/", 5) == 0;
#endif
}

__attribute__((noinline)) int lists(void)
{
#if PLANT == 4 /* 4 lists */
	return list("Variable-\0X-Sendfile\0");
#elif PLANT == 5 /* 5 lists */
	return list("Variable-\0X-Sendfilf2\0");
#else
	return list("Variable-\0X-Sendfile2\0");
#endif
}

__attribute__((noinline)) long sums(void)
{
#if PLANT == 6 /* 6 sums */
	struct tag tag = {"HTTP/", {5, 4, 3, 2, 7}};
#else
	struct tag tag = {"HTTP/", {5, 4, 3, 2, 1}};
#endif
	return sum(&tag);
}

// All that lists has, as strings of their own.
__attribute__((noinline)) int names(void)
{
	return put("Variable-", "X-Sendfile") + put("X-Sendfile2", "X-Sendfilf2");
}

int main(int argc, char **argv)
{
	return sends(argc) + parses(argv[0]) + lists() + names() + (int)sums();
}
