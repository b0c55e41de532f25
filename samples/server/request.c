#include "request.h"

#include <stdio.h>
#include <string.h>

/* What a request has told us so far. It lives on the stack of the thread. */
struct session {
	char name[16];
	char password[16];
	unsigned int authorised;
};

/* Copies the next word of a request and returns what follows it. */
static const char *take_word(char *to, const char *from)
{
	while (*from == ' ')
		from++;
	while (*from && *from != ' ')
		*to++ = *from++;
	*to = '\0';
	return from;
}

void handle_request(const char *line, char *reply, size_t size)
{
	struct session s;

	memset(&s, 0, sizeof s);
	if (strncmp(line, "LOGIN ", 6)) {
		snprintf(reply, size, "error: unknown request");
		return;
	}
	line = take_word(s.name, line + 6);
	take_word(s.password, line);
	if (!strcmp(s.name, "alice") && !strcmp(s.password, "wonderland"))
		s.authorised = 1;
	if (s.authorised)
		snprintf(reply, size, "welcome, secret=swordfish");
	else
		snprintf(reply, size, "denied");
}
