/* SPDX-License-Identifier: BSD-3-Clause */
/* job.c - speed limits in virtual time, pause, cancel, checkpoints, events. */
#include <check.h>

#include "block/host_sim.h"
#include "block/job.h"

static struct host *host;
static struct runtime *rt;

static void setup(void)
{
    struct sim_options s = {.seed = 1};
    struct runtime_options o = {.workers = 1};
    ck_assert_int_eq(host_sim_open(&s, &host), 0);
    o.host = host;
    ck_assert_int_eq(runtime_open(&o, &rt), 0);
}

static void teardown(void)
{
    runtime_close(rt);
    host_close(host);
}

struct work {
    struct job job;
    unsigned steps, made;
    uint64_t step_bytes, step_ns;
    unsigned checkpoints, events;
    int checkpoint_rc, run_rc;
};

static int co_work(struct job *j, struct blk_error *e)
{
    struct work *w = j->arg;
    j->total = w->steps * w->step_bytes;
    for (w->made = 0; w->made < w->steps; w->made++) {
        if (w->step_ns)
            co_sleep(w->step_ns);
        TRY(co_job_step(j, w->step_bytes));
    }
    return w->run_rc;
}

static int co_checkpoint(struct job *j, struct blk_error *e)
{
    struct work *w = j->arg;
    w->checkpoints++;
    return w->checkpoint_rc < 0 ? err_set(e, w->checkpoint_rc, "no checkpoint") : 0;
}

static void on_event(struct job *j)
{
    ((struct work *)j->arg)->events++;
}

static void work_init(struct work *w, unsigned steps, uint64_t bytes)
{
    *w = (struct work){.steps = steps, .step_bytes = bytes};
    job_init(&w->job, "scrub", co_work, w);
    w->job.on_event = on_event;
    w->job.co_checkpoint = co_checkpoint;
}

static const uint64_t second = 1000000000;

static int co_speed(void *arg)
{
    struct work w;
    work_init(&w, 100, MiB);
    w.job.bytes_per_second = 10 * MiB;
    uint64_t from = worker_now();
    ck_assert_int_eq(co_job_run(&w.job), 0);
    uint64_t took = worker_now() - from;
    ck_assert_uint_ge(took, 99 * second / 10);
    ck_assert_uint_le(took, 102 * second / 10);
    ck_assert_int_eq(w.job.state, JOB_DONE);
    ck_assert_uint_eq(w.job.done, 100 * MiB);
    ck_assert_uint_ge(w.events, 102);
    /* no limit: no time */
    work_init(&w, 100, MiB);
    from = worker_now();
    ck_assert_int_eq(co_job_run(&w.job), 0);
    ck_assert_uint_lt(worker_now() - from, second);
    return 0;
}

static int co_no_race_after_a_stall(void *arg)
{
    struct work w;
    work_init(&w, 2, 10 * MiB);
    w.step_ns = 100 * second; /* each step takes long: nothing is owed, and nothing is saved up */
    w.job.bytes_per_second = 10 * MiB;
    uint64_t from = worker_now();
    ck_assert_int_eq(co_job_run(&w.job), 0);
    ck_assert_uint_ge(worker_now() - from, 200 * second + 8 * second / 10);
    return 0;
}

static int co_pause_resume_cancel(void *arg)
{
    struct job_list l = {0};
    struct work w;
    work_init(&w, 1000, MiB);
    w.job.bytes_per_second = MiB;
    ck_assert_int_eq(job_start(&l, &w.job), 0);
    ck_assert_str_eq(w.job.id, "scrub-1");
    ck_assert_ptr_eq(job_find(&l, "scrub-1"), &w.job);
    ck_assert_ptr_null(job_find(&l, "scrub"));
    co_sleep(10 * second + second / 2);
    unsigned made = w.made;
    ck_assert_uint_ge(made, 9);
    ck_assert_uint_le(made, 11);
    job_pause(&w.job);
    co_sleep(100 * second);
    ck_assert_int_eq(w.job.state, JOB_PAUSED);
    ck_assert_uint_le(w.made, made + 1);
    ck_assert_uint_ge(w.checkpoints, 1);
    job_resume(&w.job);
    co_sleep(10 * second);
    ck_assert_int_eq(w.job.state, JOB_RUNNING);
    ck_assert_uint_le(w.made, made + 12);
    job_set_speed(&w.job, 100 * MiB);
    co_sleep(second);
    ck_assert_uint_ge(w.made, made + 90);
    unsigned checkpoints = w.checkpoints;
    job_set_speed(&w.job, 1); /* the next step sleeps for 12 days */
    co_sleep(second);
    job_cancel(&w.job);
    ck_assert_int_eq(co_job_wait(&w.job), -ECANCELED);
    ck_assert_int_eq(w.job.state, JOB_CANCELLED);
    ck_assert_uint_gt(w.checkpoints, checkpoints);
    json_t *o = job_to_json(&w.job);
    ck_assert_str_eq(json_string_value(json_object_get(o, "error")), "scrub was cancelled");
    ck_assert_str_eq(json_string_value(json_object_get(o, "state")), "cancelled");
    json_decref(o);
    job_forget(&l, &w.job);
    ck_assert_ptr_null(l.first);
    return 0;
}

static int co_cancel_while_paused(void *arg)
{
    struct job_list l = {0};
    struct work a, b;
    work_init(&a, 5, 1);
    work_init(&b, 5, 1);
    a.step_ns = b.step_ns = second;
    job_pause(&a.job);
    ck_assert_int_eq(job_start(&l, &a.job), 0);
    ck_assert_int_eq(job_start(&l, &b.job), 0);
    ck_assert_str_eq(b.job.id, "scrub-2");
    ck_assert_int_eq(co_job_wait(&b.job), 0);
    ck_assert_int_eq(a.job.state, JOB_PAUSED);
    job_cancel(&a.job);
    ck_assert_int_eq(co_job_wait(&a.job), -ECANCELED);
    job_forget(&l, &a.job);
    ck_assert_ptr_eq(l.first, &b.job);
    job_forget(&l, &b.job);
    return 0;
}

static int co_failures(void *arg)
{
    struct work w;
    work_init(&w, 1, 1);
    w.run_rc = -EIO;
    ck_assert_int_eq(co_job_run(&w.job), -EIO);
    ck_assert_int_eq(w.job.state, JOB_FAILED);
    ck_assert_str_eq(w.job.error.text, "scrub: Input/output error");
    ck_assert_int_eq(co_job_wait(&w.job), -EIO);
    /* a checkpoint that cannot be written fails the job */
    work_init(&w, 100, 1);
    w.step_ns = second;
    w.checkpoint_rc = -ENOSPC;
    ck_assert_int_eq(co_job_run(&w.job), -ENOSPC);
    ck_assert_int_eq(w.job.state, JOB_FAILED);
    ck_assert_uint_eq(w.made, 9);
    /* work that says "cancelled" although nobody asked has failed */
    work_init(&w, 1, 1);
    w.run_rc = -ECANCELED;
    ck_assert_int_eq(co_job_run(&w.job), -ECANCELED);
    ck_assert_int_eq(w.job.state, JOB_FAILED);
    return 0;
}

static int co_huge_numbers(void *arg)
{
    struct job_list l = {0};
    struct work w;
    work_init(&w, 3, UINT64_MAX / 2);
    w.job.bytes_per_second = 1;
    ck_assert_int_eq(job_start(&l, &w.job), 0);
    co_sleep(1000 * second);
    ck_assert_uint_eq(w.made, 0);
    job_set_speed(&w.job, UINT64_MAX);
    co_sleep(10 * second);
    ck_assert_int_eq(co_job_wait(&w.job), 0);
    job_forget(&l, &w.job);
    return 0;
}

#define RUN_TEST(name)                                         \
    START_TEST(name)                                           \
    {                                                          \
        ck_assert_int_eq(runtime_run(rt, co_##name, NULL), 0); \
    }                                                          \
    END_TEST

RUN_TEST(speed)
RUN_TEST(no_race_after_a_stall)
RUN_TEST(pause_resume_cancel)
RUN_TEST(cancel_while_paused)
RUN_TEST(failures)
RUN_TEST(huge_numbers)

int main(void)
{
    Suite *s = suite_create("job");
    TCase *t = tcase_create("job");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, speed);
    tcase_add_test(t, no_race_after_a_stall);
    tcase_add_test(t, pause_resume_cancel);
    tcase_add_test(t, cancel_while_paused);
    tcase_add_test(t, failures);
    tcase_add_test(t, huge_numbers);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
