#include "guest/agent/sandbox.h"

#include <sys/mount.h>

#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "guest/agent/agent.h"
#include "guest/agent/container.h"
#include "guest/agent/hotplug.h"
#include "guest/agent/mount.h"
#include "guest/agent/resume.h"
#include "guest/agent/rpc.h"

#define GA_SANDBOX_RESOLV  GA_STATE_DIR "/resolv.conf"
#define GA_SANDBOX_END_MS  5000
#define GA_SANDBOX_MAX_DNS 256

void ga_sandbox_init(struct ga_sandbox *s)
{
	*s = (struct ga_sandbox){ .ns = GA_NS_SET_NONE };
}

/* ---- CreateSandbox */

/* Our kernels have no modules; a host that insists on one must hear it. */
static int ga_sandbox_modules(const Grpc__CreateSandboxRequest *req, struct err *e)
{
	for (size_t i = 0; i < req->n_kernel_modules; i++) {
		AUTO_FREE char *path = mem_printf("/sys/module/%s", req->kernel_modules[i]->name);
		if (strchr(req->kernel_modules[i]->name, '/') || access(path, F_OK) < 0)
			return err_set(e, -EOPNOTSUPP,
				       "kernel module %s: not built in, and modules "
				       "cannot be loaded",
				       req->kernel_modules[i]->name);
	}
	return 0;
}

/* Bound over the agent's own /etc/resolv.conf, where a container's mount may take it from. */
static int ga_sandbox_dns(struct ga_agent *a, const Grpc__CreateSandboxRequest *req, struct err *e)
{
	static char bind[] = "bind";
	char *options[] = { bind };
	AUTO_BUF struct buf b = { 0 };

	if (!req->n_dns)
		return 0;
	if (req->n_dns > GA_SANDBOX_MAX_DNS)
		return err_set(e, -E2BIG, "%zu lines of DNS settings", req->n_dns);
	for (size_t i = 0; i < req->n_dns; i++)
		buf_printf(&b, "%s\n", req->dns[i]);
	if (path_replace(GA_SANDBOX_RESOLV, b.data, b.len, 0644, e) < 0)
		return e->code;
	if (access("/etc/resolv.conf", F_OK) < 0)
		return 0;
	a->sandbox.has_dns = true;
	return ga_mount_at(NULL, GA_SANDBOX_RESOLV, "/etc/resolv.conf", options, 1, e);
}

static int ga_sandbox_wipe(struct err *e)
{
	int r = path_remove_tree(GA_STATE_DIR);

	if (r < 0 && r != -EBUSY)
		return err_set(e, r, GA_STATE_DIR ": %s", strerror(-r));
	return path_mkdirs(GA_STATE_DIR, 0755, e);
}

static int ga_sandbox_storages(struct ga_agent *a, const Grpc__CreateSandboxRequest *req,
			       struct err *e)
{
	for (size_t i = 0; i < req->n_storages; i++) {
		/* Nothing else happens in the guest yet, so waiting here costs nobody anything. */
		for (unsigned ms = 0;; ms += 5) {
			int r = ga_storage_add(a, &a->sandbox.storages, req->storages[i], e);
			if (r == 0)
				break;
			if (r != -EAGAIN || ms >= a->config.hotplug_timeout_ms)
				return r;
			usleep(5000);
		}
	}
	return 0;
}

int ga_sandbox_prepare(struct ga_agent *a, struct err *e)
{
	if (ga_sandbox_wipe(e) < 0 || ga_resume_prepare(e) < 0 ||
	    ga_ns_new_shared(&a->own, &a->sandbox.ns, e) < 0)
		return e->code;
	a->sandbox.is_prepared = true;
	return 0;
}

/* PROTOCOL.agent section 3, in its order. */
static int ga_sandbox_make(struct ga_agent *a, const Grpc__CreateSandboxRequest *req, struct err *e)
{
	struct ga_sandbox *s = &a->sandbox;

	if (!s->is_prepared && ga_sandbox_prepare(a, e) < 0)
		return e->code;
	if (req->spore && ga_resume_apply(req->spore, e) < 0)
		return err_wrap(e, "clone");
	if (req->spore && req->spore->online_cpus &&
	    ga_hotplug_cpus(req->spore->online_cpus, e) < 0)
		return err_wrap(e, "clone");
	if (ga_sandbox_modules(req, e) < 0 ||
	    (*req->hostname && ga_ns_set_hostname(&a->own, &s->ns, req->hostname, e) < 0) ||
	    ga_sandbox_storages(a, req, e) < 0 || ga_sandbox_dns(a, req, e) < 0)
		return e->code;
	/* The machine's own name, too: what the kernel logs, and what a probe of the agent sees. */
	if (*req->hostname && a->config.is_init &&
	    sethostname(req->hostname, strlen(req->hostname)))
		return err_set(e, -errno, "hostname \"%s\": %m", req->hostname);
	s->has_hostname = *req->hostname;
	s->id = mem_strdup(req->sandbox_id);
	return 0;
}

void ga_sandbox_create(struct ga_agent *a, struct ttrpc_call *call,
		       const Grpc__CreateSandboxRequest *req)
{
	struct ga_sandbox *s = &a->sandbox;
	struct err e = { 0 };

	if (s->is_ready || s->is_dead) {
		ttrpc_fail(call, TTRPC_FAILED_PRECONDITION,
			   s->is_dead ? "sandbox is not usable any more"
				      : "sandbox exists already");
		return;
	}
	if (ga_sandbox_make(a, req, &e) < 0) {
		/* Half a sandbox, perhaps half a clone: it must not become a whole one. */
		s->is_dead = true;
		err_wrap(&e, "create sandbox");
		log_error(e.msg);
		ttrpc_fail_err(call, &e);
		return;
	}
	s->is_ready = true;
	log_info("sandbox created", KV("sandbox", s->id));
	ga_rpc_reply_empty(call);
}

/* ---- DestroySandbox */

static void ga_sandbox_step(struct ga_agent *a);

static void ga_sandbox_container_ended(struct ga_container *c, bool in_time)
{
	struct ga_agent *a = c->agent;

	if (!in_time)
		log_warn("container would not end", KV("container", c->id));
	if (c->call)
		ttrpc_fail(take_ptr(&c->call), TTRPC_CANCELLED, "sandbox was destroyed");
	ga_container_forget(c);
	ga_sandbox_step(a);
}

/* One container after the other; with the last the answer goes out, and then the power. */
static void ga_sandbox_step(struct ga_agent *a)
{
	struct ga_sandbox *s = &a->sandbox;

	if (a->containers) {
		ga_container_end(a->containers, GA_SANDBOX_END_MS, ga_sandbox_container_ended);
		return;
	}
	ga_storage_remove_all(a, &s->storages);
	ga_ns_close(&s->ns);
	if (s->has_dns)
		umount2("/etc/resolv.conf", MNT_DETACH);
	ga_resume_unbind();
	sync();
	log_info("sandbox destroyed", KV("sandbox", s->id ? s->id : ""));
	ga_rpc_reply_empty(take_ptr(&s->call));
	ga_agent_end(a);
}

void ga_sandbox_destroy(struct ga_agent *a, struct ttrpc_call *call)
{
	if (a->sandbox.call) {
		ttrpc_fail(call, TTRPC_FAILED_PRECONDITION, "sandbox is being destroyed");
		return;
	}
	a->sandbox.is_dead = true;
	a->sandbox.call = call;
	ga_sandbox_step(a);
}
