#include <stdio.h>
#include <string.h>

#include "account.h"

struct account accounts[MOST_ACCOUNTS];
int account_count;

static struct account *find(const char *name)
{
	int i;

	for (i = 0; i < account_count; i++)
		if (!strcmp(accounts[i].name, name))
			return &accounts[i];
	return 0;
}

int open_account(const char *name, const char *password)
{
	struct account *a = find(name);

	if (!a && account_count == MOST_ACCOUNTS)
		return -1;
	if (!a)
		a = &accounts[account_count++];
	snprintf(a->name, sizeof a->name, "%s", name);
	snprintf(a->password, sizeof a->password, "%s", password);
	return 0;
}

enum login login(const char *name, const char *password)
{
	struct account *a = find(name);

	if (!a || strcmp(a->password, password))
		return WRONG;
	return WELCOME;
}
