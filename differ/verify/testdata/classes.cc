// What C++ adds; see program.c.
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#ifndef PLANT
#define PLANT 0
#endif
#define IS(n) (PLANT == (n))
#define NOINLINE __attribute__((noinline))

#ifdef GROW
struct Grown { virtual ~Grown() {} virtual int f() { return 3; } int x = 1; };
NOINLINE int grown(int x) { try { Grown g; return g.f() + std::stoi("12"); } catch (std::exception &e) { return x; } }
std::vector<int> grown_vector{1, 2, 3};
#endif

struct Shape {
	virtual ~Shape() {}
	virtual int area() const = 0;
	virtual int sides() const { return 0; }
};
struct Square : Shape {
	int a;
	explicit Square(int a) : a(a) {}
	int area() const override { return a * a + (IS(1) ? 1 : 0); } // 1 Square::area
	int sides() const override { return 4; }
};
struct Circle : Shape {
	int r;
	explicit Circle(int r) : r(r) {}
	int area() const override { return 3 * r * r; }
#if !IS(2)
	int sides() const override { return 1; } // 2 vtable for Circle
#endif
};

NOINLINE int caught(int x) // 3 caught: only the type that is caught
{
	try {
		if (x > 3) throw std::runtime_error("large");
		if (x < 0) throw std::out_of_range("small");
		return x;
#if IS(3)
	} catch (std::logic_error &e) {
#else
	} catch (std::runtime_error &e) {
#endif
		return static_cast<int>(std::string(e.what()).size());
	}
}

template <typename T> NOINLINE T twice(T x) { return x + x + (IS(4) ? 1 : 0); } // 4 twice

NOINLINE int guarded() { static std::string s = std::string("guard") + std::to_string(IS(5) ? 2 : 1); return static_cast<int>(s.size()); } // 5 guarded

NOINLINE int lambda(std::vector<int> &v)
{
	int n = 0;
	auto f = [&](int x) NOINLINE { n += x * (IS(6) ? 3 : 2); }; // 6 lambda
	for (int x : v) f(x);
	return n;
}

std::map<std::string, int> names{{"one", 1}, {"two", IS(7) ? 22 : 2}}; // 7 static initialisation

int main(int argc, char **)
{
	std::vector<int> v{1, 2, argc};
	Shape *s[] = {new Square(argc), new Circle(argc)};
	int sum = 0;
	for (Shape *p : s) { sum += p->area() + p->sides(); delete p; }
	std::printf("%d %d %d %f %d %d %zu\n", sum, caught(argc), twice(argc), twice(argc * 1.5), guarded(), lambda(v), names.size());
#ifdef GROW
	return grown(argc) + (int)grown_vector.size();
#else
	return 0;
#endif
}
