#ifndef DAYS_H
#define DAYS_H

/* Number of days in a year of the Gregorian calendar. */
int days_in_year(int year);

#endif
