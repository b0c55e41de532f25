/*
 * library: a program and its shared library that speak one protocol.
 *
 * The library seals an order, such as "+100 alice"; somebody on the way turns
 * the sign round; the program checks both orders against the seal.
 *
 *	library          does so with one order, ten times a second
 *	library --ask    does so with the order on each line of its input
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "seal.h"

static const char *verdict(const char *order, unsigned long seal)
{
	return genuine(order, seal) ? "accepted" : "refused";
}

static void send_order(char *order)
{
	unsigned long s = seal(order);

	printf("%s %s, ", order, verdict(order, s));
	order[0] = order[0] == '+' ? '-' : '+';
	printf("forged %s %s\n", order, verdict(order, s));
	fflush(stdout);
}

static int ask(void)
{
	char line[256];

	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = '\0';
		if (*line)
			send_order(line);
		else
			puts("an order has a sign, an amount and a name");
		fflush(stdout);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 100 * 1000 * 1000 };

	if (argc > 1 && !strcmp(argv[1], "--ask"))
		return ask();
	for (;;) {
		char order[] = "+100 alice";

		send_order(order);
		nanosleep(&pause, NULL);
	}
}
