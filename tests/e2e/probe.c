/* probe.c - what the end-to-end tests ask of a guest and busybox cannot say. Static, in the image. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static int probe_getrandom(void)
{
	unsigned char raw[16];

	if (getrandom(raw, sizeof raw, 0) != sizeof raw)
		return 1;
	for (unsigned i = 0; i < sizeof raw; i++)
		printf("%02x", raw[i]);
	puts("");
	return 0;
}

/* An illegal instruction: a signal that even the init process of a namespace gets. */
static int probe_crash(void)
{
	__builtin_trap();
}

/* Use MIB of memory, every page of it; a little at a time, or the kernel refuses what it has not. */
static int probe_eat(const char *mib)
{
	for (int i = atoi(mib); i > 0; i--) {
		char *p = malloc(1 << 20);
		if (!p)
			return 1;
		memset(p, 'x', 1 << 20);
	}
	printf("ate %s MiB\n", mib);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "getrandom"))
		return probe_getrandom();
	if (!strcmp(what, "crash"))
		return probe_crash();
	if (!strcmp(what, "sleep"))
		return pause();
	if (!strcmp(what, "eat") && argc > 2)
		return probe_eat(argv[2]);
	return 2;
}
