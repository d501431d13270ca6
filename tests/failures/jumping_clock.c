// Preloaded into a process, its wall clock jumps by six days and back every quarter of a second; the monotonic clock goes on as it is.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);

static time_t jump(void) {
    struct timespec now;
    real(CLOCK_MONOTONIC, &now);
    return ((now.tv_sec * 4 + now.tv_nsec / 250000000) % 2 ? 3 : -3) * 86400;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jump();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    now->tv_sec = wall.tv_sec;
    now->tv_usec = wall.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *place) {
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    if (place) *place = wall.tv_sec;
    return wall.tv_sec;
}
