/* SPDX-License-Identifier: BSD-3-Clause */
/* io_print.c - numbers and reports in qemu-io's own spelling, which test suites compare. */
#include <ctype.h>

#include "tools/io.h"

bool io_number(const char *text, uint64_t *out)
{
    struct blk_error e = {0};
    int rc = opts_parse_size(text, out, &e);
    if (rc == 0)
        return true;
    printf("Parsing error: %s -- %s\n",
           rc == -ERANGE ? "argument too large"
                         : "non-numeric argument, or extraneous/unrecognized suffix",
           text);
    return false;
}

const char *io_size_text(double bytes, char *to, size_t to_bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    size_t unit = 0;
    char number[40];
    for (; bytes >= 1024 && unit + 1 < ARRAY_LEN(units); unit++)
        bytes /= 1024;
    snprintf(number, sizeof(number), unit ? "%.3f" : "%f", bytes);
    char *zeroes = strstr(number, ".000");
    if (zeroes)
        *zeroes = '\0';
    snprintf(to, to_bytes, "%s %s", number, units[unit]);
    return to;
}

static void time_text(double seconds, bool whole, char *to, size_t to_bytes)
{
    unsigned hundredths = (unsigned)(seconds * 100) % 100;
    unsigned long s = (unsigned long)seconds;
    if (whole || s >= 3600)
        snprintf(to, to_bytes, "%lu:%02lu:%02lu.%02u", s / 3600, s / 60 % 60, s % 60, hundredths);
    else if (s >= 60)
        snprintf(to, to_bytes, "%lu:%02lu.%02u", s / 60, s % 60, hundredths);
    else
        snprintf(to, to_bytes, "%02lu.%02u sec", s, hundredths);
}

void io_print_report(const struct io_report *r)
{
    char took[40], size[40], rate[40];
    double seconds = r->seconds > 0 ? r->seconds : 1e-9;
    time_text(seconds, r->machine, took, sizeof(took));
    if (r->machine) {
        printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", r->bytes, took, (double)r->bytes / seconds,
               1 / seconds);
        return;
    }
    printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", r->word, r->bytes, r->wanted,
           r->offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n",
           io_size_text((double)r->bytes, size, sizeof(size)), took,
           io_size_text((double)r->bytes / seconds, rate, sizeof(rate)), 1 / seconds);
}

#define LINE_BYTES 16

void io_print_dump(const uint8_t *bytes, uint64_t offset, uint64_t count)
{
    for (uint64_t at = 0; at < count; at += LINE_BYTES) {
        uint64_t n = MIN(count - at, LINE_BYTES);
        printf("%08" PRIx64 ":  ", offset + at);
        for (uint64_t i = 0; i < n; i++)
            printf("%02x ", bytes[at + i]);
        putchar(' ');
        for (uint64_t i = 0; i < n; i++)
            putchar(isalnum(bytes[at + i]) ? bytes[at + i] : '.');
        putchar('\n');
    }
}
