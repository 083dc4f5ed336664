/* fuzz.h - what every fuzz target starts with. A target includes the .c files it needs, so that
 * coverage counts only what is under test, and defines LLVMFuzzerTestOneInput(). */
#pragma once

#define INTERNAL static

#include "amalgam/base/base.c"
#include "amalgam/base/err.c"
#include "amalgam/base/mem.c"
#include "amalgam/base/buf.c"
#include "amalgam/base/str.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
