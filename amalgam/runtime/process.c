#include "amalgam/runtime/process.h"

#include "amalgam/base/mem.h"

#define PROCESS_OUTPUTS 6u /* bits of stdout and stderr */

bool process_has_output(const struct process *p)
{
	return p->open & PROCESS_OUTPUTS;
}

int process_connect(struct process *p, struct sandbox *s, uint64_t cookie,
		    const struct container_stdio *io, struct err *e)
{
	const struct {
		int in, out;
	} ends[PROCESS_STREAMS] = {
		{ io->in, -1 },
		{ -1, io->out },
		{ -1, io->terminal ? -1 : io->err },
	};

	p->sandbox = s;
	p->cookie = cookie;
	for (unsigned i = 0; i < PROCESS_STREAMS; i++) {
		if (ends[i].in < 0 && ends[i].out < 0)
			continue;
		if (hv_connect(&s->vm, AGENT_PORT_STREAM, ends[i].in, ends[i].out, false, cookie + i,
			       &p->ports[i], e) < 0) {
			process_hang_up(p);
			return err_wrap(e, "standard stream %u", i);
		}
		p->open |= 1u << i;
	}
	return 0;
}

void process_hang_up(struct process *p)
{
	for (unsigned i = 0; i < PROCESS_STREAMS; i++)
		if (p->open & 1u << i)
			hv_hang_up(&p->sandbox->vm, p->ports[i]);
	p->open = 0;
}

static void process_end(struct process *p, int code)
{
	if (p->exited)
		return;
	p->exited = true;
	p->lost = code < 0;
	p->code = code < 0 ? 137 : code;
	if (p->on_exit)
		p->on_exit(p);
}

/* What the agent answers to; outlives a process that is forgotten meanwhile. */
struct process_watch {
	struct process *p;
};

static void process_on_wait(void *arg, int code)
{
	struct process_watch *w = arg;
	struct process *p = w->p;

	free(w);
	if (p) {
		p->watch = NULL;
		process_end(p, code);
	}
}

void process_watch(struct process *p)
{
	p->watch = mem_zalloc(sizeof *p->watch);
	p->watch->p = p;
	agent_wait_process(&p->sandbox->agent, p->container, p->exec_id, process_on_wait, p->watch);
}

void process_forget(struct process *p)
{
	if (p->watch)
		p->watch->p = NULL;
	p->watch = NULL;
	process_hang_up(p);
	p->cookie = 0;
}

static void process_stream_over(struct process *p, unsigned streams)
{
	bool had = process_has_output(p);

	p->open &= ~streams;
	if (had && !process_has_output(p) && p->on_output_end)
		p->on_output_end(p);
}

bool process_on_stream(struct process *p, uint64_t cookie, enum hv_stream_event ev)
{
	if (!p->cookie || cookie < p->cookie || cookie >= p->cookie + PROCESS_STREAMS)
		return false;
	if (ev == HV_STREAM_CLOSED)
		process_stream_over(p, 1u << (cookie - p->cookie));
	return true;
}

void process_on_gone(struct process *p)
{
	process_stream_over(p, ~0u);
	if (p->cookie)
		process_end(p, -ECONNRESET);
}
