/* pack - turns a vmlinux into the image that spore embeds and the VMM unpacks into guest RAM.
 *
 *   musl-gcc -static -O2 -I$DEPS/include -o pack pack.c $DEPS/lib/liblz4.a
 *   ./pack vmlinux vmlinux.pack          (DEPS = the folder configs/build/deps.sh prints)
 *
 * The image, all numbers little-endian, offsets from its first byte:
 *
 *	offset  size  header
 *	0       8     magic "SPOREKRN"
 *	8       4     version, 1
 *	12      4     nseg
 *	16      8     entry_paddr
 *
 *	offset  size  segment, nseg times, right behind the header
 *	0       8     paddr       where in guest RAM
 *	8       8     memsz       bytes there
 *	16      8     filesz      of these, unpacked; the rest is zero
 *	24      8     packed_off
 *	32      8     packed_len  one raw LZ4 block; 0 when filesz is
 *
 * Segments are in ascending order of paddr and do not overlap.
 *
 * One PT_LOAD gives one segment, or several where it holds long filler: page table isolation puts
 * the entry code into 2 MiB of its own, so nearly 4 MiB of the text are int3 (0xcc) that nothing
 * calls. Filler is left out, so that it takes no RAM, and reads as zero in the guest. memsz counts
 * to where the next piece begins: what belongs to the kernel stays one range without holes.
 *
 * Source: ELF-64 Object File Format 1.5, sections 2 and 7; LZ4 block format. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <lz4hc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_SEGS    64
#define MAX_MEM     (64ull << 20) /* of one PT_LOAD: far above any kernel, far below LZ4's limit */
#define PAGE        4096ull
#define FILLER_RUN  (16 * PAGE) /* a shorter run is cheaper packed than as a segment of its own */
#define HEADER_SIZE 24
#define SEG_SIZE    40

struct seg {
	uint64_t paddr, memsz, filesz;
	const uint8_t *data;
	char *packed;
	uint64_t packed_len;
};

struct image {
	struct seg seg[MAX_SEGS];
	uint32_t nseg;
	uint64_t entry;
};

static const char *subject; /* the file an error message is about */

static void __attribute__((noreturn, format(printf, 1, 2))) die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "pack: %s: ", subject);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static const uint8_t *map_file(size_t *len)
{
	struct stat st;
	void *p;
	int fd = open(subject, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0)
		die("%s", strerror(errno));
	if (!S_ISREG(st.st_mode) || st.st_size <= 0)
		die("not a file with content");
	*len = (size_t)st.st_size;
	p = mmap(NULL, *len, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	close(fd);
	return p;
}

/* Offset of the first page of a run of filler in [from, len), or len. */
static uint64_t find_filler(const uint8_t *p, uint64_t from, uint64_t len)
{
	uint64_t at;

	for (at = (from + PAGE - 1) & ~(PAGE - 1); at + FILLER_RUN <= len; at += PAGE)
		if ((p[at] == 0 || p[at] == 0xcc) && !memcmp(p + at, p + at + 1, FILLER_RUN - 1))
			return at;
	return len;
}

/* Offset of the page where the filler that begins at from ends, or len. */
static uint64_t skip_filler(const uint8_t *p, uint64_t from, uint64_t len)
{
	uint64_t at = from;

	while (at < len && p[at] == p[from])
		at++;
	return at < len ? at & ~(PAGE - 1) : len;
}

static void add_seg(struct image *im, uint64_t paddr, const uint8_t *data, uint64_t filesz,
		    uint64_t memsz)
{
	if (im->nseg == MAX_SEGS)
		die("more than %d segments", MAX_SEGS);
	im->seg[im->nseg++] =
		(struct seg){ .paddr = paddr, .memsz = memsz, .filesz = filesz, .data = data };
}

/* Cut one PT_LOAD at its filler. Offsets are cut at pages of the file image, and a PT_LOAD begins
 * at a page, so every piece but the first begins at a page, too. */
static void add_load(struct image *im, const Elf64_Phdr *ph, const uint8_t *data)
{
	uint64_t at = 0;

	do {
		uint64_t end = find_filler(data, at, ph->p_filesz);
		uint64_t next = skip_filler(data, end, ph->p_filesz);

		if (next == ph->p_filesz)
			next = ph->p_memsz; /* nothing follows in the file: .bss */
		add_seg(im, ph->p_paddr + at, data + at, end - at, next - at);
		at = next;
	} while (at < ph->p_filesz);
}

static void check_ehdr(const Elf64_Ehdr *eh, size_t len)
{
	if (len < sizeof *eh || memcmp(eh->e_ident, ELFMAG, SELFMAG))
		die("not an ELF file");
	if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB)
		die("not a 64-bit little-endian ELF file");
	if (eh->e_type != ET_EXEC)
		die("not an executable (a relocatable kernel? CONFIG_RELOCATABLE must be off)");
	if (eh->e_machine != EM_X86_64 && eh->e_machine != EM_AARCH64)
		die("machine %u is neither x86-64 nor aarch64", eh->e_machine);
	if (eh->e_phentsize != sizeof(Elf64_Phdr) || !eh->e_phnum || eh->e_phnum >= PN_XNUM)
		die("no usable program headers");
	if (eh->e_phoff % _Alignof(Elf64_Phdr) || eh->e_phoff > len ||
	    (len - eh->e_phoff) / sizeof(Elf64_Phdr) < eh->e_phnum)
		die("program headers are not inside the file");
}

static void check_phdr(const Elf64_Phdr *ph, unsigned n, size_t len, uint64_t end_of_last)
{
	if (ph->p_offset > len || len - ph->p_offset < ph->p_filesz)
		die("segment %u is not inside the file", n);
	if (ph->p_filesz > ph->p_memsz)
		die("segment %u is larger in the file than in memory", n);
	if (ph->p_memsz > MAX_MEM)
		die("segment %u has %llu bytes of memory", n, (unsigned long long)ph->p_memsz);
	if (ph->p_paddr % PAGE || ph->p_paddr > UINT64_MAX - MAX_MEM)
		die("segment %u has the odd address %#llx", n, (unsigned long long)ph->p_paddr);
	if (ph->p_paddr < end_of_last)
		die("segment %u is out of order or overlaps the one before", n);
}

static void read_elf(struct image *im)
{
	size_t len;
	const uint8_t *file = map_file(&len);
	const Elf64_Ehdr *eh = (const void *)file;
	const Elf64_Phdr *ph;
	uint64_t end = 0;
	int entry_ok = 0;

	check_ehdr(eh, len);
	ph = (const void *)(file + eh->e_phoff);
	for (unsigned i = 0; i < eh->e_phnum; i++) {
		if (ph[i].p_type != PT_LOAD || !ph[i].p_memsz)
			continue;
		check_phdr(&ph[i], i, len, end);
		end = ph[i].p_paddr + ph[i].p_memsz;
		entry_ok |= eh->e_entry >= ph[i].p_paddr &&
			    eh->e_entry - ph[i].p_paddr < ph[i].p_filesz && (ph[i].p_flags & PF_X);
		add_load(im, &ph[i], file + ph[i].p_offset);
	}
	/* Linux on x86-64 puts the physical address there; a virtual one would fail this check. */
	if (!entry_ok)
		die("entry %#llx is not in an executable segment", (unsigned long long)eh->e_entry);
	im->entry = eh->e_entry;
}

static void compress(struct seg *s)
{
	int bound = LZ4_compressBound((int)s->filesz), n;
	char *back;

	if (!s->filesz)
		return;
	s->packed = malloc((size_t)bound);
	back = malloc(s->filesz);
	if (!s->packed || !back)
		die("out of memory");
	n = LZ4_compress_HC((const char *)s->data, s->packed, (int)s->filesz, bound,
			    LZ4HC_CLEVEL_MAX);
	if (n <= 0 || LZ4_decompress_safe(s->packed, back, n, (int)s->filesz) != (int)s->filesz ||
	    memcmp(back, s->data, s->filesz))
		die("LZ4 cannot give back what it packed");
	s->packed_len = (uint64_t)n;
	free(back);
}

static uint8_t *put(uint8_t *p, uint64_t v, int bytes)
{
	while (bytes--) {
		*p++ = (uint8_t)v;
		v >>= 8;
	}
	return p;
}

static void write_image(const struct image *im, FILE *f)
{
	uint8_t head[HEADER_SIZE + MAX_SEGS * SEG_SIZE], *p = head;
	uint64_t off = HEADER_SIZE + (uint64_t)im->nseg * SEG_SIZE;

	memcpy(p, "SPOREKRN", 8);
	p = put(p + 8, 1, 4);
	p = put(p, im->nseg, 4);
	p = put(p, im->entry, 8);
	for (uint32_t i = 0; i < im->nseg; i++) {
		const struct seg *s = &im->seg[i];

		p = put(p, s->paddr, 8);
		p = put(p, s->memsz, 8);
		p = put(p, s->filesz, 8);
		p = put(p, off, 8);
		p = put(p, s->packed_len, 8);
		off += s->packed_len;
	}
	fwrite(head, 1, (size_t)(p - head), f);
	for (uint32_t i = 0; i < im->nseg; i++)
		fwrite(im->seg[i].packed, 1, im->seg[i].packed_len, f);
}

int main(int argc, char **argv)
{
	static struct image im;
	FILE *f;

	if (argc != 3) {
		fputs("usage: pack VMLINUX IMAGE\n", stderr);
		return 2;
	}
	subject = argv[1];
	read_elf(&im);
	for (uint32_t i = 0; i < im.nseg; i++)
		compress(&im.seg[i]);

	subject = argv[2];
	f = fopen(subject, "wb");
	if (!f)
		die("%s", strerror(errno));
	write_image(&im, f);
	/* What a failure leaves behind is short, and its reader checks every offset against the
	 * size. */
	if (fflush(f) || ferror(f) || fclose(f))
		die("%s", strerror(errno));
	return 0;
}
