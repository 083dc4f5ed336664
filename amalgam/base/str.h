/* str.h - text that came from people or files: numbers with a range, names, quoting. */
#pragma once

#include "amalgam/base/base.h"

/* The whole of `s` as a decimal number in [min, max]. 0, -EINVAL (not a number) or -ERANGE. */
INTERNAL MUST_USE int str_u64(const char *s, uint64_t min, uint64_t max, uint64_t *out);

INTERNAL bool str_starts(const char *s, const char *prefix);

struct buf;

/* Bytes of the well-formed UTF-8 sequence at the start of n bytes of text; 0 if there is none. */
INTERNAL unsigned str_utf8_len(const void *text, size_t n);
/* Append one code point; what is not a character (surrogates, > U+10FFFF) becomes U+FFFD. */
INTERNAL void str_utf8_put(struct buf *b, uint32_t code);

/* Append s to b as a JSON string, quotes included. Bytes that are not UTF-8 become U+FFFD. */
INTERNAL void str_json(struct buf *b, const char *s);

/* The first line of text that is not empty, as a C string of at most room - 1 bytes. Leading blanks
 * go; control characters and bytes that are not UTF-8 become '?': for words of another program in a
 * message of ours. */
INTERNAL void str_first_line(char *out, size_t room, const void *text, size_t n);
