// Lambdas of an inline function, which only their numbers tell apart, and of
// another, which are told apart by what they do. Each PLANT changes one thing.
#include <cstdio>
#include <functional>

#ifndef PLANT
#define PLANT 0
#endif
#define IS(n) (PLANT == (n))

typedef std::function<long(long)> Function;
static Function held[4];

inline __attribute__((noinline)) void shared(long a)
{
#if IS(1) // 1: they change places
	held[1] = [a](long x) { return a * x * 3 + (IS(3) || IS(5)); };
	held[0] = [a](long x) { return a + x + 5 * IS(5); };
#elif IS(2) // 2: one goes in front, another one comes behind
	held[0] = [a](long x) { return a * x * 3 + (IS(3) || IS(5)); };
	held[1] = [a](long x) { return x / (a + 9); };
#else
	held[0] = [a](long x) { return a + x + 5 * IS(5); }; // 5: both change
	held[1] = [a](long x) { return a * x * 3 + (IS(3) || IS(5)); }; // 3: one changes
#endif
}

__attribute__((noinline)) void own(long a)
{
#if IS(4) // 4: they change places
	held[3] = [a](long x) { return a * x * 7; };
	held[2] = [a](long x) { return a - x; };
#else
	held[2] = [a](long x) { return a - x; };
	held[3] = [a](long x) { return a * x * 7; };
#endif
}

int main(int argc, char **)
{
	shared(argc);
	own(argc);
	printf("%ld %ld %ld %ld\n", held[0](1), held[1](2), held[2](3), held[3](4));
	return 0;
}
