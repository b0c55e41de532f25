/* fother_shadow.h - shadow variables of a live patch.
 *
 * A fix that needs another member in a struct cannot add it: objects that exist
 * have no room for it, and code that is not in the patch knows the old layout. A
 * shadow variable is data beside an object, found by the object's address and a
 * number that the fix chooses for the member:
 *
 *	enum { FAILURES = 1 };
 *	int *failures = (int *)fother_shadow_attach(session, FAILURES, sizeof *failures);
 *	if (failures && ++*failures > 3) …
 *	fother_shadow_detach(session, FAILURES);	// where the object ends
 *
 * fother_shadow_get     returns the data, or 0 if there is none
 * fother_shadow_attach  returns the data, all zeros at first; 0 if there is no
 *                       memory for it; all callers name the same size
 * fother_shadow_detach  forgets it. Who frees an object has to detach first, or the
 *                       next object in its place inherits the data
 *
 * All threads and all files of a patch share the variables; hooks may use them too.
 * Getting takes no lock. What is in the data is the fix's to protect. None of this
 * is for signal handlers. Memory comes from the kernel, not from malloc, and goes
 * back to it after a revert, after all other hooks. A newer level of the patch that
 * uses shadow variables too finds those that there are.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FOTHER_SHADOW_H
#define FOTHER_SHADOW_H

#include "fother.h"

#if defined __x86_64__
enum { FOTHER_SYS_MMAP = 9, FOTHER_SYS_MUNMAP = 11, FOTHER_SYS_YIELD = 24 };
#elif defined __aarch64__
enum { FOTHER_SYS_MMAP = 222, FOTHER_SYS_MUNMAP = 215, FOTHER_SYS_YIELD = 124 };
#else
#error "shadow variables of live patches are for x86-64 and aarch64"
#endif

/* The data follows, aligned to 16 bytes. */
struct fother_shadow {
	struct fother_shadow *next;
	const void *object; /* 0 if it may be used for another */
	unsigned long id, size;
};

struct fother_shadow_memory {
	struct fother_shadow_memory *next;
	unsigned long size, used, reserved;
};

/* One for the whole patch, whose files all have it. */
struct fother_shadow_table {
	struct { unsigned locked; struct fother_shadow *first; } buckets[256];
	unsigned locked;
	struct fother_shadow_memory *memory;
};
__attribute__((weak, visibility("hidden"))) struct fother_shadow_table fother_shadows;

#define FOTHER_SHADOW_INLINE static __inline__ __attribute__((unused))

FOTHER_SHADOW_INLINE long fother_shadow_call(long number, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
#ifdef __x86_64__
	register unsigned long r10 __asm__("r10") = d;
	register unsigned long r8 __asm__("r8") = ~0ul;
	register unsigned long r9 __asm__("r9") = 0;
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
#else
	register unsigned long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d;
	register unsigned long x4 __asm__("x4") = ~0ul, x5 __asm__("x5") = 0;
	long result;
	__asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	result = (long)x0;
#endif
	return result;
}

/* Sets the word, and returns what it was. */
FOTHER_SHADOW_INLINE unsigned fother_shadow_set(unsigned *locked)
{
#ifdef __x86_64__
	return __atomic_exchange_n(locked, 1u, __ATOMIC_ACQUIRE);
#else
	/* Not what the compiler makes: it may call a function that the program has not. */
	unsigned was, failed;
	__asm__ volatile("1:\tldaxr %w0, %2\n\tstxr %w1, %w3, %2\n\tcbnz %w1, 1b" : "=&r"(was), "=&r"(failed), "+Q"(*locked) : "r"(1u) : "memory");
	return was;
#endif
}

FOTHER_SHADOW_INLINE void fother_shadow_lock(unsigned *locked)
{
	unsigned tries = 0;
	while (fother_shadow_set(locked)) {
		if (++tries % 64 == 0)
			fother_shadow_call(FOTHER_SYS_YIELD, 0, 0, 0, 0);
#ifdef __x86_64__
		__builtin_ia32_pause();
#else
		__asm__ volatile("yield");
#endif
	}
}

FOTHER_SHADOW_INLINE void fother_shadow_unlock(unsigned *locked)
{
	__atomic_store_n(locked, 0u, __ATOMIC_RELEASE);
}

FOTHER_SHADOW_INLINE unsigned fother_shadow_bucket(const void *object, unsigned long id)
{
	unsigned long key = ((unsigned long)object + id) * 0x9e3779b97f4a7c15ul;
	return (unsigned)(key >> 56);
}

FOTHER_SHADOW_INLINE struct fother_shadow *fother_shadow_find(const void *object, unsigned long id)
{
	struct fother_shadow *s = __atomic_load_n(&fother_shadows.buckets[fother_shadow_bucket(object, id)].first, __ATOMIC_ACQUIRE);
	while (s && !(__atomic_load_n(&s->object, __ATOMIC_ACQUIRE) == object && s->id == id))
		s = s->next;
	return s;
}

/* Zeroed memory, a multiple of 16 bytes, or 0. */
FOTHER_SHADOW_INLINE void *fother_shadow_take(unsigned long size)
{
	const unsigned long page = 4096, usual = 16 * page, header = sizeof(struct fother_shadow_memory);
	struct fother_shadow_memory *m;
	void *at = 0;
	fother_shadow_lock(&fother_shadows.locked);
	m = fother_shadows.memory;
	if (!m || m->size - m->used < size) {
		unsigned long want = size + header <= usual ? usual : (size + header + page - 1) & -page;
		/* PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS */
		long got = fother_shadow_call(FOTHER_SYS_MMAP, 0, want, 3, 0x22);
		if (got < 0 && got >= -4095) {
			m = 0;
		} else {
			m = (struct fother_shadow_memory *)got;
			m->next = fother_shadows.memory;
			m->size = want;
			m->used = header;
			fother_shadows.memory = m;
		}
	}
	if (m) {
		at = (char *)m + m->used;
		m->used += size;
	}
	fother_shadow_unlock(&fother_shadows.locked);
	return at;
}

FOTHER_SHADOW_INLINE void *fother_shadow_get(const void *object, unsigned long id)
{
	struct fother_shadow *s = fother_shadow_find(object, id);
	return s ? s + 1 : 0;
}

FOTHER_SHADOW_INLINE void *fother_shadow_attach(const void *object, unsigned long id, unsigned long size)
{
	unsigned n = fother_shadow_bucket(object, id);
	unsigned *lock = &fother_shadows.buckets[n].locked;
	struct fother_shadow *s = fother_shadow_find(object, id);
	if (s || !object || size > 1ul << 40)
		return s ? s + 1 : 0;
	fother_shadow_lock(lock);
	s = fother_shadow_find(object, id);
	if (!s) {
		s = fother_shadows.buckets[n].first;
		while (s && !(s->object == 0 && s->size >= size))
			s = s->next;
		if (s) {
			volatile char *data = (volatile char *)(s + 1);
			unsigned long i;
			for (i = 0; i < s->size; i++)
				data[i] = 0;
			s->id = id;
			__atomic_store_n(&s->object, object, __ATOMIC_RELEASE);
		} else if ((s = (struct fother_shadow *)fother_shadow_take(sizeof *s + ((size + 15) & -16ul)))) {
			s->object = object;
			s->id = id;
			s->size = (size + 15) & -16ul;
			s->next = fother_shadows.buckets[n].first;
			__atomic_store_n(&fother_shadows.buckets[n].first, s, __ATOMIC_RELEASE);
		}
	}
	fother_shadow_unlock(lock);
	return s ? s + 1 : 0;
}

FOTHER_SHADOW_INLINE void fother_shadow_detach(const void *object, unsigned long id)
{
	unsigned *lock = &fother_shadows.buckets[fother_shadow_bucket(object, id)].locked;
	struct fother_shadow *s;
	fother_shadow_lock(lock);
	s = fother_shadow_find(object, id);
	if (s)
		__atomic_store_n(&s->object, (const void *)0, __ATOMIC_RELEASE);
	fother_shadow_unlock(lock);
}

/* Nobody uses the variables any more. */
static int fother_shadow_free(void)
{
	struct fother_shadow_memory *m = fother_shadows.memory;
	volatile unsigned n; /* else a compiler may count up to the table's end, which looks like what is behind it */
	for (n = 0; n < sizeof fother_shadows.buckets / sizeof fother_shadows.buckets[0]; n++)
		fother_shadows.buckets[n].first = 0;
	fother_shadows.memory = 0;
	while (m) {
		struct fother_shadow_memory *next = m->next;
		fother_shadow_call(FOTHER_SYS_MUNMAP, (unsigned long)m, m->size, 0, 0);
		m = next;
	}
	return 0;
}
FOTHER_HOOK(4, post_revert, fother_shadow_free, 10000, 3);

#endif
