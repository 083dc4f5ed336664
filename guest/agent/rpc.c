#include "guest/agent/rpc.h"

#include <sys/socket.h>

#include "agent.pb-c.h"
#include "guest/agent/agent.h"
#include "guest/agent/container.h"
#include "guest/agent/copyfile.h"
#include "guest/agent/hotplug.h"
#include "guest/agent/metrics.h"
#include "guest/agent/net.h"
#include "guest/agent/resume.h"
#include "guest/agent/signal.h"
#include "guest/agent/stats.h"
#include "guest/agent/update.h"
#include "guest/agent/volume.h"
#include "health.pb-c.h"

void ga_rpc_reply_empty(struct ttrpc_call *call)
{
	Grpc__Empty r = GRPC__EMPTY__INIT;

	ttrpc_reply(call, &r.base);
}

void ga_rpc_answer(struct ttrpc_call *call, int r, const struct err *e)
{
	if (r < 0)
		ttrpc_fail_err(call, e);
	else
		ga_rpc_reply_empty(call);
}

/* Every handler begins like this: the agent, and the request as what it is. */
#define GA_RPC(handler, type)                                                                      \
	static void handler##_typed(struct ga_agent *a, struct ttrpc_call *call, const type *req); \
	static void handler(struct ttrpc_call *call, const ProtobufCMessage *m)                    \
	{                                                                                          \
		handler##_typed(ttrpc_call_arg(call), call, (const type *)(const void *)m);        \
	}                                                                                          \
	static void handler##_typed(struct ga_agent *a, struct ttrpc_call *call, const type *req)

/* ---- grpc.Health */

GA_RPC(ga_rpc_check, Grpc__CheckRequest)
{
	Grpc__HealthCheckResponse r = GRPC__HEALTH_CHECK_RESPONSE__INIT;

	(void)req;
	r.status = a->sandbox.is_dead ? GRPC__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
				      : GRPC__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
	ttrpc_reply(call, &r.base);
}

GA_RPC(ga_rpc_version, Grpc__CheckRequest)
{
	Grpc__VersionCheckResponse r = GRPC__VERSION_CHECK_RESPONSE__INIT;
	static char agent[] = "spore-" SPORE_VERSION, grpc[] = "0.0.1";

	(void)a;
	(void)req;
	r.agent_version = agent;
	r.grpc_version = grpc;
	ttrpc_reply(call, &r.base);
}

/* ---- Sandbox */

GA_RPC(ga_rpc_create_sandbox, Grpc__CreateSandboxRequest)
{
	ga_sandbox_create(a, call, req);
}

GA_RPC(ga_rpc_destroy_sandbox, Grpc__DestroySandboxRequest)
{
	(void)req;
	ga_sandbox_destroy(a, call);
}

/* ---- Containers and processes */

GA_RPC(ga_rpc_create_container, Grpc__CreateContainerRequest)
{
	ga_container_create(a, call, req);
}

GA_RPC(ga_rpc_start_container, Grpc__StartContainerRequest)
{
	ga_container_start(a, call, req->container_id);
}

GA_RPC(ga_rpc_remove_container, Grpc__RemoveContainerRequest)
{
	ga_container_remove(a, call, req->container_id, req->timeout);
}

GA_RPC(ga_rpc_exec_process, Grpc__ExecProcessRequest)
{
	ga_container_exec(a, call, req);
}

GA_RPC(ga_rpc_signal_process, Grpc__SignalProcessRequest)
{
	struct err e;

	ga_rpc_answer(call, ga_signal_process(a, req, &e), &e);
}

/* The process a request names, or NULL and the request is answered. */
static struct ga_process *ga_rpc_process(struct ga_agent *a, struct ttrpc_call *call,
					 const char *container_id, const char *exec_id)
{
	struct err e;
	struct ga_container *c = ga_container_find(a, container_id, &e);
	struct ga_process *p = c ? ga_container_process(c, exec_id, &e) : NULL;

	if (!p)
		ttrpc_fail_err(call, &e);
	return p;
}

GA_RPC(ga_rpc_wait_process, Grpc__WaitProcessRequest)
{
	struct ga_process *p = ga_rpc_process(a, call, req->container_id, req->exec_id);

	if (p)
		ga_process_await(p, call);
}

GA_RPC(ga_rpc_write_stdin, Grpc__WriteStreamRequest)
{
	struct ga_process *p = ga_rpc_process(a, call, req->container_id, req->exec_id);

	if (p)
		ga_stdio_write(&p->io, call, req->data.data, req->data.len);
}

GA_RPC(ga_rpc_read_stdout, Grpc__ReadStreamRequest)
{
	struct ga_process *p = ga_rpc_process(a, call, req->container_id, req->exec_id);

	if (p)
		ga_stdio_read(&p->io, GA_STDOUT, call, req->len);
}

GA_RPC(ga_rpc_read_stderr, Grpc__ReadStreamRequest)
{
	struct ga_process *p = ga_rpc_process(a, call, req->container_id, req->exec_id);

	if (p)
		ga_stdio_read(&p->io, GA_STDERR, call, req->len);
}

GA_RPC(ga_rpc_close_stdin, Grpc__CloseStdinRequest)
{
	struct ga_process *p = ga_rpc_process(a, call, req->container_id, req->exec_id);

	if (!p)
		return;
	ga_stdio_close_stdin(&p->io);
	ga_rpc_reply_empty(call);
}

GA_RPC(ga_rpc_tty_win_resize, Grpc__TtyWinResizeRequest)
{
	struct ga_process *p = ga_rpc_process(a, call, req->container_id, req->exec_id);
	struct err e;
	int r;

	if (!p)
		return;
	r = ga_stdio_resize(&p->io, (uint16_t)MIN(req->row, 65535u),
			    (uint16_t)MIN(req->column, 65535u));
	if (r < 0)
		err_set(&e, r, "resize terminal: %s", strerror(-r));
	ga_rpc_answer(call, r, &e);
}

GA_RPC(ga_rpc_get_oom_event, Grpc__GetOOMEventRequest)
{
	(void)req;
	ga_oom_ask(&a->oom, call);
}

GA_RPC(ga_rpc_update_container, Grpc__UpdateContainerRequest)
{
	struct err e;

	ga_rpc_answer(call, ga_update_resources(a, req, &e), &e);
}

GA_RPC(ga_rpc_stats_container, Grpc__StatsContainerRequest)
{
	ga_stats_container(a, call, req->container_id);
}

GA_RPC(ga_rpc_pause_container, Grpc__PauseContainerRequest)
{
	ga_update_freeze(a, call, req->container_id, true);
}

GA_RPC(ga_rpc_resume_container, Grpc__ResumeContainerRequest)
{
	ga_update_freeze(a, call, req->container_id, false);
}

/* ---- Network */

GA_RPC(ga_rpc_update_interface, Grpc__UpdateInterfaceRequest)
{
	ga_net_update_interface(a, call, req->interface);
}

GA_RPC(ga_rpc_update_routes, Grpc__UpdateRoutesRequest)
{
	(void)a;
	ga_net_update_routes(call, req->routes);
}

GA_RPC(ga_rpc_list_interfaces, Grpc__ListInterfacesRequest)
{
	(void)a;
	(void)req;
	ga_net_list_interfaces(call);
}

GA_RPC(ga_rpc_list_routes, Grpc__ListRoutesRequest)
{
	(void)a;
	(void)req;
	ga_net_list_routes(call);
}

GA_RPC(ga_rpc_add_neighbors, Grpc__AddARPNeighborsRequest)
{
	(void)a;
	ga_net_add_neighbors(call, req->neighbors);
}

/* ---- The machine */

GA_RPC(ga_rpc_online_cpu_mem, Grpc__OnlineCPUMemRequest)
{
	ga_hotplug_online(a, call, req);
}

GA_RPC(ga_rpc_reseed, Grpc__ReseedRandomDevRequest)
{
	struct err e;

	(void)a;
	ga_rpc_answer(call, ga_resume_entropy(req->data.data, req->data.len, &e), &e);
}

GA_RPC(ga_rpc_set_time, Grpc__SetGuestDateTimeRequest)
{
	struct err e;

	(void)a;
	if (req->usec < 0 || req->usec > 999999) {
		ttrpc_fail(call, TTRPC_INVALID_ARGUMENT, "Usec %lld", (long long)req->usec);
		return;
	}
	ga_rpc_answer(call, ga_resume_clock(req->sec, req->usec * 1000, &e), &e);
}

GA_RPC(ga_rpc_guest_details, Grpc__GuestDetailsRequest)
{
	static char version[] = SPORE_VERSION;
	static char *devices[] = { "mmioblk", "blk", "nvdimm" };
	static char *features[] = { "spore-clone-v1", "slot-bind", "share-v1", "oci-extra-v1" };
	Grpc__GuestDetailsResponse r = GRPC__GUEST_DETAILS_RESPONSE__INIT;
	Grpc__AgentDetails d = GRPC__AGENT_DETAILS__INIT;

	if (req->mem_block_size)
		r.mem_block_size_bytes = ga_hotplug_block_size();
	r.support_mem_hotplug_probe = req->mem_hotplug_probe && ga_hotplug_has_probe();
	r.agent_details = &d;
	d.version = version;
	d.init_daemon = a->config.is_init;
	d.device_handlers = devices;
	d.n_device_handlers = ARRAY_LEN(devices);
	d.storage_handlers = (char **)(uintptr_t)ga_storage_drivers(&d.n_storage_handlers);
	d.supports_seccomp = true;
	d.extra_features = features;
	d.n_extra_features = ARRAY_LEN(features);
	ttrpc_reply(call, &r.base);
}

GA_RPC(ga_rpc_mem_probe, Grpc__MemHotplugByProbeRequest)
{
	struct err e;

	(void)a;
	ga_rpc_answer(call,
		      ga_hotplug_probe(req->memhotplugprobeaddr, req->n_memhotplugprobeaddr, &e),
		      &e);
}

GA_RPC(ga_rpc_copy_file, Grpc__CopyFileRequest)
{
	struct err e;

	(void)a;
	ga_rpc_answer(call, ga_copyfile(req, &e), &e);
}

GA_RPC(ga_rpc_get_metrics, Grpc__GetMetricsRequest)
{
	(void)req;
	ga_metrics_get(a, call);
}

GA_RPC(ga_rpc_get_diagnostic_data, Grpc__GetDiagnosticDataRequest)
{
	ga_metrics_diagnostic(a, call, req);
}

GA_RPC(ga_rpc_get_volume_stats, Grpc__VolumeStatsRequest)
{
	(void)a;
	ga_volume_stats(call, req->volume_guest_path);
}

GA_RPC(ga_rpc_update_ephemeral_mounts, Grpc__UpdateEphemeralMountsRequest)
{
	struct err e;

	(void)a;
	ga_rpc_answer(call, ga_volume_update(req, &e), &e);
}

/* ---- The table */

#undef GA_RPC
#define GA_RPC_AGENT  "grpc.AgentService"
#define GA_RPC_HEALTH "grpc.Health"
#define GA_RPC_METHOD(service, name, request, handler)                                    \
	{                                                                                 \
		GA_RPC_##service, #name, &grpc__##request##__descriptor, ga_rpc_##handler \
	}

/* PROTOCOL.agent section 2, in its order. What is not here is answered UNIMPLEMENTED. */
static const struct ttrpc_method ga_rpc_methods[] = {
	GA_RPC_METHOD(HEALTH, Check, check_request, check),
	GA_RPC_METHOD(HEALTH, Version, check_request, version),
	GA_RPC_METHOD(AGENT, CreateSandbox, create_sandbox_request, create_sandbox),
	GA_RPC_METHOD(AGENT, DestroySandbox, destroy_sandbox_request, destroy_sandbox),
	GA_RPC_METHOD(AGENT, CreateContainer, create_container_request, create_container),
	GA_RPC_METHOD(AGENT, StartContainer, start_container_request, start_container),
	GA_RPC_METHOD(AGENT, RemoveContainer, remove_container_request, remove_container),
	GA_RPC_METHOD(AGENT, ExecProcess, exec_process_request, exec_process),
	GA_RPC_METHOD(AGENT, SignalProcess, signal_process_request, signal_process),
	GA_RPC_METHOD(AGENT, WaitProcess, wait_process_request, wait_process),
	GA_RPC_METHOD(AGENT, UpdateContainer, update_container_request, update_container),
	GA_RPC_METHOD(AGENT, StatsContainer, stats_container_request, stats_container),
	GA_RPC_METHOD(AGENT, PauseContainer, pause_container_request, pause_container),
	GA_RPC_METHOD(AGENT, ResumeContainer, resume_container_request, resume_container),
	GA_RPC_METHOD(AGENT, WriteStdin, write_stream_request, write_stdin),
	GA_RPC_METHOD(AGENT, ReadStdout, read_stream_request, read_stdout),
	GA_RPC_METHOD(AGENT, ReadStderr, read_stream_request, read_stderr),
	GA_RPC_METHOD(AGENT, CloseStdin, close_stdin_request, close_stdin),
	GA_RPC_METHOD(AGENT, TtyWinResize, tty_win_resize_request, tty_win_resize),
	GA_RPC_METHOD(AGENT, UpdateInterface, update_interface_request, update_interface),
	GA_RPC_METHOD(AGENT, UpdateRoutes, update_routes_request, update_routes),
	GA_RPC_METHOD(AGENT, ListInterfaces, list_interfaces_request, list_interfaces),
	GA_RPC_METHOD(AGENT, ListRoutes, list_routes_request, list_routes),
	GA_RPC_METHOD(AGENT, AddARPNeighbors, add_arpneighbors_request, add_neighbors),
	GA_RPC_METHOD(AGENT, GetMetrics, get_metrics_request, get_metrics),
	GA_RPC_METHOD(AGENT, GetDiagnosticData, get_diagnostic_data_request, get_diagnostic_data),
	GA_RPC_METHOD(AGENT, GetGuestDetails, guest_details_request, guest_details),
	GA_RPC_METHOD(AGENT, OnlineCPUMem, online_cpumem_request, online_cpu_mem),
	GA_RPC_METHOD(AGENT, MemHotplugByProbe, mem_hotplug_by_probe_request, mem_probe),
	GA_RPC_METHOD(AGENT, ReseedRandomDev, reseed_random_dev_request, reseed),
	GA_RPC_METHOD(AGENT, SetGuestDateTime, set_guest_date_time_request, set_time),
	GA_RPC_METHOD(AGENT, CopyFile, copy_file_request, copy_file),
	GA_RPC_METHOD(AGENT, GetOOMEvent, get_oomevent_request, get_oom_event),
	GA_RPC_METHOD(AGENT, GetVolumeStats, volume_stats_request, get_volume_stats),
	GA_RPC_METHOD(AGENT, UpdateEphemeralMounts, update_ephemeral_mounts_request,
		      update_ephemeral_mounts),
};

/* ---- Connections */

static void ga_rpc_closed(void *arg, const char *reason)
{
	struct ga_agent *a = arg;

	a->connections--;
	log_debug("host has disconnected", KV("reason", reason));
}

static void ga_rpc_accept(struct watch *w, uint32_t events)
{
	struct ga_agent *a = container_of(w, struct ga_agent, rpc_watch);
	int fd = ga_agent_accept(w->fd, NULL);
	struct err e;

	(void)events;
	if (fd < 0)
		return;
	if (a->connections == GA_MAX_CONNECTIONS) {
		log_warn("connection refused: too many");
		close(fd);
		return;
	}
	a->connections++;
	if (!ttrpc_open(&a->loop, fd, ga_rpc_methods, ARRAY_LEN(ga_rpc_methods), ga_rpc_closed, a,
			&e)) {
		a->connections--;
		log_warn("connection not served", KV("reason", e.msg));
	}
}

int ga_rpc_listen(struct ga_agent *a, struct err *e)
{
	int fd = ga_agent_listen(&a->config, a->config.rpc_port, true, e);

	if (fd < 0)
		return fd;
	if (watch_start(&a->loop, &a->rpc_watch, fd, EPOLLIN, ga_rpc_accept) < 0)
		return err_set(e, -EIO, "watch the RPC socket");
	return 0;
}

#undef GA_RPC_METHOD
#undef GA_RPC_AGENT
#undef GA_RPC_HEALTH
