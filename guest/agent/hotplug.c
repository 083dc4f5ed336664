#include "guest/agent/hotplug.h"

#include <dirent.h>
#include <fcntl.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/str.h"
#include "guest/agent/agent.h"
#include "guest/agent/rpc.h"

#define GA_HOTPLUG_CPUS   "/sys/devices/system/cpu"
#define GA_HOTPLUG_MEMORY "/sys/devices/system/memory"
#define GA_HOTPLUG_MAX    4096

/* ---- CPUs */

static unsigned ga_hotplug_online_count(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 0 ? (unsigned)n : 1;
}

/* true when CPU k is online afterwards. cpu0 has no file where it cannot go offline. */
static bool ga_hotplug_cpu(unsigned k)
{
	char path[sizeof GA_HOTPLUG_CPUS + 32];
	AUTO_BUF struct buf b = { 0 };

	snprintf(path, sizeof path, GA_HOTPLUG_CPUS "/cpu%u", k);
	if (access(path, F_OK) < 0)
		return false;
	snprintf(path, sizeof path, GA_HOTPLUG_CPUS "/cpu%u/online", k);
	if (path_read(path, 16, &b, NULL) < 0 || (b.len && b.data[0] == '1'))
		return true;
	return path_put(path, "1") == 0;
}

int ga_hotplug_cpus(unsigned total, struct err *e)
{
	unsigned k = 0;

	while (k < total && k < GA_HOTPLUG_MAX && ga_hotplug_cpu(k))
		k++;
	if (k < total)
		return err_set(e, -ENODEV, "cpu %u of %u cannot be brought online", k, total);
	return 0;
}

/* Up to n that are offline; how many it became. */
static unsigned ga_hotplug_more_cpus(unsigned n)
{
	unsigned before = ga_hotplug_online_count();

	for (unsigned k = 1; k < GA_HOTPLUG_MAX && ga_hotplug_online_count() - before < n; k++)
		(void)ga_hotplug_cpu(k);
	return ga_hotplug_online_count() - before;
}

/* ---- Memory */

/* With MEMORY_HOTPLUG_DEFAULT_ONLINE there is nothing left to do here. */
static void ga_hotplug_memory(void)
{
	DIR *d = opendir(GA_HOTPLUG_MEMORY);
	struct dirent *ent;

	while (d && (ent = readdir(d))) {
		AUTO_FREE char *path = NULL;
		AUTO_BUF struct buf b = { 0 };
		if (!str_starts(ent->d_name, "memory"))
			continue;
		path = mem_printf(GA_HOTPLUG_MEMORY "/%s/state", ent->d_name);
		if (path_read(path, 64, &b, NULL) == 0 && str_starts(buf_cstr(&b), "offline"))
			(void)!path_put(path, "online");
	}
	if (d)
		closedir(d);
}

uint64_t ga_hotplug_block_size(void)
{
	AUTO_BUF struct buf b = { 0 };

	if (path_read(GA_HOTPLUG_MEMORY "/block_size_bytes", 64, &b, NULL) < 0)
		return 0;
	return strtoull(buf_cstr(&b), NULL, 16);
}

bool ga_hotplug_has_probe(void)
{
	return access(GA_HOTPLUG_MEMORY "/probe", W_OK) == 0;
}

int ga_hotplug_probe(const uint64_t *addresses, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		char text[32];
		int r;
		snprintf(text, sizeof text, "%#llx", (unsigned long long)addresses[i]);
		r = path_put(GA_HOTPLUG_MEMORY "/probe", text);
		if (r < 0)
			return err_set(e, r, "probe memory at %s: %s", text, strerror(-r));
	}
	return 0;
}

/* ---- OnlineCPUMem */

struct ga_hotplug_call {
	struct ga_wait wait;
	struct ttrpc_call *call;
	unsigned missing;
};

static bool ga_hotplug_try(struct ga_wait *w)
{
	struct ga_hotplug_call *h = container_of(w, struct ga_hotplug_call, wait);

	h->missing -= ga_hotplug_more_cpus(h->missing);
	return h->missing == 0;
}

static void ga_hotplug_tried(struct ga_wait *w, bool in_time)
{
	struct ga_hotplug_call *h = container_of(w, struct ga_hotplug_call, wait);
	struct ttrpc_call *call = h->call;
	unsigned missing = h->missing;

	free(h);
	if (in_time)
		ga_rpc_reply_empty(call);
	else
		ttrpc_fail(call, TTRPC_INTERNAL, "%u CPUs did not come online", missing);
}

void ga_hotplug_online(struct ga_agent *a, struct ttrpc_call *call,
		       const Grpc__OnlineCPUMemRequest *req)
{
	struct ga_hotplug_call *h;

	if (!req->cpu_only)
		ga_hotplug_memory();
	if (req->nb_cpus > GA_HOTPLUG_MAX) {
		ttrpc_fail(call, TTRPC_INVALID_ARGUMENT, "%u CPUs", req->nb_cpus);
		return;
	}
	if (!req->wait) {
		(void)ga_hotplug_more_cpus(req->nb_cpus);
		ga_rpc_reply_empty(call);
		return;
	}
	h = mem_zalloc(sizeof *h);
	h->call = call;
	h->missing = req->nb_cpus;
	ga_wait_start(&a->loop, &h->wait, a->config.hotplug_timeout_ms, ga_hotplug_try,
		      ga_hotplug_tried);
}
