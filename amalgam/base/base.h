/* base.h - what every file of spore may rely on: integer types, attributes, small arithmetic.
 *
 * Linkage. Every function and object at file scope that has a prototype is marked INTERNAL in its
 * header. The unity roots (amalgam/spore.c, amalgam/agent.c) define it as `static`, so the compiler
 * sees a whole program and reports what nobody calls; the per-file check leaves it empty, so that
 * -Wmissing-prototypes can report what no header declares. */
#pragma once

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef INTERNAL
#define INTERNAL
#endif

/* On a definition: part of a module's interface that only the tests call so far. */
#define ONLY_TESTED __attribute__((unused))

#define MUST_USE __attribute__((warn_unused_result))
#define NORETURN __attribute__((noreturn))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define PACKED __attribute__((packed))

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define KIB(n) ((uint64_t)(n) << 10)
#define MIB(n) ((uint64_t)(n) << 20)
#define GIB(n) ((uint64_t)(n) << 30)

/* Round up to a power of two `a`. */
#define ALIGN_UP(x, a) (((x) + ((a) - 1)) & ~((__typeof__(x))(a) - 1))

/* We are wrong, not the guest, the client or the file: say where and die. On in release builds too.
 * Never for anything that bytes from outside can make false (see err.h). */
#define ASSERT(cond) ((cond) ? (void)0 : base_assert_failed(#cond, __FILE__, __LINE__))
INTERNAL NORETURN void base_assert_failed(const char *cond, const char *file, int line);
