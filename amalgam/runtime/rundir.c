#include "amalgam/runtime/rundir.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "amalgam/base/fd.h"
#include "amalgam/base/mem.h"
#include "amalgam/base/path.h"
#include "amalgam/base/proc.h"
#include "amalgam/base/str.h"
#include "amalgam/wire/json.h"

#define RUNDIR_BASE      "/run/spore"
#define RUNDIR_SANDBOXES RUNDIR_BASE "/sandboxes"
#define RUNDIR_STATE_MAX 65536
#define RUNDIR_BIRTH_LIMIT_S 10 /* from mkdir to the first state file; microseconds, really */

static const char *const rundir_status_names[] = {
	[RUNDIR_CREATING] = "creating",
	[RUNDIR_CREATED] = "created",
	[RUNDIR_RUNNING] = "running",
	[RUNDIR_PAUSED] = "paused",
	[RUNDIR_STOPPED] = "stopped",
};

const char *rundir_status_name(enum rundir_status s)
{
	return rundir_status_names[s];
}

static bool rundir_id_char(char c, bool first)
{
	bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

	return alnum || (!first && (c == '_' || c == '.' || c == '-'));
}

int rundir_check_id(const char *id, struct err *e)
{
	size_t n = strlen(id);
	bool ok = n > 0 && n <= RUNDIR_ID_MAX;

	for (size_t i = 0; ok && i < n; i++)
		ok = rundir_id_char(id[i], i == 0);
	if (!ok)
		return err_set(e, -EINVAL,
			       "name \"%s\": use 1 to %d letters, digits, '_', '.', '-', starting with "
			       "a letter or digit", id, RUNDIR_ID_MAX);
	return 0;
}

void rundir_make_id(char out[RUNDIR_ID_MAX + 1])
{
	uint8_t raw[6];

	if (getrandom(raw, sizeof raw, 0) != (ssize_t)sizeof raw)
		memset(raw, 0, sizeof raw); /* not before Linux is up; mkdir() then refuses a twin */
	for (unsigned i = 0; i < sizeof raw; i++)
		sprintf(out + 2 * i, "%02x", raw[i]);
}

char *rundir_path(const char *id)
{
	return mem_printf("%s/%s", RUNDIR_SANDBOXES, id);
}

/* A directory without a state file: its maker writes that as the next thing, or was killed before. */
static bool rundir_is_stillborn(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && time(NULL) - st.st_mtime > RUNDIR_BIRTH_LIMIT_S;
}

/* Several may want to, and the name may be taken anew in between: who removes holds a lock, and looks
 * under it. */
bool rundir_clear_dead(const char *id, bool detached_too)
{
	AUTO_CLOSE int lock = open(RUNDIR_SANDBOXES, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	AUTO_FREE char *path = rundir_path(id);
	struct rundir_state st;
	bool clear;
	int r;

	if (lock < 0 || flock(lock, LOCK_EX) < 0)
		return false;
	r = rundir_load(id, &st, NULL);
	if (r < 0) {
		clear = r == -ENOENT && rundir_is_stillborn(path);
	} else {
		clear = !rundir_is_live(&st) && (detached_too || !st.is_detached);
		rundir_state_fini(&st);
	}
	if (clear)
		rundir_release(path);
	return clear;
}

static void rundir_sweep_one(void *arg, const struct rundir_state *st)
{
	(void)arg;
	if (!st->is_detached && !st->ns && !rundir_is_live(st))
		rundir_clear_dead(st->id, false);
}

void rundir_sweep(void)
{
	rundir_each(rundir_sweep_one, NULL);
}

int rundir_claim(const char *id, char **dir, struct err *e)
{
	AUTO_FREE char *path = rundir_path(id);
	int r;

	if ((r = path_mkdirs(RUNDIR_SANDBOXES, 0711, e)) < 0)
		return r;
	r = mkdir(path, 0700) < 0 ? -errno : 0;
	if (r == -EEXIST && rundir_clear_dead(id, true))
		r = mkdir(path, 0700) < 0 ? -errno : 0;
	if (r == -EEXIST)
		return err_set(e, r, "name \"%s\" is already used; choose another or remove that "
			       "sandbox with: spore rm --force %s", id, id);
	if (r < 0)
		return err_set(e, r, "%s: %s", path, strerror(-r));
	*dir = take_ptr(&path);
	return 0;
}

void rundir_release(const char *dir)
{
	path_remove_tree(dir);
}

int rundir_open_log(const char *dir, const char *name, struct err *e)
{
	AUTO_FREE char *path = mem_printf("%s/%s", dir, name);
	int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? err_set(e, -errno, "%s: %m", path) : fd;
}

int rundir_listen(const char *dir, struct err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	AUTO_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(a.sun_path, sizeof a.sun_path, "%s/agent.sock", dir);
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 || listen(fd, 16) < 0)
		return err_set(e, -errno, "%s: %m", a.sun_path);
	return take_fd(&fd);
}

void rundir_add_container(struct rundir_state *st, const char *id, enum rundir_status status)
{
	st->containers = mem_realloc(st->containers, (st->ncontainers + 1) * sizeof *st->containers);
	st->containers[st->ncontainers++] = (struct rundir_container){ mem_strdup(id), status };
}

void rundir_drop_containers(struct rundir_state *st)
{
	while (st->ncontainers)
		free(st->containers[--st->ncontainers].id);
	free(take_ptr(&st->containers));
}

static void rundir_format_container(struct buf *b, const char *id, enum rundir_status status, bool first)
{
	buf_add_str(b, first ? "" : ", ");
	buf_add_str(b, "{ \"id\": ");
	str_json(b, id);
	buf_printf(b, ", \"status\": \"%s\" }", rundir_status_name(status));
}

static void rundir_format_containers(struct buf *b, const struct rundir_state *st)
{
	buf_add_str(b, ",\n  \"containers\": [");
	if (!st->ns && !st->ncontainers)
		rundir_format_container(b, st->id, st->status, true);
	for (unsigned i = 0; i < st->ncontainers; i++)
		rundir_format_container(b, st->containers[i].id, st->containers[i].status, i == 0);
	buf_add_str(b, "]");
	if (!st->ns)
		return;
	buf_add_str(b, ",\n  \"containerd\": { \"namespace\": ");
	str_json(b, st->ns);
	buf_add_str(b, ", \"shim\": ");
	str_json(b, st->shim ? st->shim : "");
	buf_add_str(b, " }");
}

static void rundir_format(struct buf *b, const struct rundir_state *st)
{
	buf_add_str(b, "{\n  \"id\": ");
	str_json(b, st->id);
	buf_printf(b, ",\n  \"status\": \"%s\",\n  \"supervisor\": %d,\n  \"supervisor_start\": %llu,\n"
		   "  \"pid\": %d,\n  \"pid_start\": %llu,\n  \"created_ns\": %llu,\n"
		   "  \"exit_code\": %d,\n  \"clone\": %s,\n  \"detached\": %s,\n  \"command\": ",
		   rundir_status_name(st->status), st->supervisor,
		   (unsigned long long)st->supervisor_start, st->vmm,
		   (unsigned long long)st->vmm_start, (unsigned long long)st->created_ns, st->exit_code,
		   st->clone ? "true" : "false", st->is_detached ? "true" : "false");
	str_json(b, st->command ? st->command : "");
	rundir_format_containers(b, st);
	buf_add_str(b, "\n}\n");
}

int rundir_save(const char *dir, const struct rundir_state *st, struct err *e)
{
	AUTO_FREE char *path = mem_printf("%s/state.json", dir);
	AUTO_BUF struct buf b = { 0 };

	rundir_format(&b, st);
	return path_replace(path, b.data, b.len, 0600, e);
}

static enum rundir_status rundir_status_of(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(rundir_status_names); i++)
		if (!strcmp(name, rundir_status_names[i]))
			return (enum rundir_status)i;
	return RUNDIR_CREATING;
}

static int rundir_parse_containers(const struct json *o, struct rundir_state *st, struct err *e)
{
	const struct json *owner = json_get(o, "containerd");
	const char *ns = "", *shim = "";

	if (json_str(json_get(owner, "namespace"), &ns, e) < 0 ||
	    json_str(json_get(owner, "shim"), &shim, e) < 0)
		return -EINVAL;
	json_each (c, json_get(o, "containers")) {
		const char *id = "", *status = "";
		if (json_str(json_get(c, "id"), &id, e) < 0 || json_str(json_get(c, "status"), &status, e) < 0)
			return -EINVAL;
		rundir_add_container(st, id, rundir_status_of(status));
	}
	if (owner) {
		st->ns = mem_strdup(ns);
		st->shim = mem_strdup(shim);
	} else if (!st->ncontainers) {
		rundir_add_container(st, st->id, st->status);
	}
	return 0;
}

static int rundir_parse(const struct json *o, struct rundir_state *st, struct err *e)
{
	const char *status = "", *command = "";
	uint64_t supervisor = 0, pid = 0, code = 0;

	if (json_str(json_get(o, "status"), &status, e) < 0 ||
	    json_str(json_get(o, "command"), &command, e) < 0 ||
	    json_u64(json_get(o, "supervisor"), 0, INT_MAX, &supervisor, e) < 0 ||
	    json_u64(json_get(o, "supervisor_start"), 0, UINT64_MAX, &st->supervisor_start, e) < 0 ||
	    json_u64(json_get(o, "pid"), 0, INT_MAX, &pid, e) < 0 ||
	    json_u64(json_get(o, "pid_start"), 0, UINT64_MAX, &st->vmm_start, e) < 0 ||
	    json_u64(json_get(o, "created_ns"), 0, UINT64_MAX, &st->created_ns, e) < 0 ||
	    json_u64(json_get(o, "exit_code"), 0, 255, &code, e) < 0 ||
	    json_bool(json_get(o, "clone"), &st->clone, e) < 0 ||
	    json_bool(json_get(o, "detached"), &st->is_detached, e) < 0)
		return -EINVAL;
	st->supervisor = (pid_t)supervisor;
	st->vmm = (pid_t)pid;
	st->exit_code = (int)code;
	st->status = rundir_status_of(status);
	st->command = mem_strdup(command);
	return rundir_parse_containers(o, st, e);
}

static char *rundir_paused_mark(const char *id)
{
	return mem_printf("%s/%s/paused", RUNDIR_SANDBOXES, id);
}

int rundir_set_paused(const char *id, bool paused, struct err *e)
{
	AUTO_FREE char *path = rundir_paused_mark(id);
	AUTO_CLOSE int fd = -1;

	if (!paused)
		return unlink(path) < 0 && errno != ENOENT ? err_set(e, -errno, "%s: %m", path) : 0;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd < 0 ? err_set(e, -errno, "%s: %m", path) : 0;
}

int rundir_load(const char *id, struct rundir_state *st, struct err *e)
{
	AUTO_FREE char *path = mem_printf("%s/%s/state.json", RUNDIR_SANDBOXES, id);
	AUTO_FREE char *paused = rundir_paused_mark(id);
	AUTO_BUF struct buf b = { 0 };
	AUTO_JSON struct json_doc doc = { 0 };
	int r;

	*st = (struct rundir_state){ .status = RUNDIR_CREATING };
	if ((r = rundir_check_id(id, e)) < 0)
		return r;
	snprintf(st->id, sizeof st->id, "%s", id);
	r = path_read(path, RUNDIR_STATE_MAX, &b, e);
	if (r == -ENOENT)
		return err_set(e, r, "no sandbox named \"%s\"; see: spore ps", id);
	if (r < 0 || (r = json_parse(&doc, b.data, b.len, e)) < 0 ||
	    (r = rundir_parse(doc.root, st, e)) < 0) {
		rundir_state_fini(st);
		err_wrap(e, "%s", path);
		return r;
	}
	if (st->status == RUNDIR_RUNNING && access(paused, F_OK) == 0)
		st->status = RUNDIR_PAUSED;
	return 0;
}

void rundir_state_fini(struct rundir_state *st)
{
	rundir_drop_containers(st);
	free(take_ptr(&st->command));
	free(take_ptr(&st->ns));
	free(take_ptr(&st->shim));
}

bool rundir_is_live(const struct rundir_state *st)
{
	return proc_alive(st->supervisor, st->supervisor_start);
}

void rundir_each(void (*fn)(void *arg, const struct rundir_state *st), void *arg)
{
	DIR *d = opendir(RUNDIR_SANDBOXES);
	struct dirent *ent;

	while (d && (ent = readdir(d))) {
		struct rundir_state st;
		if (ent->d_name[0] == '.' || rundir_load(ent->d_name, &st, NULL) < 0)
			continue;
		fn(arg, &st);
		rundir_state_fini(&st);
	}
	if (d)
		closedir(d);
}
