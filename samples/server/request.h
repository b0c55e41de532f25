#ifndef REQUEST_H
#define REQUEST_H

#include <stddef.h>

/* Longest line that is read from a connection, with its end. */
#define LINE_SIZE 1024

/*
 * Answers one request, a line without its end. The reply is a line without an
 * end too; size is that of the buffer for it.
 */
void handle_request(const char *line, char *reply, size_t size);

#endif
