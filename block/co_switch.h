/* SPDX-License-Identifier: BSD-3-Clause */
/* co_switch.h - from one stack to another in a few instructions.
 *
 * co_switch_raw() leaves the address to go on at and the frame pointer on the old stack, its place
 * in @from, and jumps to what @to holds. All other registers are declared lost, so the compiler
 * saves just those that it needs. It ends in an indirect jump: a `ret` to an address that no `call`
 * pushed is always mispredicted. It is inlined so that no call stays unmatched either. The control
 * words of the floating point units are never changed here, so they are not saved.
 *
 * Private to co.c. */
#ifndef BLOCK_CO_SWITCH_H
#define BLOCK_CO_SWITCH_H

#include "block/base.h"

#if defined(__SANITIZE_ADDRESS__)
#define CO_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CO_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define CO_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CO_TSAN 1
#endif
#endif
#ifdef CO_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CO_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* -DCO_UCONTEXT=1 takes the slow way anywhere: a hundred times slower, for comparison. */
#if !defined(CO_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define CO_UCONTEXT 1
#endif
#ifdef CO_UCONTEXT
#include <ucontext.h>
#endif

/* A place of execution that is not running now: a coroutine's, or that of a worker's loop. */
struct co_frame {
    void *sp;
#ifdef CO_UCONTEXT
    ucontext_t context;
#endif
#ifdef CO_ASAN
    void *fake_stack;
    const void *stack;
    size_t stack_bytes;
#endif
#ifdef CO_TSAN
    void *fiber;
#endif
};

#if defined(__x86_64__) && !defined(CO_UCONTEXT)

static inline __attribute__((always_inline)) void co_switch_raw(struct co_frame *from,
                                                                struct co_frame *to)
{
    void **save = &from->sp, *sp = to->sp;

    __asm__ volatile("leaq -128(%%rsp), %%rsp\n\t" /* past the red zone */
                     "pushq %%rbp\n\t"
                     "leaq 1f(%%rip), %%rax\n\t"
                     "pushq %%rax\n\t"
                     "movq %%rsp, (%0)\n\t"
                     "movq %1, %%rsp\n\t"
                     "popq %%rax\n\t"
                     "popq %%rbp\n\t"
                     "jmpq *%%rax\n"
                     "1:\n\t"
                     "leaq 128(%%rsp), %%rsp"
                     : "+D"(save), "+S"(sp)
                     :
                     : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
                       "r15", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15",
#ifdef __AVX512F__
                       "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23",
                       "xmm24", "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k1",
                       "k2", "k3", "k4", "k5", "k6", "k7",
#endif
                       "memory", "cc");
}

/* Makes @frame begin in @entry, on the stack that ends below @top. */
static inline void co_frame_init(struct co_frame *frame, void *top, void (*entry)(void))
{
    void **sp = (void **)align_down((uintptr_t)top, 16);

    *--sp = NULL; /* where a call would have left the address to return to: keeps rsp % 16 == 8 */
    *--sp = NULL; /* rbp */
    *--sp = (void *)entry;
    frame->sp = sp;
}

#elif defined(__aarch64__) && !defined(CO_UCONTEXT)

static inline __attribute__((always_inline)) void co_switch_raw(struct co_frame *from,
                                                                struct co_frame *to)
{
    register void **save __asm__("x0") = &from->sp;
    register void *sp __asm__("x1") = to->sp;

    __asm__ volatile("sub sp, sp, #32\n\t"
                     "str x29, [sp]\n\t"
                     "adr x9, 1f\n\t"
                     "str x9, [sp, #16]\n\t"
                     "mov x9, sp\n\t"
                     "str x9, [%0]\n\t"
                     "mov sp, %1\n\t"
                     "ldr x29, [sp]\n\t"
                     "ldr x9, [sp, #16]\n\t"
                     "add sp, sp, #32\n\t"
                     "br x9\n"
                     "1:\n\t"
                     "hint #36" /* bti j */
                     : "+r"(save), "+r"(sp)
                     :
                     : "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
                       "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24",
                       "x25", "x26", "x27", "x28", "x30", "v0", "v1", "v2", "v3", "v4", "v5", "v6",
                       "v7", "v8", "v9", "v10", "v11", "v12", "v13", "v14", "v15", "v16", "v17",
                       "v18", "v19", "v20", "v21", "v22", "v23", "v24", "v25", "v26", "v27", "v28",
                       "v29", "v30", "v31", "memory", "cc");
}

static inline void co_frame_init(struct co_frame *frame, void *top, void (*entry)(void))
{
    void **sp = (void **)align_down((uintptr_t)top, 16) - 4;

    sp[0] = NULL; /* x29 */
    sp[2] = (void *)entry;
    frame->sp = sp;
}

#else

static inline void co_switch_raw(struct co_frame *from, struct co_frame *to)
{
    swapcontext(&from->context, &to->context);
}

static inline void co_frame_init(struct co_frame *frame, void *top, void (*entry)(void))
{
    getcontext(&frame->context);
    /* co.c sets frame->sp to the lowest usable byte before. */
    frame->context.uc_stack.ss_sp = frame->sp;
    frame->context.uc_stack.ss_size = (size_t)((char *)top - (char *)frame->sp);
    frame->context.uc_link = NULL;
    makecontext(&frame->context, entry, 0);
}

#endif

/* What the sanitizers are told. co_leaving() just before the jump, co_arrived() just behind it.
 * @came_from: learns the bounds of the stack that was left (NULL where they are known). */
static inline __attribute__((always_inline)) void co_leaving(struct co_frame *from,
                                                             struct co_frame *to)
{
#ifdef CO_ASAN
    __sanitizer_start_switch_fiber(&from->fake_stack, to->stack, to->stack_bytes);
#endif
#ifdef CO_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
}

static inline __attribute__((always_inline)) void co_arrived(struct co_frame *here,
                                                             struct co_frame *came_from)
{
#ifdef CO_ASAN
    __sanitizer_finish_switch_fiber(here->fake_stack, came_from ? &came_from->stack : NULL,
                                    came_from ? &came_from->stack_bytes : NULL);
#endif
}

#endif
