#ifndef RESOLVE_H
#define RESOLVE_H

#include <stddef.h>

struct host {
	char *name;
	char **aliases;
	unsigned char **addresses;
};

/*
 * Resolves a name that is an address itself: digits and dots, such as
 * "127.0.0.1". All that the result points to is put into buffer.
 *
 * Returns 0, EINVAL when the name is not an address, or ERANGE when the buffer
 * is too small.
 */
int resolve_digits(const char *name, struct host *result, char *buffer, size_t size);

#endif
