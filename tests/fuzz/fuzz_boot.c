/* fuzz_boot.c - packed kernel images: vmm/x86_64/boot.c on bytes that guest/kernel/pack.c never wrote.
 *
 * Input: u8 flags, u8 length of a command line in units of 16, u8 bytes of initramfs (times 32 KiB
 * with flag 2); then the image, which flag 1 gives a good header and segments that fit. What is loaded
 * stays inside guest memory and above the first MiB; what boot_load() writes below that stays where
 * layout.h says. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/base/log.c"
#include "vmm/gmem.c"
#include "vmm/kvm.c"
#include "vmm/x86_64/mptable.c"
#include "vmm/x86_64/boot.c"

#include <sys/mman.h>

#define FBOOT_RAM MIB(8)

static void fboot_put(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t fboot_get(const uint8_t *p)
{
	struct cur c = cur_of(p, 8);
	return cur_le64(&c);
}

/* Make a header of 1 to 3 segments whose numbers are near the good ones, so that the unpacker is
 * reached; the packed bytes stay the fuzzer's. */
static void fboot_mend(uint8_t *p, size_t n)
{
	unsigned segments = n > 24 ? 1 + p[12] % 3 : 0;
	size_t body = 24 + 40 * (size_t)segments;

	if (n < body + 8)
		return;
	memcpy(p, "SPOREKRN", 8);
	fboot_put(p + 8, 1, 4);
	fboot_put(p + 12, segments, 4);
	for (unsigned s = 0; s < segments; s++) {
		uint8_t *row = p + 24 + 40 * s;
		uint64_t room = (n - body) / segments;

		fboot_put(row, LAYOUT_HIMEM + fboot_get(row) % (FBOOT_RAM - MIB(2)), 8);
		fboot_put(row + 16, fboot_get(row + 16) % 4096, 8);
		fboot_put(row + 8, fboot_get(row + 16) + fboot_get(row + 8) % 65536, 8);
		fboot_put(row + 24, body + s * room, 8);
		fboot_put(row + 32, room, 8);
	}
}

static void fboot_check_low(const struct gmem *m, bool loaded)
{
	static const uint64_t own[][2] = {
		{ LAYOUT_GDT, 32 },
		{ LAYOUT_ZERO_PAGE, 4096 },
		{ LAYOUT_PAGE_TABLE, 3 * 4096 },
		{ LAYOUT_CMDLINE, LAYOUT_CMDLINE_MAX },
		{ LAYOUT_MP_TABLE, LAYOUT_MP_FLOAT + 16 - LAYOUT_MP_TABLE },
	};
	static const uint8_t zeros[LAYOUT_HIMEM];
	uint64_t at = 0;

	for (unsigned i = 0; i <= ARRAY_LEN(own); i++) {
		uint64_t end = i < ARRAY_LEN(own) ? own[i][0] : LAYOUT_HIMEM;
		ASSERT(!memcmp(m->map + at, zeros, end - at));
		at = i < ARRAY_LEN(own) ? own[i][0] + own[i][1] : at;
	}
	ASSERT(!loaded || !memcmp(m->map + LAYOUT_MP_FLOAT, "_MP_", 4));
}

static struct gmem fboot_mem; /* all zeros between two runs */

static void fboot_clear(void)
{
	memset(fboot_mem.map, 0, LAYOUT_HIMEM);
	ASSERT(madvise(fboot_mem.map + LAYOUT_HIMEM, FBOOT_RAM - LAYOUT_HIMEM, MADV_DONTNEED) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct cur in = cur_of(data, size);
	static char cmdline[256 * 16];
	uint8_t head[3], *p, *initrd;
	struct ctl_image img;
	struct boot_entry entry;
	struct err e;
	int r = fboot_mem.map ? 0 : gmem_init(&fboot_mem, FBOOT_RAM, -1, GMEM_PRIVATE, NULL);

	ASSERT(r == 0);
	cur_copy(&in, head, sizeof head);
	img.kernel_bytes = cur_left(&in);
	img.kernel = p = mem_zalloc(img.kernel_bytes);
	cur_copy(&in, p, img.kernel_bytes);
	if (head[0] & 1)
		fboot_mend(p, img.kernel_bytes);
	img.initrd_bytes = head[2] * (size_t)(head[0] & 2 ? KIB(32) : 1);
	img.initrd = initrd = mem_zalloc(img.initrd_bytes);
	memset(cmdline, 'x', sizeof cmdline);
	cmdline[head[1] * 16] = '\0';
	r = boot_load(&fboot_mem, &img, cmdline, 1 + head[0] % 64, &entry, &e);
	ASSERT(r == 0 || r == -EPROTO || r == -ENOMEM || r == -E2BIG);
	fboot_check_low(&fboot_mem, r == 0);
	fboot_clear();
	free(p);
	free(initrd);
	return 0;
}
