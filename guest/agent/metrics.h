/* metrics.h - what the guest tells about itself: GetMetrics in Prometheus text, GetDiagnosticData.
 */
#pragma once

#include "agent.pb-c.h"
#include "amalgam/base/buf.h"
#include "amalgam/wire/ttrpc.h"

struct ga_agent;

INTERNAL void ga_metrics_get(struct ga_agent *a, struct ttrpc_call *call);

/* "Name:   123 kB" and "name 123" lines as samples of one gauge. Pure. */
INTERNAL void ga_metrics_table(struct buf *out, const char *metric, const char *help,
			       const char *text);

/* The only log kept is the container's termination log. */
INTERNAL void ga_metrics_diagnostic(struct ga_agent *a, struct ttrpc_call *call,
				    const Grpc__GetDiagnosticDataRequest *req);
