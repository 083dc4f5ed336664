#include "amalgam/shim/shim.h"

#include <bearssl.h>
#include <fcntl.h>
#include <sys/utsname.h>

#include "amalgam/base/clock.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "amalgam/base/str.h"
#include "amalgam/wire/oci_spec.h"

#define POD_NAME_HASH 16 /* bytes of a hash that stands for a long name */
#define POD_OVERHEAD_MIB 64 /* of a machine besides its guest's memory, generously */
#define POD_MAX_MIB   65536
#define POD_COOKIES   16 /* the sandbox's own are below */

/* --- names ------------------------------------------------------------------------------------ */

/* "<namespace>.<id>", or a hash where that is no name for a sandbox. */
char *pod_dir_name(const char *ns, const char *id)
{
	AUTO_FREE char *name = mem_printf("%s.%s", ns, id);
	br_sha256_context sha;
	uint8_t hash[br_sha256_SIZE];
	char hex[2 * POD_NAME_HASH + 1];

	if (rundir_check_id(name, NULL) == 0)
		return take_ptr(&name);
	br_sha256_init(&sha);
	br_sha256_update(&sha, name, strlen(name));
	br_sha256_out(&sha, hash);
	for (unsigned i = 0; i < POD_NAME_HASH; i++)
		sprintf(hex + 2 * i, "%02x", hash[i]);
	return mem_strdup(hex);
}

char *pod_owner(const char *ns, const char *id)
{
	return mem_printf("containerd: %s in %s", id, ns);
}

/* --- what the specification says about the host ----------------------------------------------- */

static const Grpc__LinuxNamespace *pod_namespace(const Grpc__Spec *spec, const char *type)
{
	for (size_t i = 0; spec->linux && i < spec->linux->n_namespaces; i++)
		if (!strcmp(spec->linux->namespaces[i]->type, type))
			return spec->linux->namespaces[i];
	return NULL;
}

static void pod_set_up_network(struct shim_pod *pod)
{
	pod->network.rx_rate = (uint64_t)pod->config.rx_rate_limiter_max_rate;
	pod->network.tx_rate = (uint64_t)pod->config.tx_rate_limiter_max_rate;
	pod->network.no_vhost = pod->config.disable_vhost_net;
}

/* 1: the network is written down; 0: it is not; else -errno. */
static int pod_open_dan(struct shim *s, struct err *e)
{
	struct shim_pod *pod = &s->pod;
	AUTO_FREE char *file = mem_printf("%s/%s.json", pod->config.dan_conf, s->id);

	if (!*pod->config.dan_conf || access(file, F_OK) < 0)
		return 0;
	return network_open_dan(&pod->network, file, e) < 0 ? e->code : 1;
}

/* Where the network of the pod is: a namespace somebody made, or a new one, into which links may be put
 * later. A machine has a kernel of its own, so the host's network cannot be in it. */
static int pod_network(struct shim *s, const Grpc__Spec *spec, int *fd, struct err *e)
{
	const Grpc__LinuxNamespace *ns = pod_namespace(spec, "network");
	struct shim_pod *pod = &s->pod;
	bool none = !strcmp(pod->config.internetworking_model, "none");
	int dan;

	*fd = -1;
	if (pod->config.disable_new_netns)
		return 0;
	pod_set_up_network(pod);
	if ((dan = pod_open_dan(s, e)) < 0)
		return dan;
	none |= dan;
	if (!ns)
		return err_set(e, -ENOTSUP, "no network namespace in the specification: the host's own "
			       "network cannot be a machine's");
	pod->process.new_netns = !*ns->path;
	pod->own_netns = !*ns->path && !none;
	if (!*ns->path)
		return 0;
	*fd = net_find(ns->path, e);
	pod->process.netns_fd = *fd;
	if (*fd < 0 || none)
		return MIN(*fd, 0);
	return network_open(&pod->network, fcntl(*fd, F_DUPFD_CLOEXEC, 0), e);
}

void pod_sync_network(struct shim *s, pod_ready_fn *done, void *arg)
{
	struct shim_pod *pod = &s->pod;
	struct err e = { 0 };

	if (pod->own_netns && !pod->network.is_open) {
		AUTO_FREE char *path = mem_printf("/proc/%d/ns/net", (int)pod->sandbox.vm.pid);
		int fd = net_find(path, NULL); /* none: the machine has ended, of which others will tell */
		if (fd >= 0)
			(void)!network_open(&pod->network, fd, &e);
	}
	if (e.code < 0 || !pod->network.is_open || pod->network.done)
		done(arg, &e);
	else
		network_sync(&pod->network, &pod->sandbox, done, arg);
}

void pod_repair_network(const char *bundle)
{
	AUTO_FREE char *path = mem_printf("%s/config.json", bundle);
	AUTO_BUF struct buf b = { 0 };
	const Grpc__LinuxNamespace *ns;
	Grpc__Spec *spec = NULL;
	struct net net;
	int fd;

	if (path_read(path, OCI_SPEC_MAX_BYTES, &b, NULL) == 0)
		spec = oci_spec_parse(b.data, b.len, NULL);
	ns = spec ? pod_namespace(spec, "network") : NULL;
	fd = ns && *ns->path ? net_find(ns->path, NULL) : -1;
	if (fd >= 0 && net_open(&net, fd, NULL) == 0) {
		net_repair(&net);
		net_close(&net);
	}
	if (spec)
		grpc__spec__free_unpacked(spec, NULL);
}

static int pod_load_config(struct shim_pod *pod, const struct shim_options *opt, struct err *e)
{
	int r;

	if (opt->config_body.len)
		r = config_parse(&pod->config, opt->config_body.data, opt->config_body.len, e);
	else
		r = config_load(&pod->config, opt->config_path, e);
	if (r < 0)
		return err_wrap(e, "configuration");
	pod->has_config = true;
	return 0;
}

/* --- how large -------------------------------------------------------------------------------- */

/* Annotations that are settings. Kata's name for one of them is not ours. */
static int pod_annotate(struct config *c, const Grpc__Spec *spec, struct err *e)
{
	static const char *const prefixes[] = { "io.spore.config.hypervisor.",
						"io.katacontainers.config.hypervisor." };
	int r = 0;

	for (size_t i = 0; i < spec->n_annotations && r == 0; i++) {
		const char *key = spec->annotations[i]->key;
		for (unsigned k = 0; k < ARRAY_LEN(prefixes) && r == 0; k++) {
			const char *name = key + strlen(prefixes[k]);
			if (!str_starts(key, prefixes[k]))
				continue;
			name = strcmp(name, "default_max_vcpus") ? name : "default_maxvcpus";
			r = config_annotate(c, name, spec->annotations[i]->value, e);
			if (r == -ENOENT && k > 0) /* one of Kata's that means nothing here */
				r = 0;
		}
	}
	return r;
}

/* What the pod will be limited to, or 0: CRI says it in annotations of the sandbox, and for a container
 * without a pod its own limit is the pod's. */
static uint64_t pod_asks(const Grpc__Spec *spec, const char *key, int64_t own)
{
	uint64_t n = 0;

	for (size_t i = 0; i < spec->n_annotations; i++)
		if (!strcmp(spec->annotations[i]->key, key) &&
		    str_u64(spec->annotations[i]->value, 0, INT64_MAX, &n) == 0 && n > 0)
			return n;
	return own > 0 ? (uint64_t)own : 0;
}

/* A machine of the default size, which can be cloned, unless what shall run in it would not fit: then
 * that comes on top. CPUs are brought online as asked for, in a clone as well. */
static struct machine_shape pod_shape(const struct shim_pod *pod, const Grpc__Spec *spec)
{
	static const Grpc__LinuxMemory no_memory = GRPC__LINUX_MEMORY__INIT;
	static const Grpc__LinuxCPU no_cpu = GRPC__LINUX_CPU__INIT;
	const Grpc__LinuxResources *r = spec->linux->resources;
	const Grpc__LinuxMemory *m = r && r->memory ? r->memory : &no_memory;
	const Grpc__LinuxCPU *c = r && r->cpu ? r->cpu : &no_cpu;
	struct machine_shape shape = template_default_shape(&pod->config);
	uint64_t bytes = pod_asks(spec, "io.kubernetes.cri.sandbox-memory", m->limit);
	uint64_t quota = pod_asks(spec, "io.kubernetes.cri.sandbox-cpu-quota", c->quota);
	uint64_t period = pod_asks(spec, "io.kubernetes.cri.sandbox-cpu-period", (int64_t)c->period);
	uint64_t cpus = quota && period ? (quota + period - 1) / period : 0;
	uint64_t mib = (MIN(bytes, MIB(POD_MAX_MIB)) + MIB(1) - 1) / MIB(1);

	if (mib > shape.mem_mib / 2)
		shape.mem_mib = MIN(shape.mem_mib + mib, (uint64_t)POD_MAX_MIB);
	shape.vcpus = (unsigned)MIN(MAX(cpus, (uint64_t)shape.vcpus), (uint64_t)shape.max_vcpus);
	return shape;
}

/* --- events of the machine -------------------------------------------------------------------- */

static void pod_each_proc(struct shim *s, void (*fn)(struct shim_proc *p))
{
	for (struct shim_container *c = s->containers; c; c = c->next) {
		for (struct shim_proc *p = c->execs; p; p = p->next)
			fn(p);
		fn(&c->init);
	}
}

static void pod_proc_gone(struct shim_proc *p)
{
	process_on_gone(&p->run);
}

static void pod_on_gone(void *arg, enum ctl_exit how, const char *why)
{
	struct shim *s = arg;

	(void)how;
	if (s->pod.status != POD_DOWN)
		log_warn("the machine ended", KV("id", s->id), KV("reason", why));
	s->pod.status = POD_DOWN;
	pod_each_proc(s, pod_proc_gone);
}

static void pod_on_stream(void *arg, uint64_t cookie, enum hv_stream_event ev, int code)
{
	struct shim *s = arg;

	(void)code;
	for (struct shim_container *c = s->containers; c; c = c->next) {
		if (process_on_stream(&c->init.run, cookie, ev))
			return;
		for (struct shim_proc *p = c->execs; p; p = p->next)
			if (process_on_stream(&p->run, cookie, ev))
				return;
	}
}

static void pod_ask_oom(struct shim *s);

static void pod_on_oom(void *arg, const struct ttrpc_result *res)
{
	struct shim *s = arg;
	const Grpc__OOMEvent *oom = (const Grpc__OOMEvent *)res->response;
	Ctd__TaskOOM ev = CTD__TASK_OOM__INIT;

	if (res->code != TTRPC_OK)
		return; /* the agent is gone, or has none */
	ev.container_id = oom->container_id;
	if (shim_container_find(s, oom->container_id, NULL))
		shim_events_publish(&s->events, "/tasks/oom", "containerd.events.TaskOOM", &ev.base);
	pod_ask_oom(s);
}

static void pod_ask_oom(struct shim *s)
{
	Grpc__GetOOMEventRequest rq = GRPC__GET_OOMEVENT_REQUEST__INIT;

	agent_ask(&s->pod.sandbox.agent, "GetOOMEvent", &rq, &grpc__oomevent__descriptor, 0, pod_on_oom,
		  s);
}

/* --- cgroup ----------------------------------------------------------------------------------- */

/* For `delete`, when we are no more. */
static int pod_cgroup_note(struct shim_pod *pod, struct err *e)
{
	AUTO_FREE char *path = pod_cgroup_file(pod->dir);
	AUTO_BUF struct buf b = { 0 };

	hostcg_save(&pod->cgroup, &b);
	return path_replace(path, b.data, b.len, 0600, e);
}

char *pod_cgroup_file(const char *dir)
{
	return mem_printf("%s/cgroup.json", dir);
}

static int pod_cgroup_make(struct shim *s, const Grpc__Spec *spec, struct err *e)
{
	struct shim_pod *pod = &s->pod;
	int r = hostcg_plan(&pod->cgroup, spec->linux->cgroupspath, s->id, e);

	/* Noted before, for we may be killed while it is made; and after, for others may have made parts. */
	if (r < 0 || (r = pod_cgroup_note(pod, e)) < 0 || (r = hostcg_create(&pod->cgroup, e)) < 0 ||
	    (r = pod_cgroup_note(pod, e)) < 0)
		return r;
	if (spec->linux->resources)
		pod_limit(s, spec->linux->resources);
	pod->process.cgroup_procs = pod->procs;
	pod->process.ncgroup_procs = (unsigned)hostcg_procs(&pod->cgroup, pod->procs);
	return 0;
}

/* What is limited is enforced in the guest; on the host the machine is held to that and to all of its
 * guest's memory, most of which may be page cache. A host that cannot hold it to anything is no reason to
 * fail. */
void pod_limit(struct shim *s, const Grpc__LinuxResources *r)
{
	const uint64_t overhead = MIB(s->pod.spec.shape.mem_mib + POD_OVERHEAD_MIB);
	struct err e = { 0 };

	if (!s->pod.cgroup.path) /* gone, or not there yet */
		return;
	if (hostcg_limit(&s->pod.cgroup, r, overhead, &e) < 0)
		log_warn("limits not set on the host", KV("id", s->id), KV("reason", e.msg));
}

static void pod_cgroup_remove(struct shim *s)
{
	struct err e = { 0 };

	if (s->pod.cgroup.path && hostcg_remove(&s->pod.cgroup, &e) < 0)
		log_warn("cgroup not removed", KV("id", s->id), KV("reason", e.msg));
	hostcg_fini(&s->pod.cgroup);
}

/* --- life ------------------------------------------------------------------------------------- */

static int pod_claim(struct shim *s, struct err *e)
{
	struct shim_pod *pod = &s->pod;
	int r;

	pod->name = pod_dir_name(s->ns, s->id);
	if ((r = rundir_claim(pod->name, &pod->dir, e)) < 0)
		return r;
	snprintf(pod->state.id, sizeof pod->state.id, "%s", pod->name);
	pod->state.supervisor = getpid();
	pod->state.supervisor_start = proc_start_time(getpid());
	pod->state.created_ns = clock_wall_ns();
	pod->state.is_detached = false;
	pod->state.command = pod_owner(s->ns, s->id);
	pod->state.ns = mem_strdup(s->ns);
	pod->state.shim = mem_strdup(s->socket);
	if ((r = rundir_save(pod->dir, &pod->state, e)) < 0 ||
	    (r = pod->console_fd = rundir_open_log(pod->dir, "console.log", e)) < 0 ||
	    (r = pod->listen_fd = rundir_listen(pod->dir, e)) < 0 ||
	    (r = pod->kvm_fd = hv_open_kvm(e)) < 0)
		return r;
	return 0;
}

/* Oldest first; the shim's list has the youngest first. */
static void pod_list(struct rundir_state *st, const struct shim_container *c)
{
	static const enum rundir_status of[] = {
		[CTD__STATUS__CREATED] = RUNDIR_CREATED,
		[CTD__STATUS__RUNNING] = RUNDIR_RUNNING,
		[CTD__STATUS__STOPPED] = RUNDIR_STOPPED,
		[CTD__STATUS__PAUSED] = RUNDIR_PAUSED,
	};

	if (!c)
		return;
	pod_list(st, c->next);
	if (!c->creating)
		rundir_add_container(st, c->id, of[shim_proc_status(&c->init)]);
}

/* A sandbox is paused when some of its containers are and none runs. */
static enum rundir_status pod_rundir_status(const struct rundir_state *st)
{
	enum rundir_status s = RUNDIR_RUNNING;

	for (unsigned i = 0; i < st->ncontainers; i++) {
		if (st->containers[i].status == RUNDIR_RUNNING)
			return RUNDIR_RUNNING;
		if (st->containers[i].status == RUNDIR_PAUSED)
			s = RUNDIR_PAUSED;
	}
	return s;
}

void pod_note(struct shim *s)
{
	struct shim_pod *pod = &s->pod;
	struct err e = { 0 };

	if (!pod->dir || (pod->status != POD_UP && pod->status != POD_DOWN))
		return;
	rundir_drop_containers(&pod->state);
	pod_list(&pod->state, s->containers);
	pod->state.status = pod->status == POD_UP ? pod_rundir_status(&pod->state) : RUNDIR_STOPPED;
	if (rundir_save(pod->dir, &pod->state, &e) < 0)
		log_warn("state not saved", KV("id", s->id), KV("reason", e.msg));
}

static void pod_up(void *arg, const struct err *why)
{
	struct shim *s = arg;
	struct shim_pod *pod = &s->pod;
	struct err e = *why;

	if (e.code == 0) {
		pod->status = POD_UP;
		pod->state.status = RUNDIR_RUNNING;
		pod->state.clone = pod->sandbox.is_clone;
		(void)!rundir_save(pod->dir, &pod->state, &e);
		pod_ask_oom(s);
	}
	pod->ready(pod->arg, &e);
}

static void pod_ready(void *arg, const struct err *why)
{
	struct shim *s = arg;

	if (why->code == 0 && s->pod.network.is_open)
		pod_sync_network(s, pod_up, s);
	else
		pod_up(s, why);
}

/* Who names none has the host's, as in a container of the host. */
static void pod_set_hostname(struct shim_pod *pod, const Grpc__Spec *spec)
{
	struct utsname host;

	if (*spec->hostname)
		pod->hostname = mem_strdup(spec->hostname);
	else if (uname(&host) == 0)
		pod->hostname = mem_strdup(host.nodename);
}

static void pod_describe(struct shim_pod *pod, const struct shim_container *c,
			 const struct sandbox_disk *disk, const struct binds *binds)
{
	pod_set_hostname(pod, c->spec);
	pod->process.serves_files = true;
	pod->spec = (struct sandbox_spec){
		.id = pod->name,
		.hostname = pod->hostname,
		.shape = pod_shape(pod, c->spec),
		.use_template = pod->config.enable_template,
		.kvm_fd = pod->kvm_fd,
		.console_fd = pod->console_fd,
		.listen_fd = pod->listen_fd,
		.disks = disk,
		.ndisks = disk ? 1 : 0,
		.shares = binds->share,
		.nshares = binds->n,
		.process = &pod->process,
	};
}

static int pod_begin(struct shim *s, const struct shim_container *c, struct err *e)
{
	const struct sandbox_events ev = { pod_on_gone, pod_on_stream, s };
	struct shim_pod *pod = &s->pod;
	AUTO_CLOSE int netns = -1;
	int r;

	if ((r = pod_network(s, c->spec, &netns, e)) < 0 ||
	    (r = pod_cgroup_make(s, c->spec, e)) < 0)
		return r;
	r = sandbox_begin(&pod->sandbox, &s->loop, &pod->spec, &ev, pod_ready, s, e);
	pod->process = (struct vmm_options){ .serves_files = true };
	if (r < 0)
		return r;
	pod->state.vmm = pod->sandbox.vm.pid;
	pod->state.vmm_start = pod->sandbox.vm.start_time;
	return rundir_save(pod->dir, &pod->state, e);
}

int pod_start(struct shim *s, struct shim_container *c, const struct shim_options *opt,
	      const struct sandbox_disk *disk, const struct binds *binds, pod_ready_fn *ready, void *arg,
	      struct err *e)
{
	struct shim_pod *pod = &s->pod;
	int r;

	if (pod->status != POD_NONE)
		return err_set(e, -EBUSY, "the sandbox of %s has ended or is being made", s->id);
	pod->status = POD_STARTING;
	pod->ready = ready;
	pod->arg = arg;
	pod->cookies = POD_COOKIES;
	if ((r = pod_load_config(pod, opt, e)) < 0 || (r = pod_annotate(&pod->config, c->spec, e)) < 0 ||
	    (r = pod_claim(s, e)) < 0)
		return r;
	pod_describe(pod, c, disk, binds);
	return pod_begin(s, c, e);
}

static void pod_close(int *fd)
{
	if (*fd >= 0)
		close(take_fd(fd));
}

void pod_stop(struct shim *s)
{
	struct shim_pod *pod = &s->pod;

	if (pod->status == POD_NONE)
		return;
	pod->status = POD_DOWN;
	pod->network.done = NULL;
	sandbox_stop(&pod->sandbox);
	network_close(&pod->network);
	pod_each_proc(s, pod_proc_gone);
	pod_cgroup_remove(s);
	pod_close(&pod->kvm_fd);
	pod_close(&pod->console_fd);
	pod_close(&pod->listen_fd);
	if (pod->dir)
		rundir_release(pod->dir);
	free(take_ptr(&pod->dir));
	free(take_ptr(&pod->name));
	free(take_ptr(&pod->hostname));
	rundir_state_fini(&pod->state);
	if (pod->has_config)
		config_fini(&pod->config);
	pod->has_config = false;
}
