// Stands for a patched process: before() runs in the original code, then the
// entries of the changed functions become jumps, then after() runs.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

extern char *redirects[];
void before(void) __attribute__((weak));
void after(void);

int main(void)
{
	if (before)
		before();
	for (char **r = redirects; r[0]; r += 2) {
		uintptr_t page = (uintptr_t)r[0] & ~4095ul;
		int32_t distance = (int32_t)(r[1] - (r[0] + 5));
		if (mprotect((void *)page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC))
			return perror("mprotect"), 99;
		r[0][0] = (char)0xe9;
		memcpy(r[0] + 1, &distance, 4);
	}
	after();
	return 0;
}
