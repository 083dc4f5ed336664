#include <sys/wait.h>

#include "tests/unit/test.h"
#include "tests/unit/vmm/msi_trap.h"
#include "vmm/ioapic.h"

/* Redirection entry bits, 82093AA section 3.2.4. */
#define TIOA_LOGICAL (1u << 11)
#define TIOA_LEVEL   (1u << 15)
#define TIOA_MASKED  (1u << 16)

static const struct kvm tioa_kvm = { .fd = -1, .vm_fd = -1 };

static void tioa_init(struct ioapic *a)
{
	msi_trap_install();
	ioapic_init(a, &tioa_kvm);
}

static void tioa_select(struct ioapic *a, uint32_t reg)
{
	ioapic_mmio(a, 0x00, (uint8_t *)&reg, 4, true);
}
static uint32_t tioa_get(struct ioapic *a, uint32_t reg)
{
	uint32_t v = 0xdeadbeef;
	tioa_select(a, reg);
	ioapic_mmio(a, 0x10, (uint8_t *)&v, 4, false);
	return v;
}
static void tioa_set(struct ioapic *a, uint32_t reg, uint32_t v)
{
	tioa_select(a, reg);
	ioapic_mmio(a, 0x10, (uint8_t *)&v, 4, true);
}
/* As Linux does it: destination first, then the half with the mask. */
static void tioa_program(struct ioapic *a, unsigned pin, uint8_t dest, uint32_t low)
{
	tioa_set(a, 0x11 + 2 * pin, (uint32_t)dest << 24);
	tioa_set(a, 0x10 + 2 * pin, low);
}

TEST(ioapic_starts_with_every_pin_masked)
{
	struct ioapic a;

	tioa_init(&a);
	for (unsigned pin = 0; pin < LAYOUT_PINS; pin++) {
		test_note("pin %u", pin);
		CHECK_EQ(tioa_get(&a, 0x10 + 2 * pin), TIOA_MASKED);
		CHECK_EQ(tioa_get(&a, 0x11 + 2 * pin), 0);
		ioapic_raise(&a, pin);
	}
	CHECK_EQ(msi_trap.n, 0);
}

TEST(ioapic_says_its_version_and_last_pin)
{
	struct ioapic a;

	tioa_init(&a);
	CHECK_EQ(tioa_get(&a, 1), 47 << 16 | 0x11);
	tioa_set(&a, 1, ~0u);
	CHECK_EQ(tioa_get(&a, 1), 47 << 16 | 0x11);
}

TEST(ioapic_id_has_four_bits_and_shows_as_arbitration_id_too)
{
	struct ioapic a;

	tioa_init(&a);
	CHECK_EQ(tioa_get(&a, 0), 0);
	tioa_set(&a, 0, ~0u);
	CHECK_EQ(tioa_get(&a, 0), 0x0f000000);
	CHECK_EQ(tioa_get(&a, 2), 0x0f000000);
	tioa_set(&a, 2, 0);
	CHECK_EQ(tioa_get(&a, 0), 0x0f000000);
}

TEST(ioapic_registers_that_do_not_exist_read_zero)
{
	struct ioapic a;
	unsigned last = 0x11 + 2 * (LAYOUT_PINS - 1);

	tioa_init(&a);
	for (unsigned reg = 3; reg < 256; reg++) {
		if (reg >= 0x10 && reg <= last)
			continue;
		test_note("register %#x", reg);
		tioa_set(&a, reg, ~0u);
		CHECK_EQ(tioa_get(&a, reg), 0);
	}
	for (unsigned pin = 0; pin < LAYOUT_PINS; pin++)
		CHECK_EQ(tioa_get(&a, 0x10 + 2 * pin), TIOA_MASKED);
}

TEST(ioapic_select_register_is_eight_bits_wide)
{
	struct ioapic a;
	uint32_t v = 0;

	tioa_init(&a);
	tioa_select(&a, 0xabcdef01);
	ioapic_mmio(&a, 0x00, (uint8_t *)&v, 4, false);
	CHECK_EQ(v, 1);
	CHECK_EQ(tioa_get(&a, 0x101), 47 << 16 | 0x11);
}

TEST(ioapic_entries_keep_their_writable_bits_only)
{
	struct ioapic a;

	tioa_init(&a);
	for (unsigned pin = 0; pin < LAYOUT_PINS; pin++) {
		test_note("pin %u", pin);
		tioa_set(&a, 0x10 + 2 * pin, ~0u);
		tioa_set(&a, 0x11 + 2 * pin, ~0u);
		/* not delivery status (12), not remote IRR (14), nothing reserved */
		CHECK_EQ(tioa_get(&a, 0x10 + 2 * pin), 0x1afff);
		CHECK_EQ(tioa_get(&a, 0x11 + 2 * pin), 0xff000000);
		tioa_set(&a, 0x11 + 2 * pin, 0);
		CHECK_EQ(tioa_get(&a, 0x10 + 2 * pin), 0x1afff); /* halves are apart */
	}
	CHECK_EQ(msi_trap.n, 0);
}

TEST(ioapic_turns_an_entry_into_a_message)
{
	/* SDM volume 3, 11.11: address 0xfee, destination 19:12, mode 2; data delivery 10:8, vector. */
	static const struct {
		uint8_t dest;
		uint32_t low, address, data;
	} row[] = {
		{ 0x00, 0x31, 0xfee00000, 0x31 },
		{ 0x03, 0x31, 0xfee03000, 0x31 },
		{ 0xff, 0xfe, 0xfeeff000, 0xfe },
		{ 0x01, TIOA_LOGICAL | 0x100 | 0x40, 0xfee01004, 0x140 }, /* lowest priority */
		{ 0x00, 0x400, 0xfee00000, 0x400 },                      /* NMI */
		{ 0x02, 0x700 | 0x20, 0xfee02000, 0x720 },               /* ExtINT */
		{ 0x02, TIOA_LEVEL | 0x55, 0xfee02000, 0x55 },           /* as edge */
		{ 0x02, 1u << 13 | 0x55, 0xfee02000, 0x55 },             /* polarity means nothing */
	};
	struct ioapic a;

	tioa_init(&a);
	for (unsigned i = 0; i < ARRAY_LEN(row); i++) {
		const struct kvm_msi *msi = &msi_trap.msi[0];
		test_note("row %u", i);
		msi_trap.n = 0;
		tioa_program(&a, i, row[i].dest, row[i].low);
		CHECK_EQ(msi_trap.n, 0);
		ioapic_raise(&a, i);
		CHECK_EQ(msi_trap.n, 1);
		CHECK_EQ(msi->address_lo, row[i].address);
		CHECK_EQ(msi->address_hi, 0);
		CHECK_EQ(msi->data, row[i].data);
		CHECK_EQ(msi->flags, 0);
	}
}

TEST(ioapic_remembers_one_interrupt_of_a_masked_pin)
{
	struct ioapic a;

	tioa_init(&a);
	tioa_program(&a, 20, 0, TIOA_MASKED | 0x44);
	ioapic_raise(&a, 20);
	ioapic_raise(&a, 20);
	CHECK_EQ(msi_trap.n, 0);
	tioa_set(&a, 0x11 + 40, 1u << 24); /* still masked */
	CHECK_EQ(msi_trap.n, 0);
	tioa_set(&a, 0x10 + 40, 0x45);
	CHECK_EQ(msi_trap.n, 1);
	CHECK_EQ(msi_trap.msi[0].data, 0x45); /* as it is programmed now */
	CHECK_EQ(msi_trap.msi[0].address_lo, 0xfee01000);
	tioa_set(&a, 0x10 + 40, TIOA_MASKED | 0x45);
	tioa_set(&a, 0x10 + 40, 0x45);
	CHECK_EQ(msi_trap.n, 1); /* delivered once */
	ioapic_raise(&a, 20);
	CHECK_EQ(msi_trap.n, 2);
}

TEST(ioapic_pins_do_not_disturb_each_other)
{
	struct ioapic a;

	tioa_init(&a);
	for (unsigned pin = 0; pin < LAYOUT_PINS; pin++)
		tioa_program(&a, pin, 0, 0x20 + pin);
	for (unsigned pin = 0; pin < LAYOUT_PINS; pin++) {
		msi_trap.n = 0;
		ioapic_raise(&a, pin);
		CHECK_EQ(msi_trap.n, 1);
		CHECK_EQ(msi_trap.msi[0].data, 0x20 + pin);
	}
}

TEST(ioapic_refuses_a_pin_it_does_not_have)
{
	struct ioapic a;
	int status;
	pid_t pid;

	tioa_init(&a);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		close(2);
		ioapic_raise(&a, LAYOUT_PINS);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

TEST(ioapic_takes_any_width_at_its_two_registers_and_nothing_elsewhere)
{
	static const uint8_t ones[8] = { 255, 255, 255, 255, 255, 255, 255, 255 };
	struct ioapic a;

	tioa_init(&a);
	for (uint32_t len = 1; len <= 8; len++) {
		uint8_t got[9];
		test_note("%u bytes", len);
		tioa_select(&a, 1);
		memset(got, 0xee, sizeof got);
		ioapic_mmio(&a, 0x10, got, len, false);
		CHECK_EQ(got[0], 0x11);
		for (uint32_t i = 1; i < len; i++)
			CHECK_EQ(got[i], i == 2 ? 47 : 0);
		for (uint32_t i = len; i < sizeof got; i++)
			CHECK_EQ(got[i], 0xee);
		for (uint32_t at = 1; at < 4096; at++) {
			if (at == 0x10)
				continue;
			ioapic_mmio(&a, at, (uint8_t[8]){ 9, 9, 9, 9, 9, 9, 9, 9 }, len, true);
			memcpy(got, ones, sizeof ones);
			ioapic_mmio(&a, at, got, len, false);
			for (uint32_t i = 0; i < len; i++)
				CHECK_EQ(got[i], 0);
		}
		CHECK_EQ(a.select, 1);
	}
}

static void tioa_fill(struct ioapic *a)
{
	tioa_set(a, 0, 0x05000000);
	for (unsigned pin = 0; pin < LAYOUT_PINS; pin++) {
		tioa_program(a, pin, (uint8_t)(pin * 3),
			     (pin % 3 ? 0 : TIOA_MASKED) | (pin % 5 ? 0 : TIOA_LOGICAL) | (0x30 + pin));
		if (pin % 3 == 0 && pin % 2)
			ioapic_raise(a, pin);
	}
	tioa_select(a, 0x17);
}

TEST(ioapic_state_survives_a_snapshot)
{
	AUTO_BUF struct buf out = { 0 }, again = { 0 };
	struct ioapic a, b;
	struct cur in;

	tioa_init(&a);
	tioa_fill(&a);
	ioapic_save(&a, &out);
	ioapic_init(&b, &tioa_kvm);
	in = cur_of(out.data, out.len);
	CHECK_EQ(ioapic_restore(&b, &in), 0);
	CHECK_EQ(cur_left(&in), 0);
	CHECK_EQ(b.select, 0x17);
	CHECK_EQ(b.id, 0x05000000);
	CHECK_MEM(b.redir, a.redir, sizeof a.redir);
	CHECK_MEM(b.pending, a.pending, sizeof a.pending);
	ioapic_save(&b, &again);
	CHECK_EQ(again.len, out.len);
	CHECK_MEM(again.data, out.data, out.len);
	/* an interrupt that waited before the snapshot arrives after it */
	CHECK_EQ(msi_trap.n, 0);
	tioa_set(&b, 0x10 + 6, 0x77);
	CHECK_EQ(msi_trap.n, 1);
	CHECK_EQ(msi_trap.msi[0].data, 0x77);
}

TEST(ioapic_refuses_a_state_cut_short_anywhere)
{
	AUTO_BUF struct buf out = { 0 };
	struct ioapic a;

	tioa_init(&a);
	tioa_fill(&a);
	ioapic_save(&a, &out);
	for (size_t n = 0; n < out.len; n++) {
		struct cur in = cur_of(test_guard(out.data, n), n);
		test_note("%zu of %zu bytes", n, out.len);
		CHECK_EQ(ioapic_restore(&a, &in), -EPROTO);
	}
}

TEST(ioapic_drops_bits_that_no_guest_could_have_set)
{
	AUTO_BUF struct buf out = { 0 };
	struct ioapic a;
	struct cur in;

	tioa_init(&a);
	ioapic_save(&a, &out);
	memset(out.data, 0xff, out.len);
	in = cur_of(out.data, out.len);
	CHECK_EQ(ioapic_restore(&a, &in), 0);
	CHECK_EQ(a.select, 0xff);
	CHECK_EQ(tioa_get(&a, 0), 0x0f000000);
	for (unsigned pin = 0; pin < LAYOUT_PINS; pin++) {
		CHECK_EQ(tioa_get(&a, 0x10 + 2 * pin), 0x1afff);
		CHECK_EQ(tioa_get(&a, 0x11 + 2 * pin), 0xff000000);
	}
}
