/*
 * server: answers requests, one a line, on a TCP port of the loopback address.
 *
 *	server [PORT]    serves, one thread for each connection; prints the port,
 *	                 which is a free one if PORT is 0 or not given
 *	server --ask     takes the requests from its input and answers on its output
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "request.h"

/* Reads and answers lines until the stream ends. */
static void converse(FILE *in, FILE *out)
{
	char line[LINE_SIZE], reply[LINE_SIZE];

	while (fgets(line, sizeof line, in)) {
		line[strcspn(line, "\r\n")] = '\0';
		handle_request(line, reply, sizeof reply);
		if (fprintf(out, "%s\n", reply) < 0 || fflush(out))
			return;
	}
}

static void *serve(void *arg)
{
	int fd = (int)(intptr_t)arg, copy = dup(fd);
	FILE *in = fdopen(fd, "r"), *out = copy < 0 ? NULL : fdopen(copy, "w");

	if (in && out)
		converse(in, out);
	if (in)
		fclose(in);
	else
		close(fd);
	if (out)
		fclose(out);
	else if (copy >= 0)
		close(copy);
	return NULL;
}

static int listen_on(in_port_t port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(port) };
	socklen_t size = sizeof addr;
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
	    bind(fd, (struct sockaddr *)&addr, sizeof addr) || listen(fd, 128) ||
	    getsockname(fd, (struct sockaddr *)&addr, &size)) {
		perror("server");
		exit(1);
	}
	printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
	fflush(stdout);
	return fd;
}

int main(int argc, char **argv)
{
	pthread_attr_t detached;
	pthread_t thread;
	int fd, conn;

	if (argc > 1 && !strcmp(argv[1], "--ask")) {
		converse(stdin, stdout);
		return 0;
	}
	signal(SIGPIPE, SIG_IGN);
	fd = listen_on(argc > 1 ? (in_port_t)atoi(argv[1]) : 0);
	pthread_attr_init(&detached);
	pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
	for (;;) {
		conn = accept(fd, NULL, NULL);
		if (conn >= 0 && pthread_create(&thread, &detached, serve, (void *)(intptr_t)conn))
			close(conn);
	}
}
