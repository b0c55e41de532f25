#include "resolve.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ADDRESS_SIZE 16

/* Reads "a.b.c.d"; missing parts are 0, big ones are cut, as of old. */
static int parse_address(const char *name, unsigned char *address)
{
	const char *at = name;
	char *end;
	int part;

	for (at = name; *at; at++)
		if (!isdigit((unsigned char)*at) && *at != '.')
			return EINVAL;
	for (at = name, part = 0; part < 4 && isdigit((unsigned char)*at); part++) {
		address[part] = (unsigned char)strtoul(at, &end, 10);
		at = *end == '.' ? end + 1 : end;
	}
	return part ? 0 : EINVAL;
}

int resolve_digits(const char *name, struct host *result, char *buffer, size_t size)
{
	unsigned char *address;
	unsigned char **addresses;
	char **aliases;
	size_t needed = ADDRESS_SIZE + 2 * sizeof *addresses + strlen(name) + 1;

	if (size < needed)
		return ERANGE;
	memset(buffer, 0, size);
	address = (unsigned char *)buffer;
	addresses = (unsigned char **)(buffer + ADDRESS_SIZE);
	aliases = (char **)(addresses + 2);
	result->name = (char *)(aliases + 1);
	if (parse_address(name, address))
		return EINVAL;
	addresses[0] = address;
	addresses[1] = NULL;
	aliases[0] = NULL;
	strcpy(result->name, name);
	result->addresses = addresses;
	result->aliases = aliases;
	return 0;
}
