#include "guest/agent/slot.h"

#include <dirent.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"

#define GA_SLOT_DRIVER  "/sys/bus/platform/drivers/virtio-mmio"
#define GA_SLOT_DEVICES "/sys/bus/platform/devices"

int ga_slot_parse(const char *name)
{
	static const char *const prefixes[] = { "slot:", "virtio-mmio." };
	uint64_t k;

	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
		if (str_starts(name, prefixes[i]) &&
		    str_u64(name + strlen(prefixes[i]), 0, GA_SLOT_MAX, &k) == 0)
			return (int)k;
	return -1;
}

int ga_slot_bind(unsigned slot, bool *was_bound, struct err *e)
{
	char bound[sizeof GA_SLOT_DRIVER + 32], name[32];
	int r;

	snprintf(name, sizeof name, "virtio-mmio.%u", slot);
	snprintf(bound, sizeof bound, GA_SLOT_DRIVER "/%s", name);
	*was_bound = access(bound, F_OK) == 0;
	if (*was_bound)
		return 0;
	r = path_put(GA_SLOT_DRIVER "/bind", name);
	if (r < 0)
		return err_set(e, r, "bind slot %u: %s", slot,
			       r == -ENODEV ? "it is empty or does not exist" : strerror(-r));
	return 0;
}

void ga_slot_unbind(unsigned slot)
{
	char name[32];

	snprintf(name, sizeof name, "virtio-mmio.%u", slot);
	(void)!path_put(GA_SLOT_DRIVER "/unbind", name);
}

/* First entry of a directory that is not hidden and starts with prefix. */
static bool ga_slot_first(const char *dir, const char *prefix, char *name, size_t size)
{
	DIR *d = opendir(dir);
	struct dirent *ent;
	bool found = false;

	while (d && !found && (ent = readdir(d))) {
		if (ent->d_name[0] == '.' || !str_starts(ent->d_name, prefix))
			continue;
		found = (size_t)snprintf(name, size, "%s", ent->d_name) < size;
	}
	if (d)
		closedir(d);
	return found;
}

/* A drive without a disk in it has size 0, and has it until the kernel has heard of the disk. */
static bool ga_slot_has_disk(const char *below, const char *name)
{
	AUTO_FREE char *path = mem_printf("%s/%s/size", below, name);
	AUTO_BUF struct buf b = { 0 };

	return path_read(path, 64, &b, NULL) == 0 && b.len && b.data[0] != '0';
}

/* A disk is right below the virtio device; persistent memory has its own bus in between:
 * ndbus0/region0/namespace0.0/block/pmem0. */
static char *ga_slot_below_bus(char *dir)
{
	static const char *const levels[] = { "ndbus", "region", "namespace" };

	for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
		char name[32], *sub;
		if (!ga_slot_first(dir, levels[i], name, sizeof name))
			break;
		sub = mem_printf("%s/%s", dir, name);
		free(dir);
		dir = sub;
	}
	return dir;
}

int ga_slot_device(unsigned slot, const char *class, char *name, size_t size)
{
	AUTO_FREE char *dir = mem_printf(GA_SLOT_DEVICES "/virtio-mmio.%u", slot);
	AUTO_FREE char *device = NULL, *below = NULL;
	char virtio[32];

	if (!ga_slot_first(dir, "virtio", virtio, sizeof virtio))
		return -EAGAIN;
	device = ga_slot_below_bus(mem_printf("%s/%s", dir, virtio));
	below = mem_printf("%s/%s", device, class);
	if (!ga_slot_first(below, "", name, size))
		return -EAGAIN;
	return strcmp(class, "block") || ga_slot_has_disk(below, name) ? 0 : -EAGAIN;
}
