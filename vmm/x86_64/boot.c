#include "vmm/x86_64/boot.h"

#include <asm/bootparam.h>
#include <lz4.h>

#include "amalgam/base/buf.h"
#include "amalgam/base/mem.h"
#include "vmm/layout.h"
#include "vmm/x86_64/mptable.h"

/* Packed kernel, written by guest/kernel/pack.c: header, then `segments` of these, then LZ4 blocks. */
#define BOOT_KERNEL_MAGIC    "SPOREKRN"
#define BOOT_KERNEL_VERSION  1
#define BOOT_KERNEL_SEGMENTS 64 /* what pack.c writes at most */

/* Setup header, boot.rst "The Real-Mode Kernel Header". */
#define BOOT_FLAG        0xaa55
#define BOOT_HDRS        0x53726448
#define BOOT_PROTOCOL    0x020f
#define BOOT_LOADER_NONE 0xff
#define BOOT_E820_RAM    1

static int boot_load_segment(const struct gmem *m, const struct ctl_image *img, struct cur *table,
			     uint64_t *end, struct err *e)
{
	uint64_t paddr = cur_le64(table), memsz = cur_le64(table), filesz = cur_le64(table);
	uint64_t at = cur_le64(table), packed = cur_le64(table);
	char *to;

	if (table->bad || filesz > memsz || filesz > INT_MAX || packed > INT_MAX ||
	    at > img->kernel_bytes || packed > img->kernel_bytes - at)
		return err_set(e, -EPROTO, "kernel: bad segment");
	to = gmem_span(m, paddr, memsz);
	if (!to || paddr < LAYOUT_HIMEM)
		return err_set(e, -ENOMEM, "kernel does not fit into guest memory");
	gmem_huge(m, paddr, filesz);
	/* No vCPU exists yet, so this span is still ours alone. The rest of memsz is zero already. */
	if (filesz && LZ4_decompress_safe((const char *)img->kernel + at, to, (int)packed, (int)filesz) !=
	    (int)filesz)
		return err_set(e, -EPROTO, "kernel: damaged segment");
	*end = MAX(*end, paddr + memsz);
	return 0;
}

static int boot_load_kernel(const struct gmem *m, const struct ctl_image *img,
			    struct boot_entry *out, uint64_t *end, struct err *e)
{
	struct cur c = cur_of(img->kernel, img->kernel_bytes);
	const uint8_t *magic = cur_bytes(&c, 8);
	uint32_t version = cur_le32(&c), n = cur_le32(&c);

	out->rip = cur_le64(&c);
	if (!magic || memcmp(magic, BOOT_KERNEL_MAGIC, 8) || version != BOOT_KERNEL_VERSION ||
	    c.bad || n == 0 || n > BOOT_KERNEL_SEGMENTS)
		return err_set(e, -EPROTO, "this build has no guest kernel in it");
	for (uint32_t i = 0; i < n; i++) {
		int r = boot_load_segment(m, img, &c, end, e);
		if (r < 0)
			return r;
	}
	return 0;
}

/* The initramfs goes as high in low RAM as it fits, away from the kernel. */
static int boot_load_initrd(const struct gmem *m, const struct ctl_image *img, uint64_t kernel_end,
			    struct boot_params *bp, struct err *e)
{
	uint64_t room = m->region[0].bytes;
	uint64_t at = (room - MIN(room, img->initrd_bytes)) & ~(GMEM_PAGE - 1);

	if (img->initrd_bytes == 0)
		return 0;
	if (at < kernel_end || gmem_write(m, at, img->initrd, img->initrd_bytes) < 0)
		return err_set(e, -ENOMEM, "initramfs does not fit into guest memory");
	bp->hdr.ramdisk_image = (uint32_t)at;
	bp->hdr.ramdisk_size = (uint32_t)img->initrd_bytes;
	return 0;
}

static void boot_add_e820(struct boot_params *bp, uint64_t addr, uint64_t size)
{
	struct boot_e820_entry *row = &bp->e820_table[bp->e820_entries++];

	row->addr = addr;
	row->size = size;
	row->type = BOOT_E820_RAM;
}

static void boot_fill_e820(const struct gmem *m, struct boot_params *bp)
{
	boot_add_e820(bp, 0, LAYOUT_MP_TABLE);
	boot_add_e820(bp, LAYOUT_HIMEM, m->region[0].bytes - LAYOUT_HIMEM);
	for (unsigned i = 1; i < m->n; i++)
		boot_add_e820(bp, m->region[i].gpa, m->region[i].bytes);
}

/* PML4[0] -> PDPT[0] -> 512 pages of 2 MiB: the first GiB, enough until the kernel has its own. */
static int boot_write_page_tables(const struct gmem *m)
{
	uint64_t pd[512], next[512] = { 0 };
	int r;

	for (unsigned i = 0; i < 512; i++)
		pd[i] = (uint64_t)i << 21 | 0x83; /* present, writable, 2 MiB */
	next[0] = (LAYOUT_PAGE_TABLE + 0x1000) | 3;
	if ((r = gmem_write(m, LAYOUT_PAGE_TABLE, next, sizeof next)) < 0)
		return r;
	next[0] = (LAYOUT_PAGE_TABLE + 0x2000) | 3;
	if ((r = gmem_write(m, LAYOUT_PAGE_TABLE + 0x1000, next, sizeof next)) < 0)
		return r;
	return gmem_write(m, LAYOUT_PAGE_TABLE + 0x2000, pd, sizeof pd);
}

/* __BOOT_CS is selector 0x10, __BOOT_DS 0x18 (boot.rst 1.15): flat 64-bit code, flat data. */
static int boot_write_gdt(const struct gmem *m)
{
	const uint64_t gdt[4] = { 0, 0, UINT64_C(0x00af9b000000ffff), UINT64_C(0x00cf93000000ffff) };
	return gmem_write(m, LAYOUT_GDT, gdt, sizeof gdt);
}

int boot_load(const struct gmem *m, const struct ctl_image *img, const char *cmdline,
	      unsigned max_vcpus, struct boot_entry *out, struct err *e)
{
	AUTO_FREE struct boot_params *bp = mem_zalloc(sizeof *bp);
	size_t n = strlen(cmdline) + 1;
	uint64_t end = 0;
	int r;

	if (n > LAYOUT_CMDLINE_MAX)
		return err_set(e, -E2BIG, "kernel command line: %zu bytes, at most %d", n,
			       LAYOUT_CMDLINE_MAX);
	if ((r = boot_load_kernel(m, img, out, &end, e)) < 0 ||
	    (r = boot_load_initrd(m, img, end, bp, e)) < 0)
		return r;
	bp->hdr.type_of_loader = BOOT_LOADER_NONE;
	bp->hdr.boot_flag = BOOT_FLAG;
	bp->hdr.header = BOOT_HDRS;
	bp->hdr.version = BOOT_PROTOCOL;
	bp->hdr.cmd_line_ptr = LAYOUT_CMDLINE;
	bp->hdr.cmdline_size = (uint32_t)n;
	boot_fill_e820(m, bp);
	if ((r = gmem_write(m, LAYOUT_CMDLINE, cmdline, n)) < 0 ||
	    (r = gmem_write(m, LAYOUT_ZERO_PAGE, bp, sizeof *bp)) < 0 ||
	    (r = mptable_write(m, max_vcpus)) < 0 || (r = boot_write_page_tables(m)) < 0 ||
	    (r = boot_write_gdt(m)) < 0)
		return err_set(e, r, "boot structures: %s", strerror(-r));
	return 0;
}

int boot_set_registers(int vcpu_fd, const struct boot_entry *entry, struct err *e)
{
	struct kvm_segment code = { .limit = 0xffffffff, .selector = 0x10, .type = 0xb, .present = 1,
				    .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = 0xffffffff, .selector = 0x18, .type = 0x3, .present = 1,
				    .s = 1, .db = 1, .g = 1 };
	struct kvm_regs regs = { .rip = entry->rip, .rsi = LAYOUT_ZERO_PAGE, .rflags = 2,
				 .rsp = LAYOUT_ZERO_PAGE };
	struct kvm_sregs s;
	int r = kvm_ioctl(vcpu_fd, KVM_GET_SREGS, &s);

	if (r < 0)
		return err_set(e, r, "KVM_GET_SREGS: %s", strerror(-r));
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.gdt.base = LAYOUT_GDT;
	s.gdt.limit = 4 * 8 - 1;
	s.cr0 = 0x80000033; /* PG, NE, ET, MP, PE */
	s.cr3 = LAYOUT_PAGE_TABLE;
	s.cr4 = 0x20;  /* PAE */
	s.efer = 0x500; /* LME, LMA */
	if ((r = kvm_ioctl(vcpu_fd, KVM_SET_SREGS, &s)) < 0)
		return err_set(e, r, "KVM_SET_SREGS: %s", strerror(-r));
	if ((r = kvm_ioctl(vcpu_fd, KVM_SET_REGS, &regs)) < 0)
		return err_set(e, r, "KVM_SET_REGS: %s", strerror(-r));
	return 0;
}
