#include "vmm/snapshot/snap.h"

#include <cpuid.h>

static const char snap_magic[8] = { 'S', 'P', 'O', 'R', 'E', 'S', 'N', 'P' };

#define SNAP_OFF_LENGTH   16
#define SNAP_OFF_CRC      24
#define SNAP_OFF_SECTIONS 28
#define SNAP_OFF_SUMMED   32 /* the fingerprint */
#define SNAP_SECTION      16

/* CRC-32C (Castagnoli, reflected 0x82f63b78), as in RFC 3720 appendix B.4; four bits at a time. */
static uint32_t snap_crc_by_table(uint32_t crc, const uint8_t *p, size_t n)
{
	static const uint32_t nibble[16] = {
		0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
		0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
		0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
	};

	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		crc = crc >> 4 ^ nibble[crc & 15];
		crc = crc >> 4 ^ nibble[crc & 15];
	}
	return crc;
}

/* The same with the instruction for it, eight bytes at a time: a fortieth of the time, which is a
 * twentieth of a clone's. */
__attribute__((target("sse4.2"))) static uint32_t snap_crc_by_cpu(uint32_t crc, const uint8_t *p,
								  size_t n)
{
	uint64_t word, sum = crc;

	for (; n >= sizeof word; n -= sizeof word, p += sizeof word) {
		memcpy(&word, p, sizeof word);
		sum = __builtin_ia32_crc32di(sum, word);
	}
	return snap_crc_by_table((uint32_t)sum, p, n);
}

static bool snap_cpu_has_crc(void)
{
	unsigned eax, ebx, ecx, edx;

	__cpuid(1, eax, ebx, ecx, edx); /* once: it is a trap where the host is a guest itself */
	return ecx & bit_SSE4_2;
}

static uint32_t snap_crc32c(const uint8_t *p, size_t n)
{
	return ~(snap_cpu_has_crc() ? snap_crc_by_cpu : snap_crc_by_table)(~0u, p, n);
}

static void snap_patch32(struct buf *b, size_t at, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		b->data[at + i] = (uint8_t)(v >> (8 * i));
}

static void snap_patch64(struct buf *b, size_t at, uint64_t v)
{
	snap_patch32(b, at, (uint32_t)v);
	snap_patch32(b, at + 4, (uint32_t)(v >> 32));
}

void snap_begin(struct snap_writer *w, struct buf *out, const uint8_t fingerprint[SNAP_FINGERPRINT])
{
	ASSERT(out->len == 0);
	*w = (struct snap_writer){ .out = out };
	buf_add(out, snap_magic, sizeof snap_magic);
	buf_le32(out, SNAP_VERSION);
	buf_le32(out, SNAP_ARCH_X86_64);
	buf_le64(out, 0); /* length, CRC and count are patched by snap_finish() */
	buf_le32(out, 0);
	buf_le32(out, 0);
	buf_add(out, fingerprint, SNAP_FINGERPRINT);
}

void snap_open(struct snap_writer *w, enum snap_tag tag, uint32_t instance)
{
	w->open_at = w->out->len;
	buf_le32(w->out, tag);
	buf_le32(w->out, instance);
	buf_le64(w->out, 0);
	w->sections++;
}

void snap_close(struct snap_writer *w)
{
	size_t n = w->out->len - w->open_at - SNAP_SECTION;

	snap_patch64(w->out, w->open_at + 8, n);
	buf_add(w->out, "\0\0\0\0\0\0\0", ALIGN_UP(n, (size_t)8) - n);
}

void snap_finish(struct snap_writer *w)
{
	struct buf *b = w->out;

	snap_patch64(b, SNAP_OFF_LENGTH, b->len);
	snap_patch32(b, SNAP_OFF_SECTIONS, w->sections);
	snap_patch32(b, SNAP_OFF_CRC, snap_crc32c(b->data + SNAP_OFF_SUMMED, b->len - SNAP_OFF_SUMMED));
}

/* Walk the sections once so that snap_find() can trust the lengths. */
static int snap_check_sections(const struct snap *s, struct err *e)
{
	struct cur c = cur_of(s->body, (size_t)(s->end - s->body));
	uint64_t seen[SNAP_MAX_SECTIONS]; /* tag and instance */

	if (s->sections > SNAP_MAX_SECTIONS)
		return err_set(e, -EPROTO, "state file: %u sections", s->sections);
	for (uint32_t i = 0; i < s->sections; i++) {
		uint64_t n;
		seen[i] = cur_le64(&c);
		n = cur_le64(&c);
		if (c.bad || n > cur_left(&c) || !cur_bytes(&c, ALIGN_UP(n, UINT64_C(8))))
			return err_set(e, -EPROTO, "state file: section %u runs past the end", i);
		for (uint32_t j = 0; j < i; j++)
			if (seen[j] == seen[i])
				return err_set(e, -EPROTO, "state file: section %u is there twice", i);
	}
	if (cur_left(&c))
		return err_set(e, -EPROTO, "state file: bytes behind the last section");
	return 0;
}

int snap_parse(struct snap *s, const void *bytes, size_t n, const uint8_t *want, struct err *e)
{
	struct cur c = cur_of(bytes, n);
	const uint8_t *magic = cur_bytes(&c, sizeof snap_magic), *print;
	uint32_t version = cur_le32(&c), arch = cur_le32(&c), crc;
	uint64_t length = cur_le64(&c);

	crc = cur_le32(&c);
	s->sections = cur_le32(&c);
	print = cur_bytes(&c, SNAP_FINGERPRINT);
	if (!magic || memcmp(magic, snap_magic, sizeof snap_magic))
		return err_set(e, -EPROTO, "state file: not a spore snapshot");
	if (version != SNAP_VERSION)
		return err_set(e, -EPROTO, "state file: format %u, this spore reads %u", version,
			       SNAP_VERSION);
	if (arch != SNAP_ARCH_X86_64)
		return err_set(e, -EPROTO, "state file: made for another architecture (%u)", arch);
	if (!print || length != n || n > SNAP_MAX_BYTES)
		return err_set(e, -EPROTO, "state file: %zu bytes long, header says %llu: truncated?",
			       n, (unsigned long long)length);
	if (crc != snap_crc32c((const uint8_t *)bytes + SNAP_OFF_SUMMED, n - SNAP_OFF_SUMMED))
		return err_set(e, -EPROTO, "state file: checksum does not match: damaged");
	if (want && memcmp(print, want, SNAP_FINGERPRINT))
		return err_set(e, -ESTALE, "state file: made by another build, kernel or CPU");
	s->body = c.p;
	s->end = c.end;
	return snap_check_sections(s, e);
}

bool snap_find(const struct snap *s, enum snap_tag tag, uint32_t instance, struct cur *out)
{
	struct cur c = cur_of(s->body, (size_t)(s->end - s->body));

	for (uint32_t i = 0; i < s->sections; i++) {
		uint32_t t = cur_le32(&c), inst = cur_le32(&c);
		uint64_t n = cur_le64(&c);
		const uint8_t *p = cur_bytes(&c, ALIGN_UP(n, UINT64_C(8)));
		if (!p)
			return false;
		if (t == tag && inst == instance) {
			*out = cur_of(p, n);
			return true;
		}
	}
	return false;
}
