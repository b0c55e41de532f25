/*
 * simple: how many days has a year?
 *
 *	simple          says it of the year 1900, ten times a second
 *	simple --ask    reads a year from each line of its input and says it of that
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "days.h"

static void say(int year)
{
	printf("%d has %d days\n", year, days_in_year(year));
	fflush(stdout);
}

static int ask(void)
{
	char line[64];

	while (fgets(line, sizeof line, stdin))
		say(atoi(line));
	return 0;
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 100 * 1000 * 1000 };

	if (argc > 1 && !strcmp(argv[1], "--ask"))
		return ask();
	for (;;) {
		say(1900);
		nanosleep(&pause, NULL);
	}
}
