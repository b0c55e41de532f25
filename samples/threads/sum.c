#include "sum.h"

struct sum add_up(const unsigned int *numbers, size_t n)
{
	static unsigned long calls;
	struct sum s = { 0, __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) };

	for (size_t i = 0; i + 1 < n; i++)
		s.total += numbers[i];
	return s;
}
