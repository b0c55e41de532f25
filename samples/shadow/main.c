/*
 * shadow: how often may one guess a password?
 *
 *	shadow          guesses ann's password, ten times a second
 *	shadow --ask    reads "open NAME PASSWORD" and "login NAME PASSWORD" from
 *	                the lines of its input, and answers them
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "account.h"

static const char *const said[] = { "wrong", "welcome", "locked" };

/* No password stays on the stack. */
static __attribute__((noinline)) void forget(void)
{
	char used[4096];

	memset(used, 0, sizeof used);
	__asm__ volatile("" : : "r"(used) : "memory");
}

static int ask(void)
{
	char line[64], name[16], password[16];

	while (fgets(line, sizeof line, stdin)) {
		const char *answer = "what?";

		if (sscanf(line, "open %15s %15s", name, password) == 2)
			answer = open_account(name, password) ? "full" : "open";
		else if (sscanf(line, "login %15s %15s", name, password) == 2)
			answer = said[login(name, password)];
		puts(answer);
		fflush(stdout);
		forget();
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct timespec pause = { .tv_nsec = 100 * 1000 * 1000 };
	char guess[16];
	int n = 0;

	open_account("ann", "17");
	open_account("bob", "b0b");
	if (argc > 1 && !strcmp(argv[1], "--ask"))
		return ask();
	for (;;) {
		snprintf(guess, sizeof guess, "%d", n++ % 20);
		printf("ann's password is %s: %s\n", guess, said[login("ann", guess)]);
		fflush(stdout);
		nanosleep(&pause, NULL);
	}
}
