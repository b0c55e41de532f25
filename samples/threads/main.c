/*
 * threads: many threads add up the numbers from 1 to 10, a thousand times a
 * second each.
 *
 *	threads [N]          N threads (4); prints their latest sums ten times a second
 *	threads --ask [N]    prints the sums for each line of its input; each was
 *	                     begun after the line was read
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sum.h"

#define MAX_THREADS 10000

/* What a thread shows of itself. Written by that thread only. */
struct worker {
	unsigned long begun;
	unsigned long done;
	unsigned long total;
	unsigned long call;
};

static struct worker workers[MAX_THREADS];
static int count = 4;

static unsigned long load(const unsigned long *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static void store(unsigned long *to, unsigned long value)
{
	__atomic_store_n(to, value, __ATOMIC_RELEASE);
}

static void pause_for(long ms)
{
	const struct timespec ts = { .tv_nsec = ms * 1000 * 1000 };

	nanosleep(&ts, NULL);
}

static void *work(void *arg)
{
	static const unsigned int numbers[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 };
	struct worker *w = arg;

	for (unsigned long round = 1;; round++) {
		struct sum s;

		store(&w->begun, round);
		s = add_up(numbers, sizeof numbers / sizeof *numbers);
		store(&w->total, s.total);
		store(&w->call, s.call);
		store(&w->done, round);
		pause_for(1);
	}
	return NULL;
}

/* Waits for a sum of each thread that was begun after now. */
static void wait_for_new(void)
{
	static unsigned long begun[MAX_THREADS];

	for (int i = 0; i < count; i++)
		begun[i] = load(&workers[i].begun);
	for (int i = 0; i < count; i++)
		while (load(&workers[i].done) <= begun[i])
			pause_for(1);
}

/* Prints the sums, and whether the count of calls went on since the last time. */
static void report(void)
{
	static unsigned long before;
	unsigned long calls = before;

	for (int i = 0; i < count; i++) {
		unsigned long call = load(&workers[i].call);

		printf("%lu ", load(&workers[i].total));
		calls = call > calls ? call : calls;
	}
	puts(calls > before ? "counting" : "the count was lost");
	fflush(stdout);
	before = calls;
}

static int start(void)
{
	pthread_attr_t small;
	pthread_t thread;

	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 64 * 1024);
	for (int i = 0; i < count; i++)
		if (pthread_create(&thread, &small, work, &workers[i])) {
			fprintf(stderr, "threads: cannot create thread %d\n", i + 1);
			return -1;
		}
	return 0;
}

int main(int argc, char **argv)
{
	int asked = argc > 1 && !strcmp(argv[1], "--ask");
	char line[64];

	if (argc > 1 + asked)
		count = atoi(argv[1 + asked]);
	if (count < 1 || count > MAX_THREADS || argc > 2 + asked) {
		fprintf(stderr, "usage: threads [--ask] [N]   (N threads, 1 to %d)\n", MAX_THREADS);
		return 2;
	}
	if (start())
		return 1;
	while (!asked || fgets(line, sizeof line, stdin)) {
		if (!asked)
			pause_for(100);
		wait_for_new();
		report();
	}
	return 0;
}
