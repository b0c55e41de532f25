// What C++ has beside functions and variables. Each PLANT changes one thing;
// what follows the number is what the oracle has to name.
#include <stdexcept>
#include <string>

#ifndef PLANT
#define PLANT 0
#endif
#define IS(n) (PLANT == (n))
#define NOINLINE __attribute__((noinline))

struct Low { int n; };
struct High : Low { };
struct Shape {
	virtual ~Shape() {}
	virtual int area() const { return 1; }
	virtual int sides() const { return 2; }
};
struct Circle : Shape {
	int area() const override { return 3; }
#if !IS(6)
	int sides() const override { return 1; } // 6 _ZTV6Circle
#endif
};

NOINLINE int thrower(int x) { if (x > 3) throw High(); return x; }

#if IS(1)
#define CAUGHT High
#else
#define CAUGHT Low
#endif
NOINLINE int caught(int x) { try { return thrower(x); } catch (CAUGHT &e) { return 5; } } // 1 _Z6caughti

#if IS(2)
#define THROUGH noexcept
#else
#define THROUGH
#endif
NOINLINE int through(int x) THROUGH { return thrower(x) + 1; } // 2 _Z7throughi

NOINLINE int thrown(int x) { if (x < 0) { if (IS(3)) throw Low(); throw High(); } return x; } // 3 _Z6throwni

struct File { int &n; explicit File(int &n) : n(n) { n++; } ~File() { n--; } };
static int open_files, other_files;
NOINLINE int cleans(int x) { File f(IS(4) ? other_files : open_files); return thrower(x) * 2; } // 4 _Z6cleansi

static volatile int start; // so that no compiler calls first while it compiles
NOINLINE int first(int x) { return x + 7 + start; }
NOINLINE int guarded(int x) { static int n = first(IS(5) ? 6 : 5); return n += x; } // 5 _Z7guardedi

NOINLINE int slot(const Shape &s) { return IS(7) ? s.sides() : s.area(); } // 7 _Z4slotRK5Shape

template <typename T> inline NOINLINE T twice(T x) { static int calls; return x + x + (IS(8) ? 2 : 1) * ++calls; } // 8 _Z5twiceIiET_S0_
NOINLINE int user(int x) { return twice(x); }

NOINLINE int closure(int x)
{
	auto f = [&](int n) NOINLINE { return n * (IS(9) ? 3 : 2) + x; }; // 9 _ZZ7closureiENK
	return f(x) + f(2);
}

NOINLINE bool is(const Shape *s) { return IS(10) ? dynamic_cast<const Circle *>(s) : s; } // 10 _Z2isPK5Shape

NOINLINE int specific(int x) // 11 _Z8specifici
{
	try {
		return thrower(x);
	} catch (std::logic_error &e) {
		return 1;
#if IS(11)
	} catch (std::exception &e) {
#else
	} catch (std::runtime_error &e) {
#endif
		return 2;
	}
}

int begun = first(IS(12) ? 13 : 12); // 12 _GLOBAL__sub_I|__static_init|__cxx_global_var_init

int main(int argc, char **)
{
	Circle c;
	return caught(argc) + through(argc) + thrown(argc) + cleans(argc) + guarded(argc) + slot(c) + user(argc) + closure(argc) + is(&c) + specific(argc) + begun;
}
