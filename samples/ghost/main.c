/*
 * ghost: looks names up in a buffer with a canary behind it.
 *
 *	ghost          looks up a name that just fits, ten times a second
 *	ghost --ask    looks up the name on each line of its input; "long" stands
 *	               for the name that just fits
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "resolve.h"

#define CANARY "tweet, tweet, tweet"

static struct {
	_Alignas(16) char buffer[256];
	char canary[sizeof CANARY];
} room;

/* A name of zeros for which the library's own count says that it just fits. */
static const char *long_name(void)
{
	static char name[sizeof room.buffer];

	memset(name, '0', sizeof room.buffer - 16 - 2 * sizeof(char *) - 1);
	return name;
}

static void look_up(const char *name)
{
	struct host host;
	int rc;

	memcpy(room.canary, CANARY, sizeof CANARY);
	rc = resolve_digits(name, &host, room.buffer, sizeof room.buffer);
	if (memcmp(room.canary, CANARY, sizeof CANARY))
		printf("the canary is dead\n");
	else if (rc == ERANGE)
		printf("refused: no room for this name\n");
	else if (rc)
		printf("not an address\n");
	else
		printf("%d.%d.%d.%d\n", host.addresses[0][0], host.addresses[0][1],
		       host.addresses[0][2], host.addresses[0][3]);
	fflush(stdout);
}

static int ask(void)
{
	char line[512];

	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		look_up(strcmp(line, "long") ? line : long_name());
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 100 * 1000 * 1000 };

	if (argc > 1 && !strcmp(argv[1], "--ask"))
		return ask();
	for (;;) {
		look_up(long_name());
		nanosleep(&pause, NULL);
	}
}
