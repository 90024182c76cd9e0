/* What both programs must agree on: the clock, and the stamp that carries a send time inside a chunk's text.
 *
 * The mock writes "t=" and the time in nanoseconds as the first thing in a chunk's content, always with as many
 * digits, so that every chunk is equally long; the client reads it back out of whatever JSON the proxy made of it. */

#ifndef PORTICO_BENCH_CLOCK_H
#define PORTICO_BENCH_CLOCK_H

#include <stdint.h>
#include <time.h>

#define STAMP_MARK "\"t="                  /* the quote belongs to JSON: a stamp is only ever the start of a string */
#define STAMP_DIGITS 19

static const uint64_t MILLISECOND = 1000000ull;
static const uint64_t SECOND = 1000000000ull;

/* CLOCK_MONOTONIC: the same for every process of one machine, and nothing sets it. */
static inline uint64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static inline void write_stamp(char digits[STAMP_DIGITS], uint64_t time)
{
    for (int i = STAMP_DIGITS - 1; i >= 0; i--, time /= 10)
        digits[i] = (char)('0' + time % 10);
}

/* 0 when the text is not a whole stamp. */
static inline uint64_t read_stamp(const char *digits, const char *end)
{
    if (end - digits < STAMP_DIGITS)
        return 0;
    uint64_t time = 0;
    for (int i = 0; i < STAMP_DIGITS; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return 0;
        time = time * 10 + (uint64_t)(digits[i] - '0');
    }
    return time;
}

#endif
