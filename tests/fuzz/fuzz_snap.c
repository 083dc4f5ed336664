/* fuzz_snap.c - state files: snapshot/snap.c, the parts of a vCPU's state in it, the CPUID table.
 *
 * Input: u8 flags (1 = make the length and the sum right, 2 = want a fingerprint, 4 = begin with a good
 * header whatever the bytes say), then the file. Whatever it holds: nothing is read outside it, what is
 * found lies inside, and a file without flaw reads the same the second time. */
#include "tests/fuzz/fuzz.h"

#include "amalgam/base/log.c"
#include "vmm/gmem.c"
#include "vmm/kvm.c"
#include "vmm/snapshot/snap.c"
#include "vmm/x86_64/cpuid.c"
#include "vmm/x86_64/state.c"

static void fsnap_header(uint8_t *p, size_t n)
{
	static const uint8_t start[16] = { 'S', 'P', 'O', 'R', 'E', 'S', 'N', 'P', SNAP_VERSION, 0, 0, 0,
					   SNAP_ARCH_X86_64 };
	memcpy(p, start, MIN(n, sizeof start));
}

static void fsnap_forge(uint8_t *p, size_t n)
{
	uint64_t length = n;
	uint32_t sum;

	if (n < SNAP_OFF_SUMMED)
		return;
	memcpy(p + SNAP_OFF_LENGTH, &length, sizeof length);
	sum = snap_crc32c(p + SNAP_OFF_SUMMED, n - SNAP_OFF_SUMMED);
	memcpy(p + SNAP_OFF_CRC, &sum, sizeof sum);
}

static void fsnap_inside(const struct cur *c, const uint8_t *p, size_t n)
{
	ASSERT(c->bad || (c->p >= p && c->p <= c->end && c->end <= p + n));
}

/* A section as a vCPU's state and as CPUID leaves, both of which its reader would try. */
static void fsnap_section(const struct cur *c, const uint8_t *p, size_t n)
{
	struct cpuid_table t, host = { 0 };
	struct err e;

	for (unsigned cls = 0; cls < 16; cls++) {
		struct cur part = vstate_part(*c, (enum vstate_class)cls);
		fsnap_inside(&part, p, n);
		ASSERT(part.bad || cur_left(&part) <= VSTATE_MAX_PART);
	}
	if (cpuid_restore(&t, *c, &e) == 0) {
		struct kvm k = { .has_deadline = true };
		ASSERT(t.n >= 1 && t.n <= CPUID_MAX);
		host = t;
		cpuid_for_guest(&t, &k, 1 + p[0] % 64);
		(void)!cpuid_check_subset(&t, &host, &e);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t flags = size ? data[0] : 0, *p;
	const uint8_t *want = flags & 2 ? (const uint8_t *)"a fingerprint of exactly 32 byte" : NULL;
	size_t n = size ? size - 1 : 0;
	struct snap s;
	struct err e;

	p = mem_zalloc(n); /* of its very size: one byte too far is seen */
	if (n)
		memcpy(p, data + 1, n);
	if (flags & 4)
		fsnap_header(p, n);
	if (flags & 1)
		fsnap_forge(p, n);
	if (snap_parse(&s, p, n, want, &e) == 0) {
		struct cur in = cur_of(s.body, (size_t)(s.end - s.body)), c;

		for (uint32_t i = 0; i < s.sections; i++) {
			uint32_t tag = cur_le32(&in), instance = cur_le32(&in);
			uint64_t len = cur_le64(&in);
			const uint8_t *at = cur_bytes(&in, ALIGN_UP(len, UINT64_C(8)));

			ASSERT(at && snap_find(&s, (enum snap_tag)tag, instance, &c));
			ASSERT(c.p == at && cur_left(&c) == len);
			fsnap_section(&c, p, n);
		}
		ASSERT(cur_left(&in) == 0);
		ASSERT(snap_parse(&s, p, n, NULL, NULL) == 0);
	} else {
		struct cur c = cur_of(p, n);
		fsnap_section(&c, p, n); /* as if a section were all of it */
	}
	free(p);
	return 0;
}
