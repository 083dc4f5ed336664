#include "amalgam/cli/cli.h"

#include "amalgam/base/mem.h"
#include "amalgam/hv/hv.h"

void cli_complain(const char *msg)
{
	AUTO_FREE char *line = mem_printf("spore: %s", msg);

	for (char *c = line; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = ' ';
	fprintf(stderr, "%s\n", line);
}

int cli_fail(const struct err *e)
{
	cli_complain(e->msg);
	return CLI_FAILED;
}

int cli_start_failed(const struct err *e)
{
	static const struct {
		const char *words;
		int code;
	} rows[] = {
		{ "executable file not found", 127 }, { "no such file or directory", 127 },
		{ "permission denied", 126 },         { "exec format error", 126 },
	};
	/* The agent's words for a command it could not execute; a mount that is denied is none. */
	const char *exec = strstr(e->msg, "exec: \"");

	if (!exec)
		exec = strstr(e->msg, "exec /");
	cli_fail(e);
	for (unsigned i = 0; exec && i < ARRAY_LEN(rows); i++)
		if (strstr(exec, rows[i].words))
			return rows[i].code;
	return CLI_FAILED;
}

int cli_open_kvm(struct err *e)
{
	return geteuid() != 0 ? err_set(e, -EPERM, CLI_NEED_ROOT) : hv_open_kvm(e);
}

int cli_check_env(const struct opt_list *own, const char *cwd, struct err *e)
{
	for (unsigned i = 0; i < own->n; i++)
		if (!strchr(own->item[i], '=') || own->item[i][0] == '=')
			return err_set(e, -EINVAL, "--env %s: must be NAME=VALUE", own->item[i]);
	if (cwd && cwd[0] != '/')
		return err_set(e, -EINVAL, "--cwd %s: must be absolute", cwd);
	return 0;
}

/* Does anything in list from `first` on name the same variable? */
static bool cli_env_has(const struct opt_list *list, unsigned first, const char *var)
{
	size_t n = strcspn(var, "=");

	for (unsigned i = first; i < list->n; i++)
		if (!strncmp(list->item[i], var, n) && list->item[i][n] == '=')
			return true;
	return false;
}

void cli_env(const struct opt_list *own, bool terminal, char *out[CLI_ENV_MAX])
{
	static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	static char term[] = "TERM=xterm";
	unsigned n = 0;

	if (!cli_env_has(own, 0, path))
		out[n++] = path;
	if (terminal && !cli_env_has(own, 0, term))
		out[n++] = term;
	for (unsigned i = 0; i < own->n; i++)
		if (!cli_env_has(own, i + 1, own->item[i]))
			out[n++] = own->item[i];
	out[n] = NULL;
}
