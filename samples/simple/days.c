#include "days.h"

int days_in_year(int year)
{
	if (year % 4 == 0)
		return 366;
	return 365;
}
