#include "amalgam/base/base.h"

void base_assert_failed(const char *cond, const char *file, int line)
{
	dprintf(2, "spore: bug: %s does not hold at %s:%d; please report this\n", cond, file, line);
	abort();
}
