#include "seal.h"

#include <string.h>

int genuine(const char *order, unsigned long seal)
{
	unsigned long sum = 5381;

	for (size_t i = SEALED_FROM; i < strlen(order); i++)
		sum = sum * 33 + (unsigned char)order[i];
	return sum == seal;
}
