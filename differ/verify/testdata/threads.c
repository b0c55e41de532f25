/* Variables of each thread, in all access models, for a library. Each PLANT
   changes one thing; what follows the number is what the oracle has to name. */
#ifndef PLANT
#define PLANT 0
#endif
#define IS(n) (PLANT == (n))
#define NOINLINE __attribute__((noinline, visibility("default")))
#define INITIAL __attribute__((tls_model("initial-exec")))

extern __thread int there, there_too, there_new;
extern __thread int far INITIAL, far_too INITIAL, far_new INITIAL;
__thread int general = 1, general_too = 2, general_new = 3;
static __thread int local = 3;
static __thread int local_too[3] = {4, 5, 6};
static __thread int initial INITIAL = 7;
static __thread int initial_too INITIAL = IS(7) ? 9 : 8; /* 7 initial_too */
static __thread int zero, zero_too;

NOINLINE int use_general(void) { return IS(1) ? ++general_too : ++general; } /* 1 use_general */
NOINLINE int use_local(void) { return IS(2) ? ++local_too[2] : ++local; } /* 2 use_local */
NOINLINE int use_element(void) { return ++local_too[IS(3) ? 1 : 0] + local; } /* 3 use_element */
NOINLINE int use_initial(void) { return IS(4) ? ++initial_too : ++initial; } /* 4 use_initial */
NOINLINE int use_import(void) { return IS(5) ? ++there_too : ++there; } /* 5 use_import */
NOINLINE int use_far(void) { return IS(6) ? ++far_too : ++far; } /* 6 use_far */
NOINLINE int use_zero(void) { return IS(8) ? ++zero_too : ++zero; } /* 8 use_zero */
NOINLINE int new_import(void) { return IS(9) ? ++there_new : ++there; } /* 9 new_import */
NOINLINE int new_far(void) { return IS(10) ? ++far_new : ++far; } /* 10 new_far */
NOINLINE int new_general(void) { return IS(11) ? ++general_new : ++general; } /* 11 new_general */
NOINLINE int use_all(void) { return general_too + local_too[1] + initial + initial_too++ + there_too + far_too + zero_too; }
