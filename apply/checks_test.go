package apply

import "strings"

// checked puts checksC into a program, before what uses it.
func checked(program string) string { return strings.Replace(program, "/* CHECKS */", checksC, 1) }

// checksC are kinds of threads that check something all the while, and end the
// program if it is not so.
const checksC = `
static void die(const char *what, long n) { printf("BAD %s %ld\n", what, n); fflush(stdout); _exit(3); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

/* no register of a thread that computes is lost */
#ifdef __aarch64__
static void vectors(long turns)
{
	static const unsigned char pattern[16] = "0123456789abcde";
	unsigned char out[32 * 16];
	unsigned long r[10];
#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15) f(16) f(17) f(18) f(19) \
	f(20) f(21) f(22) f(23) f(24) f(25) f(26) f(27) f(28) f(29) f(30) f(31)
#define LOAD(n) "ldr q" #n ", [%[p]]\n\t"
#define STORE(n) "str q" #n ", [%[o], 16 * " #n "]\n\t"
#define LOST(n) "v" #n,
	__asm__ volatile(
		EACH(LOAD)
		"mov x8, 11\n\tmov x9, 12\n\tmov x10, 13\n\tmov x11, 14\n\tmov x12, 15\n\tmov x13, 16\n\tmov x14, 17\n\tmov x15, 18\n\tmov x16, 19\n\tmov x17, 20\n\t"
		"1: subs %[n], %[n], 1\n\tb.ne 1b\n\t"
		EACH(STORE)
		"stp x8, x9, [%[r]]\n\tstp x10, x11, [%[r], 16]\n\tstp x12, x13, [%[r], 32]\n\tstp x14, x15, [%[r], 48]\n\tstp x16, x17, [%[r], 64]\n\t"
		: [n] "+r"(turns) : [p] "r"(pattern), [o] "r"(out), [r] "r"(r)
		: EACH(LOST) "memory", "cc", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15", "x16", "x17");
	for (int i = 0; i < 32; i++) if (memcmp(out + 16 * i, pattern, 16)) die("vector register", i);
	for (int i = 0; i < 10; i++) if (r[i] != 11 + i) die("register", 8 + i);
}
#else
static void vectors(long turns)
{
	static const unsigned char pattern[16] = "0123456789abcde";
	unsigned char out[16 * 16];
	unsigned long r[6];
	__asm__ volatile(
		"movdqu (%[p]), %%xmm0\n\tmovdqa %%xmm0, %%xmm1\n\tmovdqa %%xmm0, %%xmm2\n\tmovdqa %%xmm0, %%xmm3\n\t"
		"movdqa %%xmm0, %%xmm4\n\tmovdqa %%xmm0, %%xmm5\n\tmovdqa %%xmm0, %%xmm6\n\tmovdqa %%xmm0, %%xmm7\n\t"
		"movdqa %%xmm0, %%xmm8\n\tmovdqa %%xmm0, %%xmm9\n\tmovdqa %%xmm0, %%xmm10\n\tmovdqa %%xmm0, %%xmm11\n\t"
		"movdqa %%xmm0, %%xmm12\n\tmovdqa %%xmm0, %%xmm13\n\tmovdqa %%xmm0, %%xmm14\n\tmovdqa %%xmm0, %%xmm15\n\t"
		"movq $11, %%r10\n\tmovq $12, %%r11\n\tmovq $13, %%r12\n\tmovq $14, %%r13\n\tmovq $15, %%r14\n\tmovq $16, %%r15\n\t"
		"1: subq $1, %[n]\n\tjnz 1b\n\t"
		"movdqu %%xmm0, (%[o])\n\tmovdqu %%xmm1, 16(%[o])\n\tmovdqu %%xmm2, 32(%[o])\n\tmovdqu %%xmm3, 48(%[o])\n\t"
		"movdqu %%xmm4, 64(%[o])\n\tmovdqu %%xmm5, 80(%[o])\n\tmovdqu %%xmm6, 96(%[o])\n\tmovdqu %%xmm7, 112(%[o])\n\t"
		"movdqu %%xmm8, 128(%[o])\n\tmovdqu %%xmm9, 144(%[o])\n\tmovdqu %%xmm10, 160(%[o])\n\tmovdqu %%xmm11, 176(%[o])\n\t"
		"movdqu %%xmm12, 192(%[o])\n\tmovdqu %%xmm13, 208(%[o])\n\tmovdqu %%xmm14, 224(%[o])\n\tmovdqu %%xmm15, 240(%[o])\n\t"
		"movq %%r10, (%[r])\n\tmovq %%r11, 8(%[r])\n\tmovq %%r12, 16(%[r])\n\tmovq %%r13, 24(%[r])\n\tmovq %%r14, 32(%[r])\n\tmovq %%r15, 40(%[r])\n\t"
		: [n] "+r"(turns) : [p] "r"(pattern), [o] "r"(out), [r] "r"(r)
		: "memory", "cc", "r10", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
		  "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
	for (int i = 0; i < 16; i++) if (memcmp(out + 16 * i, pattern, 16)) die("vector register", i);
	for (int i = 0; i < 6; i++) if (r[i] != 11 + i) die("register", 10 + i);
}
#endif

/* what sleeps for a while does so, and is not told that it was interrupted */
static void slept(const char *what, double since, double wanted)
{
	double d = now() - since;
	if (d < wanted || d > wanted + 60) die(what, d * 1e3);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
static pthread_mutex_t timed = PTHREAD_MUTEX_INITIALIZER;

/* runs a thread of a kind that is known here, for ever */
static void check(const char *kind)
{
	if (!strcmp(kind, "vectors")) for (;;) vectors(300000);
	if (!strcmp(kind, "sleep")) for (;;) {
		double a = now();
		struct timespec t = {0, 30000000};
		if (nanosleep(&t, 0)) die("nanosleep", errno);
		slept("nanosleep, ms", a, 0.03);
	}
	if (!strcmp(kind, "poll")) for (;;) {
		double a = now();
		int n = poll(0, 0, 40);
		if (n) die("poll", errno);
		slept("poll, ms", a, 0.04);
	}
	if (!strcmp(kind, "futex")) for (;;) {
		double a = now();
		struct timespec t;
		clock_gettime(CLOCK_REALTIME, &t);
		if ((t.tv_nsec += 50000000) >= 1000000000) { t.tv_nsec -= 1000000000; t.tv_sec++; }
		int e = pthread_mutex_timedlock(&timed, &t);
		if (e != ETIMEDOUT) die("futex", e);
		slept("futex, ms", a, 0.049);
	}
	if (!strcmp(kind, "wait")) { pthread_mutex_lock(&mutex); for (;;) pthread_cond_wait(&never, &mutex); }
	if (!strcmp(kind, "read")) for (;;) { char c; int p[2]; if (pipe(p)) die("pipe", errno); if (read(p[0], &c, 1) < 0) die("read", errno); }
}
`
