/* fother.h - hooks of a live patch.
 *
 * A hook is a function that runs inside the process around the switch to the
 * patch's functions, or back. The fix declares it at file level, in C or C++:
 *
 *	static int check(void) { return queue_is_sane() ? 0 : 1; }
 *	FOTHER_PRE_APPLY(check, 500);
 *
 * The second argument is the time that the hook may take, in milliseconds, 1 to
 * 60000. A hook returns 0 if all is well.
 *
 *	FOTHER_PRE_APPLY    before the patch goes in; anything but 0 is a veto, and
 *	                    the process stays as it was
 *	FOTHER_POST_APPLY   when the patch is in; also when a revert did not come about
 *	FOTHER_PRE_REVERT   before the patch goes out; anything but 0 is a veto
 *	FOTHER_POST_REVERT  when the patch is out; also when an apply did not come
 *	                    about, whether or not all FOTHER_PRE_APPLY hooks have run
 *	FOTHER_RELEASE      as FOTHER_POST_REVERT, and after those; but not when another
 *	                    level of the patch goes on with a variable that the function
 *	                    itself names: for what gives back what variables lead to
 *
 * Hooks of one kind run in the order of their declarations, those around a
 * revert in the opposite order; those of several files in the order in which the
 * files are linked. After a veto the others of that kind do not run.
 *
 * All hooks run while the program runs: never in a stop, and in a thread that
 * exists for them only. The C library does not know that thread. So a hook must
 * not take locks, allocate memory, use stdio, errno or thread-local variables,
 * create threads, or call what does. It may read and write the program's
 * data with atomic operations where other threads do so too, and call functions
 * that keep to the same. Its stack has 64 KiB. No signals arrive there. It must
 * come to its end when it is called once more after it was broken off: a hook that
 * takes longer than it may, or crashes, is ended where it is, which counts as a
 * veto, and releases nothing.
 *
 * A newer level of a patch goes on with the variables of the older one that it has
 * too, where they are. Of the older level FOTHER_PRE_REVERT and FOTHER_POST_REVERT
 * run then as for a revert. If a function for FOTHER_RELEASE names several
 * variables, or there are several such functions, one variable is enough to leave
 * all of them out.
 *
 * For x86-64 and aarch64.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FOTHER_H
#define FOTHER_H

/* One declaration, as the tools read it. */
struct fother_hook {
	int (*run)(void);
	unsigned point, milliseconds, order, last;
};

#ifdef __has_attribute
#if __has_attribute(retain)
#define FOTHER_RETAIN retain,
#endif
#endif
#ifndef FOTHER_RETAIN
#define FOTHER_RETAIN
#endif

#define FOTHER_HOOK(number, point, function, milliseconds, last) \
	static const struct fother_hook fother_hook_##point##__##function \
	__attribute__((used, FOTHER_RETAIN aligned(8), section(".fother.hooks"))) = \
	{ function, number, milliseconds, __COUNTER__, last }

#define FOTHER_PRE_APPLY(function, milliseconds) FOTHER_HOOK(1, pre_apply, function, milliseconds, 0)
#define FOTHER_POST_APPLY(function, milliseconds) FOTHER_HOOK(2, post_apply, function, milliseconds, 0)
#define FOTHER_PRE_REVERT(function, milliseconds) FOTHER_HOOK(3, pre_revert, function, milliseconds, 0)
#define FOTHER_POST_REVERT(function, milliseconds) FOTHER_HOOK(4, post_revert, function, milliseconds, 0)
#define FOTHER_RELEASE(function, milliseconds) FOTHER_HOOK(4, post_revert, function, milliseconds, 2)

#endif
