/* config.h - the settings in force: built-in defaults, /etc/spore/configuration.toml, then the files
 * of /etc/spore/config.d in order of their names. Keys have Kata's names where they mean the same;
 * one table in config.c lists them all, with type, range and default. An unknown key is an error. */
#pragma once

#include "amalgam/base/err.h"

struct config {
	int64_t default_memory;    /* MiB */
	int64_t default_vcpus;
	int64_t default_maxvcpus;  /* 0 = as many as the host has, at least 8 */
	char *kernel_params;       /* heap */
	char *enable_annotations;  /* expressions, one a line, each with a newline; heap */
	bool enable_template;      /* use one when there is one */
	bool disable_new_netns;    /* containers have no network, whatever their specification says */
	char *internetworking_model; /* "tcfilter", "none"; heap */
	char *dan_conf;            /* directory of networks that are written down (resource/dan.h); heap */
	bool disable_vhost_net;    /* frames are moved by the machine process though the host's kernel could */
	int64_t rx_rate_limiter_max_rate; /* bits per second towards a guest, for each link; 0 = no limit */
	int64_t tx_rate_limiter_max_rate; /* and from it */
};

/* file NULL: the default places, each of which may be missing; a named file must exist.
 * -EINVAL: "<file>: line 12: ..." */
INTERNAL MUST_USE int config_load(struct config *c, const char *file, struct err *e);
/* The same from a text instead of files, as containerd hands it over. */
INTERNAL MUST_USE int config_parse(struct config *c, const void *text, size_t n, struct err *e);
/* One setting from an annotation: name is the last word of a key of [hypervisor.spore], and one of
 * enable_annotations (extended regular expressions, matching it from end to end) must allow it. -EPERM:
 * none does; -ENOENT: there is no such key; -EINVAL. */
INTERNAL MUST_USE int config_annotate(struct config *c, const char *name, const char *value,
				      struct err *e);
INTERNAL void config_fini(struct config *c);
