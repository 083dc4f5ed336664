#include "tests/unit/test.h"
#include "vmm/snapshot/snap.h"

#define TSNAP_HEADER 64

static const uint8_t tsnap_print[SNAP_FINGERPRINT] = "this build, this kernel, this CP";

/* Three sections: 5 bytes, none, 16 bytes. */
static void tsnap_make(struct buf *b)
{
	struct snap_writer w;

	snap_begin(&w, b, tsnap_print);
	snap_open(&w, SNAP_VCPU, 0);
	buf_add(b, "hello", 5);
	snap_close(&w);
	snap_open(&w, SNAP_CLOCK, 0);
	snap_close(&w);
	snap_open(&w, SNAP_VCPU, 7);
	buf_le64(b, 1);
	buf_le64(b, 2);
	snap_close(&w);
	snap_finish(&w);
}

static void tsnap_put32(struct buf *b, size_t at, uint32_t v)
{
	for (unsigned i = 0; i < 4; i++)
		b->data[at + i] = (uint8_t)(v >> (8 * i));
}

/* Make the sum right again after a change: what a forger would do. */
static void tsnap_sum(struct buf *b)
{
	tsnap_put32(b, 24, snap_crc32c(b->data + 32, b->len - 32));
}

static int tsnap_parse(const struct buf *b, struct snap *s, struct err *e)
{
	*e = (struct err){ 0 };
	return snap_parse(s, test_guard(b->data, b->len), b->len, tsnap_print, e);
}

/* Parsing b gives this refusal. */
static void tsnap_refused(const struct buf *b, int code, const char *words)
{
	struct snap s;
	struct err e;

	CHECK_EQ(tsnap_parse(b, &s, &e), code);
	CHECK_STR(e.msg, words);
}

TEST(snap_sums_with_the_castagnoli_polynomial)
{
	uint8_t p[32];

	/* RFC 3720 B.4: CRC bytes on the wire, least significant first. */
	memset(p, 0, sizeof p);
	CHECK_EQ(snap_crc32c(p, 32), 0x8a9136aa);
	memset(p, 0xff, sizeof p);
	CHECK_EQ(snap_crc32c(p, 32), 0x62a8ab43);
	for (unsigned i = 0; i < 32; i++)
		p[i] = (uint8_t)i;
	CHECK_EQ(snap_crc32c(p, 32), 0x46dd794e);
	for (unsigned i = 0; i < 32; i++)
		p[i] = (uint8_t)(31 - i);
	CHECK_EQ(snap_crc32c(p, 32), 0x113fdb5c);
	CHECK_EQ(snap_crc32c((const uint8_t *)"123456789", 9), 0xe3069283);
	CHECK_EQ(snap_crc32c(p, 0), 0);
}

TEST(snap_sums_alike_with_and_without_the_instruction)
{
	uint8_t p[4 + 70];

	if (!snap_cpu_has_crc())
		return;
	for (unsigned i = 0; i < sizeof p; i++)
		p[i] = (uint8_t)(i * 37 + 11);
	for (unsigned at = 0; at < 4; at++)
		for (size_t n = 0; n <= 70; n++) {
			const uint8_t *q = test_guard(p + at, n);
			test_note("%zu bytes from %u on", n, at);
			CHECK_EQ(snap_crc_by_cpu(~0u, q, n), snap_crc_by_table(~0u, q, n));
		}
}

TEST(snap_has_the_layout_its_header_describes)
{
	AUTO_BUF struct buf b = { 0 };
	struct cur c;

	tsnap_make(&b);
	CHECK_EQ(b.len, TSNAP_HEADER + 3 * 16 + 8 + 0 + 16);
	c = cur_of(b.data, b.len);
	CHECK_MEM(cur_bytes(&c, 8), "SPORESNP", 8);
	CHECK_EQ(cur_le32(&c), SNAP_VERSION);
	CHECK_EQ(cur_le32(&c), 62); /* EM_X86_64 */
	CHECK_EQ(cur_le64(&c), b.len);
	CHECK_EQ(cur_le32(&c), snap_crc32c(b.data + 32, b.len - 32));
	CHECK_EQ(cur_le32(&c), 3);
	CHECK_MEM(cur_bytes(&c, 32), tsnap_print, 32);
	CHECK_EQ(cur_le32(&c), SNAP_VCPU);
	CHECK_EQ(cur_le32(&c), 0);
	CHECK_EQ(cur_le64(&c), 5);
	CHECK_MEM(cur_bytes(&c, 8), "hello\0\0\0", 8);
	CHECK_EQ(cur_le32(&c), SNAP_CLOCK);
	CHECK_EQ(cur_le32(&c), 0);
	CHECK_EQ(cur_le64(&c), 0);
	CHECK_EQ(cur_le32(&c), SNAP_VCPU);
	CHECK_EQ(cur_le32(&c), 7);
	CHECK_EQ(cur_le64(&c), 16);
	CHECK_EQ(cur_left(&c), 16);
}

TEST(snap_finds_what_was_written)
{
	AUTO_BUF struct buf b = { 0 };
	struct snap s;
	struct err e;
	struct cur in;

	tsnap_make(&b);
	CHECK_EQ(tsnap_parse(&b, &s, &e), 0);
	CHECK(snap_find(&s, SNAP_VCPU, 0, &in));
	CHECK_EQ(cur_left(&in), 5);
	CHECK_MEM(in.p, "hello", 5);
	CHECK(snap_find(&s, SNAP_CLOCK, 0, &in));
	CHECK_EQ(cur_left(&in), 0);
	CHECK(!in.bad);
	CHECK(snap_find(&s, SNAP_VCPU, 7, &in));
	CHECK_EQ(cur_le64(&in), 1);
	CHECK_EQ(cur_le64(&in), 2);
	CHECK_EQ(cur_left(&in), 0);
	CHECK(!snap_find(&s, SNAP_VCPU, 1, &in));
	CHECK(!snap_find(&s, SNAP_CLOCK, 7, &in));
	CHECK(!snap_find(&s, SNAP_SLOT, 0, &in));
}

TEST(snap_without_sections_is_a_snapshot_too)
{
	AUTO_BUF struct buf b = { 0 };
	struct snap_writer w;
	struct snap s;
	struct err e;
	struct cur in;

	snap_begin(&w, &b, tsnap_print);
	snap_finish(&w);
	CHECK_EQ(b.len, TSNAP_HEADER);
	CHECK_EQ(tsnap_parse(&b, &s, &e), 0);
	CHECK(!snap_find(&s, SNAP_MACHINE, 0, &in));
}

TEST(snap_any_fingerprint_will_do_when_none_is_wanted)
{
	AUTO_BUF struct buf b = { 0 };
	struct snap s;
	struct err e = { 0 };

	tsnap_make(&b);
	b.data[40] ^= 1;
	tsnap_sum(&b);
	CHECK_EQ(snap_parse(&s, b.data, b.len, NULL, &e), 0);
}

TEST(snap_refuses_each_header_field_with_its_own_words)
{
	static const struct {
		size_t at;
		uint32_t value;
		int code;
		const char *words;
	} row[] = {
		{ 0, 0x464c457f, -EPROTO, "state file: not a spore snapshot" },
		{ 4, 0x504e5300, -EPROTO, "state file: not a spore snapshot" },
		{ 12, 183, -EPROTO, "state file: made for another architecture (183)" },
		{ 16, 137, -EPROTO,
		  "state file: 136 bytes long, header says 137: truncated?" },
		{ 16, 135, -EPROTO,
		  "state file: 136 bytes long, header says 135: truncated?" },
		{ 20, 1, -EPROTO,
		  "state file: 136 bytes long, header says 4294967432: truncated?" },
		{ 24, 0, -EPROTO, "state file: checksum does not match: damaged" },
		{ 28, 2, -EPROTO, "state file: bytes behind the last section" },
		{ 28, 0, -EPROTO, "state file: bytes behind the last section" },
		{ 28, 4, -EPROTO, "state file: section 3 runs past the end" },
		{ 28, 128, -EPROTO, "state file: section 3 runs past the end" },
		{ 28, 129, -EPROTO, "state file: 129 sections" },
		{ 28, ~0u, -EPROTO, "state file: 4294967295 sections" },
	};

	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		AUTO_BUF struct buf b = { 0 };
		test_note("row %u", i);
		tsnap_make(&b);
		tsnap_put32(&b, row[i].at, row[i].value);
		tsnap_refused(&b, row[i].code, row[i].words);
	}
}

static const char *tsnap_format(uint32_t version)
{
	static char words[64];

	snprintf(words, sizeof words, "state file: format %u, this spore reads %u", version,
		 SNAP_VERSION);
	return words;
}

TEST(snap_refuses_every_other_version)
{
	static const uint32_t version[] = { 0, SNAP_VERSION - 1, SNAP_VERSION + 1, 0x01000000, ~0u };

	for (unsigned i = 0; i < ARRAY_LEN(version); i++) {
		AUTO_BUF struct buf b = { 0 };
		tsnap_make(&b);
		tsnap_put32(&b, 8, version[i]);
		tsnap_refused(&b, -EPROTO, tsnap_format(version[i]));
	}
}

TEST(snap_refuses_a_foreign_fingerprint)
{
	for (unsigned i = 0; i < SNAP_FINGERPRINT; i++) {
		AUTO_BUF struct buf b = { 0 };
		test_note("byte %u", i);
		tsnap_make(&b);
		b.data[32 + i] ^= 0x40;
		tsnap_sum(&b);
		tsnap_refused(&b, -ESTALE, "state file: made by another build, kernel or CPU");
	}
}

TEST(snap_refuses_a_file_cut_short_anywhere)
{
	AUTO_BUF struct buf b = { 0 };
	size_t whole;

	tsnap_make(&b);
	whole = b.len;
	for (b.len = 0; b.len < whole; b.len++) {
		char words[100];
		test_note("%zu bytes", b.len);
		snprintf(words, sizeof words, "state file: %zu bytes long, header says %u: truncated?",
			 b.len, b.len < 20 ? 0 : 136);
		tsnap_refused(&b, -EPROTO,
			      b.len < 8	 ? "state file: not a spore snapshot" :
			      b.len < 12 ? tsnap_format(0) :
			      b.len < 16 ? "state file: made for another architecture (0)" :
					   words);
	}
}

/* The same with a header that agrees: what is missing is inside. */
TEST(snap_refuses_sections_cut_short_anywhere)
{
	AUTO_BUF struct buf b = { 0 };
	size_t whole;

	tsnap_make(&b);
	whole = b.len;
	for (b.len = TSNAP_HEADER; b.len < whole; b.len++) {
		char words[100];
		test_note("%zu bytes", b.len);
		tsnap_put32(&b, 16, (uint32_t)b.len);
		tsnap_sum(&b);
		snprintf(words, sizeof words, "state file: section %d runs past the end",
			 b.len < 88 ? 0 : b.len < 104 ? 1 : 2);
		tsnap_refused(&b, -EPROTO, words);
	}
}

TEST(snap_refuses_a_section_that_is_longer_than_the_file)
{
	static const uint64_t length[] = { 9, 16, 73, 80, 136, UINT64_C(1) << 32, INT64_MAX,
					   UINT64_MAX - 7, UINT64_MAX - 6, UINT64_MAX };

	for (unsigned i = 0; i < ARRAY_LEN(length); i++) {
		AUTO_BUF struct buf b = { 0 };
		struct snap s;
		struct err e;

		test_note("length %#llx", (unsigned long long)length[i]);
		tsnap_make(&b);
		tsnap_put32(&b, 72, (uint32_t)length[i]);
		tsnap_put32(&b, 76, (uint32_t)(length[i] >> 32));
		tsnap_sum(&b);
		CHECK_EQ(tsnap_parse(&b, &s, &e), -EPROTO);
		CHECK_HAS(e.msg, length[i] > 56 ? "state file: section 0 runs past the end" :
						  "runs past the end");
	}
}

TEST(snap_refuses_bytes_behind_the_last_section)
{
	for (unsigned n = 1; n <= 24; n++) {
		AUTO_BUF struct buf b = { 0 };
		test_note("%u bytes", n);
		tsnap_make(&b);
		buf_add(&b, (uint8_t[24]){ 0 }, n);
		tsnap_put32(&b, 16, (uint32_t)b.len);
		tsnap_sum(&b);
		tsnap_refused(&b, -EPROTO, "state file: bytes behind the last section");
	}
}

TEST(snap_refuses_a_file_that_is_too_large)
{
	AUTO_BUF struct buf b = { 0 };
	struct snap s;
	struct err e;

	tsnap_make(&b);
	memset(buf_reserve(&b, SNAP_MAX_BYTES), 0, SNAP_MAX_BYTES);
	b.len = SNAP_MAX_BYTES + 8;
	tsnap_put32(&b, 16, (uint32_t)b.len);
	CHECK_EQ(tsnap_parse(&b, &s, &e), -EPROTO);
	CHECK_HAS(e.msg, "state file: 16777224 bytes long, ");
	b.len = SNAP_MAX_BYTES;
	tsnap_put32(&b, 16, (uint32_t)b.len);
	CHECK_EQ(tsnap_parse(&b, &s, &e), -EPROTO); /* the next reason is its sum */
	CHECK_STR(e.msg, "state file: checksum does not match: damaged");
}

TEST(snap_no_flipped_bit_goes_unnoticed)
{
	AUTO_BUF struct buf b = { 0 };

	tsnap_make(&b);
	for (unsigned bit = 0; bit < b.len * 8; bit++) {
		struct snap s;
		struct err e;

		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		test_note("bit %u of byte %u", bit % 8, bit / 8);
		/* The number of sections is outside the sum, but must agree with them. */
		CHECK_EQ(tsnap_parse(&b, &s, &e), -EPROTO);
		CHECK_HAS(e.msg, "state file: ");
		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

TEST(snap_a_forged_file_is_read_within_its_bounds)
{
	AUTO_BUF struct buf b = { 0 };

	tsnap_make(&b);
	for (unsigned bit = 32 * 8; bit < b.len * 8; bit++) {
		struct snap s;
		struct err e = { 0 };
		struct cur in;

		test_note("bit %u of byte %u", bit % 8, bit / 8);
		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		tsnap_sum(&b);
		if (snap_parse(&s, test_guard(b.data, b.len), b.len, NULL, &e) == 0)
			for (unsigned tag = 0; tag < 8; tag++)
				for (unsigned i = 0; i < 8; i += 7)
					if (snap_find(&s, tag, i, &in))
						CHECK(in.end <= s.end && in.p >= s.body);
		b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
}

TEST(snap_refuses_the_same_section_twice)
{
	AUTO_BUF struct buf b = { 0 };

	tsnap_make(&b);
	tsnap_put32(&b, 92, 0); /* the second VCPU section becomes instance 0 as well */
	tsnap_put32(&b, 108, 0);
	tsnap_sum(&b);
	tsnap_refused(&b, -EPROTO, "state file: section 2 is there twice");
}
