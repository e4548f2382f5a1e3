/*
 * Preloaded into redis-server: adds what the file $REDISTEST_CLOCK holds, a
 * 64-bit number of seconds, to the wall clock whenever it is read, and leaves the
 * monotonic one alone. (libfaketime would do, but it allocates memory while
 * jemalloc, which Debian's redis-server uses, asks for the time to get started.)
 * So nothing here allocates: system calls and one mapped page.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *ahead;

__attribute__((constructor)) static void init(void) {
	const char *name = getenv("REDISTEST_CLOCK");
	int fd = name ? open(name, O_RDONLY) : -1;
	if (fd < 0)
		_exit(3);
	void *page = mmap(NULL, sizeof *ahead, PROT_READ, MAP_SHARED, fd, 0);
	if (page == MAP_FAILED)
		_exit(3);
	ahead = page;
	close(fd);
}

int clock_gettime(clockid_t id, struct timespec *t) {
	int r = syscall(SYS_clock_gettime, id, t);
	if (r == 0 && ahead && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		t->tv_sec += *ahead;
	return r;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
	int r = syscall(SYS_gettimeofday, t, zone);
	if (r == 0 && ahead)
		t->tv_sec += *ahead;
	return r;
}

time_t time(time_t *out) {
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}
