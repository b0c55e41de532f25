#ifndef SEAL_H
#define SEAL_H

/* A seal covers an order from this byte on. */
#define SEALED_FROM 1

/* The seal of an order. In the library, for those who send. */
unsigned long seal(const char *order);

/* Whether the seal is that of the order. In the program, which receives. */
int genuine(const char *order, unsigned long seal);

#endif
