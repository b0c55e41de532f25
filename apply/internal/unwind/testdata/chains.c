/* Call chains to be unwound from outside. argv[1] chooses one; the program
   prints "ready" when it is in it. Functions are never inlined or cloned, and
   none of the chain's calls is a tail call. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#define KEEP __attribute__((noipa))

volatile long sink;
#ifdef TLS
__thread long local;
long *where(void) { return &local; }
#endif
static void (*volatile innermost)(void);

static void ready(void) {
	if (write(1, "ready\n", 6) != 6)
		_exit(3);
}

KEEP void spin(void) {
	ready();
	for (;;)
		sink++;
}

KEEP void block(void) {
	char c;
	ready();
	sink += read(0, &c, 1);
}

KEEP void clockwork(void) {
	struct timeval tv;
	ready();
	for (;;) {
		gettimeofday(&tv, NULL);
		sink += tv.tv_usec;
	}
}

/* Library calls by PLT, prologues and epilogues of many kinds. */
KEEP long leaf(long x) { return x * 3; }

KEEP long many(long a, long b, long c, long d, long e, long f, long g, long h) {
	return leaf(a + b) + leaf(c + d) + leaf(e + f) + leaf(g + h) + a * b * c * d;
}

KEEP long varying(long n) {
	char *p = __builtin_alloca(n + 16);
	memset(p, 1, n);
	return leaf(p[n - 1]);
}

KEEP long aligned(long n) {
	char buf[256] __attribute__((aligned(128)));
	memset(buf, (int)n, sizeof buf);
	return leaf(buf[n & 255]);
}

KEEP long early(long n) {
	if (n & 1)
		return n;
	return many(n, 1, 2, 3, 4, 5, 6, 7) + getppid();
}

KEEP void work(void) {
	char text[32];
	ready();
	if (read(0, text, 1) != 1) /* until it is stopped, before any other function is bound */
		_exit(3);
	for (long i = 0;; i++) {
		sink += many(i, 2, 3, 4, 5, 6, 7, 8);
		sink += varying(32 + i % 64);
		sink += aligned(i);
		sink += early(i);
		snprintf(text, sizeof text, "%ld %f", i, 1.5 * i);
		sink += atoi(text);
		free(malloc(64 + i % 512));
	}
}

static int signalled;

KEEP void handler(int sig) {
	signalled = sig;
	block();
	sink++;
}

KEEP void interrupted(void) {
	kill(getpid(), SIGUSR1);
	for (;;)
		sink++;
}

KEEP void crashing(void) {
	*(volatile int *)8 = 1; /* its handler does not return */
	sink++;
}

/* Code without call frame information, as a JIT makes it. */
KEEP void jitted(void) {
	unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#if defined __x86_64__
	/* push %rbp; call *%rdi; pop %rbp; ret */
	memcpy(code, "\x55\xff\xd7\x5d\xc3", 5);
#else
	/* stp x29, x30, [sp, -16]!; blr x0; ldp x29, x30, [sp], 16; ret */
	memcpy(code, "\xfd\x7b\xbf\xa9\x00\x00\x3f\xd6\xfd\x7b\xc1\xa8\xc0\x03\x5f\xd6", 16);
#endif
	__builtin___clear_cache((char *)code, (char *)code + 16);
	((void (*)(void (*)(void)))code)(block);
	sink++;
}

KEEP void deep(long n) {
	if (n == 0)
		block();
	else
		deep(n - 1);
	sink++;
}

KEEP void recursive(void) { deep(5000); sink++; }


KEEP void c(void) { innermost(); sink++; }
KEEP void b(void) { c(); sink++; }
KEEP void a(void) { b(); sink++; }

static void *thread(void *arg) {
	a();
	return arg;
}

int main(int argc, char **argv) {
	static char stack[1 << 16];
	struct sigaction sa = {.sa_handler = handler};
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
	pthread_t t;
	const char *mode = argc > 1 ? argv[1] : "";

	alarm(600);
	if (strstr(mode, "altstack")) {
		sigaltstack(&ss, NULL);
		sa.sa_flags |= SA_ONSTACK;
	}
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGSEGV, &sa, NULL);
	innermost = strstr(mode, "spin") ? spin : strstr(mode, "clock") ? clockwork : strstr(mode, "work") ? work
		: strstr(mode, "crash") ? crashing : strstr(mode, "signal") ? interrupted : strstr(mode, "jit") ? jitted
		: strstr(mode, "deep") ? recursive : block;
	if (strstr(mode, "thread")) {
		pthread_create(&t, NULL, thread, NULL);
		pthread_join(t, NULL);
	}
	a();
	return 0;
}
