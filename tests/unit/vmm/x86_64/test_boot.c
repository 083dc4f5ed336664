#include <asm/bootparam.h>
#include <lz4.h>
#include <sys/mman.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/mem.h"
#include "tests/unit/test.h"
#include "vmm/layout.h"
#include "vmm/x86_64/boot.h"

#define TBOOT_PADDR UINT64_C(0x1000000)

/* One segment of a packed kernel, as guest/kernel/pack.c describes them. */
struct tboot_segment {
	uint64_t paddr, memsz, filesz;
};

static uint8_t tboot_byte(uint64_t segment, uint64_t at)
{
	return (uint8_t)(segment * 37 + at / 3 + 1);
}

/* A packed kernel of n segments; segment s holds tboot_byte(s, ...). */
static void tboot_pack(struct buf *b, const struct tboot_segment *s, unsigned n)
{
	AUTO_BUF struct buf body = { 0 };

	buf_add(b, "SPOREKRN", 8);
	buf_le32(b, 1);
	buf_le32(b, n);
	buf_le64(b, s[0].paddr + 0x40);
	for (unsigned i = 0; i < n; i++) {
		AUTO_BUF struct buf raw = { 0 };
		int packed = 0;

		for (uint64_t at = 0; at < s[i].filesz; at++)
			buf_add(&raw, (uint8_t[]){ tboot_byte(i, at) }, 1);
		buf_le64(b, s[i].paddr);
		buf_le64(b, s[i].memsz);
		buf_le64(b, s[i].filesz);
		buf_le64(b, 24 + n * 40 + body.len);
		if (s[i].filesz) {
			int room = LZ4_compressBound((int)raw.len);
			packed = LZ4_compress_default((char *)raw.data,
						      (char *)buf_reserve(&body, (size_t)room),
						      (int)raw.len, room);
			CHECK(packed > 0);
			body.len += (size_t)packed;
		}
		buf_le64(b, (uint64_t)packed);
	}
	buf_add(b, body.data, body.len);
}

static const struct tboot_segment tboot_kernel[] = {
	{ TBOOT_PADDR, 0x5000, 0x4321 },
	{ TBOOT_PADDR + 0x5000, 0x20000, 0x3000 }, /* with .bss */
};

struct tboot {
	struct gmem m;
	struct buf kernel, initrd;
	struct ctl_image img;
	struct boot_entry entry;
	struct err e;
};

static void tboot_init(struct tboot *t, uint64_t ram)
{
	*t = (struct tboot){ 0 };
	CHECK_EQ(gmem_init(&t->m, ram, -1, GMEM_PRIVATE, NULL), 0);
	tboot_pack(&t->kernel, tboot_kernel, ARRAY_LEN(tboot_kernel));
}
static void tboot_fini(struct tboot *t)
{
	gmem_fini(&t->m);
	buf_fini(&t->kernel);
	buf_fini(&t->initrd);
}

static int tboot_load(struct tboot *t, const char *cmdline)
{
	t->e = (struct err){ 0 };
	t->img = (struct ctl_image){ .kernel = test_guard(t->kernel.data, t->kernel.len),
				     .kernel_bytes = t->kernel.len, .initrd = t->initrd.data,
				     .initrd_bytes = t->initrd.len };
	return boot_load(&t->m, &t->img, cmdline, 2, &t->entry, &t->e);
}

static struct boot_params tboot_params(const struct tboot *t)
{
	struct boot_params bp;
	CHECK_EQ(gmem_read(&t->m, LAYOUT_ZERO_PAGE, &bp, sizeof bp), 0);
	return bp;
}

TEST(boot_unpacks_every_segment_to_its_place)
{
	struct tboot t;

	tboot_init(&t, MIB(64));
	CHECK_EQ(tboot_load(&t, "console=ttyS0"), 0);
	CHECK_EQ(t.entry.rip, TBOOT_PADDR + 0x40);
	for (unsigned s = 0; s < ARRAY_LEN(tboot_kernel); s++)
		for (uint64_t at = 0; at < tboot_kernel[s].memsz; at++) {
			uint8_t want = at < tboot_kernel[s].filesz ? tboot_byte(s, at) : 0;
			CHECK_EQ(t.m.map[tboot_kernel[s].paddr + at], want);
		}
	CHECK_EQ(t.m.map[TBOOT_PADDR + 0x25000], 0);
	tboot_fini(&t);
}

TEST(boot_tells_the_kernel_what_the_boot_protocol_asks_for)
{
	struct boot_params bp;
	struct tboot t;
	char got[64];

	tboot_init(&t, MIB(64));
	buf_add_str(&t.initrd, "initramfs");
	CHECK_EQ(tboot_load(&t, "console=ttyS0 maxcpus=1"), 0);
	bp = tboot_params(&t);
	CHECK_EQ(bp.hdr.boot_flag, 0xaa55);
	CHECK_EQ(bp.hdr.header, 0x53726448); /* "HdrS" */
	CHECK_EQ(bp.hdr.type_of_loader, 0xff);
	CHECK_EQ(bp.hdr.cmd_line_ptr, 0x20000);
	CHECK_EQ(bp.ext_cmd_line_ptr, 0);
	CHECK_EQ(bp.hdr.cmdline_size, sizeof "console=ttyS0 maxcpus=1");
	CHECK_EQ(gmem_read(&t.m, 0x20000, got, sizeof got), 0);
	CHECK_STR(got, "console=ttyS0 maxcpus=1");
	CHECK_MEM((char *)t.m.map + 0x9fc00, "_MP_", 4);
	tboot_fini(&t);
}

TEST(boot_page_tables_map_the_first_gigabyte_to_itself)
{
	struct tboot t;
	const uint64_t *pml4, *pdpt, *pd, *gdt;

	tboot_init(&t, MIB(64));
	CHECK_EQ(tboot_load(&t, ""), 0);
	pml4 = gmem_span(&t.m, 0x9000, 0x3000);
	CHECK_EQ(pml4[0], 0xa003);
	pdpt = pml4 + 512;
	CHECK_EQ(pdpt[0], 0xb003);
	pd = pdpt + 512;
	for (unsigned i = 0; i < 512; i++) {
		CHECK_EQ(pd[i], (uint64_t)i << 21 | 0x83);
		CHECK(i == 0 || (pml4[i] == 0 && pdpt[i] == 0));
	}
	gdt = gmem_span(&t.m, 0x500, 32);
	CHECK_EQ(gdt[2], UINT64_C(0x00af9b000000ffff)); /* selector 0x10: code, 64 bits, accessed */
	CHECK_EQ(gdt[3], UINT64_C(0x00cf93000000ffff)); /* selector 0x18: data */
	tboot_fini(&t);
}

TEST(boot_e820_names_ram_and_nothing_else)
{
	static const struct {
		uint64_t ram, n, row[3][2];
	} want[] = {
		{ MIB(64), 2, { { 0, 0x9e000 }, { MIB(1), MIB(63) } } },
		{ GIB(3), 2, { { 0, 0x9e000 }, { MIB(1), GIB(3) - MIB(1) } } },
		{ GIB(6), 3, { { 0, 0x9e000 }, { MIB(1), GIB(3) - MIB(1) }, { GIB(4), GIB(3) } } },
		{ LAYOUT_MAX_MEM, 3,
		  { { 0, 0x9e000 }, { MIB(1), GIB(3) - MIB(1) }, { GIB(4), GIB(61) } } },
	};

	for (unsigned i = 0; i < ARRAY_LEN(want); i++) {
		struct boot_params bp;
		struct tboot t;

		test_note("%llu MiB", (unsigned long long)(want[i].ram >> 20));
		tboot_init(&t, want[i].ram);
		CHECK_EQ(tboot_load(&t, ""), 0);
		bp = tboot_params(&t);
		CHECK_EQ(bp.e820_entries, want[i].n);
		for (unsigned r = 0; r < want[i].n; r++) {
			CHECK_EQ(bp.e820_table[r].addr, want[i].row[r][0]);
			CHECK_EQ(bp.e820_table[r].size, want[i].row[r][1]);
			CHECK_EQ(bp.e820_table[r].type, 1);
			/* and all of it is really there */
			CHECK(gmem_span(&t.m, bp.e820_table[r].addr, bp.e820_table[r].size));
		}
		tboot_fini(&t);
	}
}

TEST(boot_puts_the_initramfs_at_the_end_of_low_ram)
{
	static const uint64_t ram[] = { MIB(64), GIB(3), GIB(6) };
	static const size_t bytes[] = { 1, 4095, 4096, 4097, MIB(3) + 5 };

	for (unsigned i = 0; i < ARRAY_LEN(ram); i++)
		for (unsigned k = 0; k < ARRAY_LEN(bytes); k++) {
			uint64_t low = MIN(ram[i], GIB(3));
			struct boot_params bp;
			struct tboot t;

			test_note("%zu bytes in %llu MiB", bytes[k], (unsigned long long)(ram[i] >> 20));
			tboot_init(&t, ram[i]);
			memset(buf_reserve(&t.initrd, bytes[k]), 0x5a, bytes[k]);
			t.initrd.len = bytes[k];
			CHECK_EQ(tboot_load(&t, ""), 0);
			bp = tboot_params(&t);
			CHECK_EQ(bp.hdr.ramdisk_size, bytes[k]);
			CHECK_EQ(bp.ext_ramdisk_image, 0);
			CHECK_EQ(bp.hdr.ramdisk_image % 4096, 0);
			CHECK(bp.hdr.ramdisk_image + bytes[k] <= low);
			CHECK(bp.hdr.ramdisk_image + bytes[k] > low - 4096);
			CHECK_MEM(t.m.map + bp.hdr.ramdisk_image, t.initrd.data, bytes[k]);
			tboot_fini(&t);
		}
}

TEST(boot_can_do_without_an_initramfs)
{
	struct boot_params bp;
	struct tboot t;

	tboot_init(&t, MIB(64));
	CHECK_EQ(tboot_load(&t, ""), 0);
	bp = tboot_params(&t);
	CHECK_EQ(bp.hdr.ramdisk_image, 0);
	CHECK_EQ(bp.hdr.ramdisk_size, 0);
	tboot_fini(&t);
}

TEST(boot_refuses_an_initramfs_that_meets_the_kernel)
{
	/* kernel ends at 16 MiB + 0x25000 of 64 MiB */
	const uint64_t room = MIB(48) - 0x25000;
	static const struct {
		int64_t over;
		int want;
	} row[] = { { 0, 0 }, { -4096, 0 }, { 1, -ENOMEM }, { (int64_t)MIB(16), -ENOMEM },
		    { (int64_t)MIB(17), -ENOMEM } };

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct tboot t;
		test_note("%lld bytes too many", (long long)row[i].over);
		tboot_init(&t, MIB(64));
		t.initrd.len = (size_t)((int64_t)room + row[i].over);
		t.initrd.data = mem_zalloc(t.initrd.len);
		CHECK_EQ(tboot_load(&t, ""), row[i].want);
		if (row[i].want)
			CHECK_STR(t.e.msg, "initramfs does not fit into guest memory");
		tboot_fini(&t);
	}
}

TEST(boot_refuses_a_command_line_that_is_too_long)
{
	static char line[LAYOUT_CMDLINE_MAX + 1];
	struct tboot t;

	memset(line, 'x', LAYOUT_CMDLINE_MAX);
	tboot_init(&t, MIB(64));
	CHECK_EQ(tboot_load(&t, line), -E2BIG);
	CHECK_STR(t.e.msg, "kernel command line: 2049 bytes, at most 2048");
	line[LAYOUT_CMDLINE_MAX - 1] = '\0';
	CHECK_EQ(tboot_load(&t, line), 0);
	CHECK_EQ(tboot_params(&t).hdr.cmdline_size, LAYOUT_CMDLINE_MAX);
	tboot_fini(&t);
}

TEST(boot_refuses_a_packed_kernel_cut_short_behind_its_header)
{
	struct tboot t;
	size_t whole;

	tboot_init(&t, MIB(64));
	whole = t.kernel.len;
	for (t.kernel.len = 24; t.kernel.len < whole; t.kernel.len++) {
		test_note("%zu of %zu bytes", t.kernel.len, whole);
		CHECK_EQ(tboot_load(&t, ""), -EPROTO);
		munmap((void *)((uintptr_t)t.img.kernel & ~UINT64_C(4095)), 4096);
	}
	tboot_fini(&t);
}

/* Offsets in the header and in the first row of the segment table. */
enum { TBOOT_VERSION = 8, TBOOT_COUNT = 12, TBOOT_ROW = 24, TBOOT_MEMSZ = 32, TBOOT_FILESZ = 40,
       TBOOT_AT = 48, TBOOT_PACKED = 56 };

TEST(boot_refuses_a_damaged_packed_kernel)
{
	static const struct {
		unsigned at, bytes;
		uint64_t value;
		int code;
		const char *words;
	} row[] = {
		{ 0, 1, 'X', -EPROTO, "this build has no guest kernel in it" },
		{ 7, 1, 'X', -EPROTO, "this build has no guest kernel in it" },
		{ TBOOT_VERSION, 4, 2, -EPROTO, "this build has no guest kernel in it" },
		{ TBOOT_COUNT, 4, ~0u, -EPROTO, "this build has no guest kernel in it" },
		{ TBOOT_ROW, 8, 0, -ENOMEM, "kernel does not fit into guest memory" },
		{ TBOOT_ROW, 8, MIB(1) - 1, -ENOMEM, "kernel does not fit into guest memory" },
		{ TBOOT_ROW, 8, MIB(64) - 0x4fff, -ENOMEM, "kernel does not fit into guest memory" },
		{ TBOOT_ROW, 8, MIB(64), -ENOMEM, "kernel does not fit into guest memory" },
		{ TBOOT_ROW, 8, UINT64_MAX - 0x1000, -ENOMEM, "kernel does not fit into guest memory" },
		{ TBOOT_MEMSZ, 8, 0x4320, -EPROTO, "kernel: bad segment" }, /* below filesz */
		{ TBOOT_MEMSZ, 8, MIB(48) + 1, -ENOMEM, "kernel does not fit into guest memory" },
		{ TBOOT_MEMSZ, 8, UINT64_MAX, -ENOMEM, "kernel does not fit into guest memory" },
		{ TBOOT_FILESZ, 8, 0x4320, -EPROTO, "kernel: damaged segment" },
		{ TBOOT_FILESZ, 8, 0x4322, -EPROTO, "kernel: damaged segment" },
		{ TBOOT_FILESZ, 8, UINT64_MAX, -EPROTO, "kernel: bad segment" },
		{ TBOOT_AT, 8, UINT64_MAX, -EPROTO, "kernel: bad segment" },
		{ TBOOT_AT, 8, UINT64_MAX - 100, -EPROTO, "kernel: bad segment" },
		{ TBOOT_PACKED, 8, UINT64_MAX, -EPROTO, "kernel: bad segment" },
		{ TBOOT_PACKED, 8, 0x80000000, -EPROTO, "kernel: bad segment" },
		{ TBOOT_PACKED, 8, 0, -EPROTO, "kernel: damaged segment" },
		{ TBOOT_PACKED, 8, 5, -EPROTO, "kernel: damaged segment" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		struct tboot t;
		test_note("row %u", i);
		tboot_init(&t, MIB(64));
		memcpy(t.kernel.data + row[i].at, &row[i].value, row[i].bytes);
		CHECK_EQ(tboot_load(&t, ""), row[i].code);
		CHECK_STR(t.e.msg, row[i].words);
		tboot_fini(&t);
	}
}

TEST(boot_refuses_a_packed_kernel_cut_short_in_its_header)
{
	struct tboot t;

	tboot_init(&t, MIB(64));
	for (t.kernel.len = 0; t.kernel.len < 24; t.kernel.len++) {
		test_note("%zu bytes", t.kernel.len);
		CHECK_EQ(tboot_load(&t, ""), -EPROTO);
		CHECK_STR(t.e.msg, "this build has no guest kernel in it");
	}
	t.kernel.len = 24;
	memset(t.kernel.data + TBOOT_COUNT, 0, 4); /* a kernel of no segments */
	CHECK_EQ(tboot_load(&t, ""), -EPROTO);
	tboot_fini(&t);
}

TEST(boot_takes_a_segment_without_bytes_in_the_file)
{
	static const struct tboot_segment s[] = { { TBOOT_PADDR, 0x1000, 0x800 },
						  { TBOOT_PADDR + 0x1000, 0x3000, 0 } };
	struct tboot t;

	tboot_init(&t, MIB(64));
	t.kernel.len = 0;
	tboot_pack(&t.kernel, s, 2);
	CHECK_EQ(tboot_load(&t, ""), 0);
	tboot_fini(&t);
}

TEST(boot_writes_below_1_mib_only_what_it_says)
{
	static const struct {
		uint64_t at, bytes;
	} own[] = {
		{ LAYOUT_GDT, 32 },
		{ LAYOUT_ZERO_PAGE, 4096 },
		{ LAYOUT_PAGE_TABLE, 3 * 4096 },
		{ LAYOUT_CMDLINE, LAYOUT_CMDLINE_MAX },
		{ LAYOUT_MP_TABLE, LAYOUT_MP_FLOAT + 16 - LAYOUT_MP_TABLE },
	};
	struct tboot t;

	tboot_init(&t, MIB(64));
	memset(t.m.map, 0xee, MIB(1));
	CHECK_EQ(tboot_load(&t, "x"), 0);
	for (uint64_t at = 0; at < MIB(1); at++) {
		bool ours = false;
		for (unsigned i = 0; i < ARRAY_LEN(own); i++)
			ours |= at >= own[i].at && at < own[i].at + own[i].bytes;
		if (!ours)
			CHECK_EQ(t.m.map[at], 0xee);
	}
	tboot_fini(&t);
}
