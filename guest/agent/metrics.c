#include "guest/agent/metrics.h"

#include <ctype.h>
#include <inttypes.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "guest/agent/agent.h"
#include "guest/agent/container.h"
#include "guest/agent/net.h"

#define GA_METRICS_MAX_FILE (256u << 10)
#define GA_METRICS_MAX_LOG  4096 /* as much of a termination log as Kubernetes shows */

static void ga_metrics_head(struct buf *out, const char *metric, const char *help)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s gauge\n", metric, help, metric);
}

/* An item name: what Prometheus and people expect, lower case letters, digits, underscores. */
static size_t ga_metrics_name(const char *p, char *name, size_t size)
{
	size_t n = 0;

	for (; p[n] && n < size - 1 &&
	       (isalnum((unsigned char)p[n]) || p[n] == '_' || p[n] == '(' || p[n] == ')');
	     n++)
		name[n] = isalnum((unsigned char)p[n]) ? (char)tolower((unsigned char)p[n]) : '_';
	name[n] = '\0';
	return n;
}

void ga_metrics_table(struct buf *out, const char *metric, const char *help, const char *text)
{
	ga_metrics_head(out, metric, help);
	for (const char *p = text; *p; p += strcspn(p, "\n"), p += *p == '\n') {
		char name[64];
		uint64_t v;
		size_t n = ga_metrics_name(p, name, sizeof name);
		if (n && sscanf(p + n, "%*[: \t]%" SCNu64, &v) == 1)
			buf_printf(out, "%s{item=\"%s\"} %" PRIu64 "\n", metric, name, v);
	}
}

static void ga_metrics_file(struct buf *out, const char *metric, const char *help, const char *path)
{
	AUTO_BUF struct buf b = { 0 };

	if (path_read(path, GA_METRICS_MAX_FILE, &b, NULL) == 0)
		ga_metrics_table(out, metric, help, buf_cstr(&b));
}

static void ga_metrics_load(struct buf *out)
{
	static const char *const items[] = { "load1", "load5", "load15" };
	AUTO_BUF struct buf b = { 0 };
	double load[3];

	if (path_read("/proc/loadavg", 256, &b, NULL) < 0 ||
	    sscanf(buf_cstr(&b), "%lf %lf %lf", &load[0], &load[1], &load[2]) != 3)
		return;
	ga_metrics_head(out, "kata_guest_load", "Guest system load.");
	for (unsigned i = 0; i < 3; i++)
		buf_printf(out, "kata_guest_load{item=\"%s\"} %.2f\n", items[i], load[i]);
}

static void ga_metrics_net(struct buf *out)
{
	Grpc__NetworkStats **list = NULL;
	size_t n = 0;

	ga_net_stats(&list, &n);
	ga_metrics_head(out, "kata_guest_netdev_stat", "Guest net devices stats.");
	for (size_t i = 0; i < n; i++) {
		const Grpc__NetworkStats *s = list[i];
		const struct {
			const char *item;
			uint64_t value;
		} rows[] = {
			{ "recv_bytes", s->rx_bytes }, { "recv_packets", s->rx_packets },
			{ "recv_errs", s->rx_errors }, { "recv_drop", s->rx_dropped },
			{ "sent_bytes", s->tx_bytes }, { "sent_packets", s->tx_packets },
			{ "sent_errs", s->tx_errors }, { "sent_drop", s->tx_dropped },
		};
		for (size_t k = 0; k < ARRAY_LEN(rows); k++)
			buf_printf(out,
				   "kata_guest_netdev_stat{interface=\"%s\",item=\"%s\"} %" PRIu64
				   "\n",
				   s->name, rows[k].item, rows[k].value);
		grpc__network_stats__free_unpacked(list[i], NULL);
	}
	free(list);
}

void ga_metrics_get(struct ga_agent *a, struct ttrpc_call *call)
{
	Grpc__Metrics r = GRPC__METRICS__INIT;
	AUTO_BUF struct buf b = { 0 };

	ga_metrics_head(&b, "kata_agent_scrape_count", "Metrics scrape count.");
	buf_printf(&b, "kata_agent_scrape_count %u\n", ++a->scrapes);
	ga_metrics_file(&b, "kata_agent_proc_status", "Agent process status.", "/proc/self/status");
	ga_metrics_load(&b);
	ga_metrics_file(&b, "kata_guest_meminfo", "Statistics about memory usage in the system.",
			"/proc/meminfo");
	ga_metrics_file(&b, "kata_guest_vm_stat", "Guest virtual memory stats.", "/proc/vmstat");
	ga_metrics_net(&b);
	r.metrics = (char *)(uintptr_t)buf_cstr(&b);
	ttrpc_reply(call, &r.base);
}

void ga_metrics_diagnostic(struct ga_agent *a, struct ttrpc_call *call,
			   const Grpc__GetDiagnosticDataRequest *req)
{
	Grpc__GetDiagnosticDataResponse r = GRPC__GET_DIAGNOSTIC_DATA_RESPONSE__INIT;
	struct err e = { 0 };
	const struct ga_container *c = ga_container_find(a, req->container_id, &e);
	AUTO_BUF struct buf b = { 0 };

	if (strcmp(req->log_type, "termination_log") != 0)
		err_set(&e, -EINVAL, "log type \"%.64s\" is not known", req->log_type);
	else if (c && !c->termination_log)
		err_set(&e, -ESRCH, "container \"%s\" has no termination log", c->id);
	else if (c)
		(void)!path_read(c->termination_log, GA_METRICS_MAX_LOG, &b, &e);
	/* A longer one is cut, not an error. */
	if (e.code < 0 && e.code != -EFBIG) {
		ttrpc_fail_err(call, &e);
		return;
	}
	b.len = MIN(b.len, (size_t)GA_METRICS_MAX_LOG);
	r.data = (char *)(uintptr_t)buf_cstr(&b);
	ttrpc_reply(call, &r.base);
}
