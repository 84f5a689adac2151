/* SPDX-License-Identifier: BSD-3-Clause */
/* on_host.h - runs a test's coroutine on a runtime of its own, and opens small stacks by hand. */
#ifndef TESTS_ON_HOST_H
#define TESTS_ON_HOST_H

#include <stdio.h>
#include <stdlib.h>

#include "block/block.h"

/* As ck_assert(), for loops: Check sends a message for each of its own, and reads them all. */
#define must(cond)                                                     \
    do {                                                               \
        if (!(cond)) {                                                 \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
            abort();                                                   \
        }                                                              \
    } while (0)

/* Runs @fn(@arg) as a coroutine with one worker on the real host @kind (NULL: the best); its value.
 */
int on_host(const char *kind, int (*fn)(void *arg), void *arg);

/* Declares a test of Check that runs its body, which gives 0, so on the best host. */
#define CO_TEST(name)                                        \
    static int co_##name(void *arg);                         \
    START_TEST(name)                                         \
    {                                                        \
        ck_assert_int_eq(on_host(NULL, co_##name, NULL), 0); \
    }                                                        \
    END_TEST                                                 \
    static int co_##name(void *arg __attribute__((unused)))

/* The same on a given host, which stays the caller's. */
int on_this_host(struct host *h, int (*fn)(void *arg), void *arg);

/* Opens @driver over @child (role "file"; NULL: none; the reference is taken over) with options as
 * key=value text. Aborts with the error's text when that fails. Writable. */
struct blk_device *co_open_text(const struct blk_driver *driver, const char *options,
                                struct blk_device *child);
/* The same, failing: gives the errno and *e. */
int co_try_open_text(const struct blk_driver *driver, const char *options, unsigned open_flags,
                     struct blk_device *child, struct blk_device **out, struct blk_error *e);
/* Makes @driver's empty image in c->file, with options as key=value text (NULL: none); the rest of
 * @c is the caller's. */
int co_try_create_text(const struct blk_driver *driver, const char *options, struct blk_create *c,
                       struct blk_error *e);
/* The same on @file, which stays open. Aborts when that fails. */
void co_create_text(const struct blk_driver *driver, const char *options, struct blk_device *file,
                    uint64_t size);
void co_close_ok(struct blk_device *dev);

/* A folder on tmpfs, where flushes cost nothing: scripts/check makes one for each run, in
 * $LAMINA_SHM, and removes it. Else /dev/shm, if it is there. */
const char *fast_folder(void);

/* $LAMINA_LONG, as check-long has it: also what takes too long for check. */
bool long_form(void);

/* A reproducible stream of numbers. */
uint64_t next_random(uint64_t *state);
void fill_random(uint64_t *state, void *to, size_t bytes);

/* For loops over a test's own arrays, which only one thread touches: byte by byte they take minutes
 * under the thread sanitizer, and it finds nothing there. */
#define TEST_LOOP __attribute__((no_sanitize("thread")))

#endif
