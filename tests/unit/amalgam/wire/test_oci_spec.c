#include "amalgam/wire/oci_spec.h"

#include "amalgam/base/mem.h"
#include "tests/unit/test.h"

/* Texts here are JSON with ' for ", to be readable in C. */
static char *tspec_json(const char *text)
{
	char *json = test_guard_str(text);

	for (size_t i = 0; i < strlen(text); i++)
		if (json[i] == '\'')
			json[i] = '"';
	return json;
}

static Grpc__Spec *tspec_parse(const char *text, struct err *e)
{
	return oci_spec_parse(tspec_json(text), strlen(text), e);
}

static void tspec_free(Grpc__Spec **s)
{
	if (*s)
		grpc__spec__free_unpacked(*s, NULL);
}
#define AUTO_SPEC __attribute__((cleanup(tspec_free)))

TEST(oci_tables_name_fields_that_exist)
{
	for (size_t i = 0; i < ARRAY_LEN(oci_tables); i++)
		for (size_t k = 0; k < oci_tables[i].nrows; k++) {
			test_note("%s.%s", oci_tables[i].type->name, oci_tables[i].rows[k].field);
			CHECK(protobuf_c_message_descriptor_get_field_by_name(
				oci_tables[i].type, oci_tables[i].rows[k].field));
		}
}

TEST(oci_tables_cover_every_message_and_field_they_lead_to)
{
	for (size_t i = 0; i < ARRAY_LEN(oci_tables); i++)
		for (unsigned f = 0; f < oci_tables[i].type->n_fields; f++) {
			const ProtobufCFieldDescriptor *field = &oci_tables[i].type->fields[f];
			bool has_row = false, has_table = false;
			for (size_t k = 0; k < oci_tables[i].nrows; k++)
				has_row |= strcmp(oci_tables[i].rows[k].field, field->name) == 0;
			for (size_t k = 0; k < ARRAY_LEN(oci_tables); k++)
				has_table |= oci_tables[k].type == field->descriptor;
			test_note("%s.%s", oci_tables[i].type->name, field->name);
			/* the key of a named item */
			CHECK(has_row ||
			      strcmp(oci_tables[i].type->short_name, "LinuxTimeOffset") == 0);
			if (field->type == PROTOBUF_C_TYPE_MESSAGE && !oci_is_map(field))
				CHECK(has_table);
		}
}

static const char tspec_minimal[] =
	"{'ociVersion':'1.0.2','process':{'args':['sh'],'cwd':'/'},'root':{'path':'rootfs'}}";

TEST(oci_spec_needs_little)
{
	struct err e = { 0 };
	AUTO_SPEC Grpc__Spec *s = tspec_parse(tspec_minimal, &e);

	CHECK(s);
	CHECK_STR(s->version, "1.0.2");
	CHECK_EQ(s->process->n_args, 1);
	CHECK_STR(s->process->args[0], "sh");
	CHECK_STR(s->process->cwd, "/");
	CHECK_STR(s->root->path, "rootfs");
	CHECK_STR(s->hostname, "");
	CHECK(!s->linux && !s->hooks && !s->process->user);
	CHECK_EQ(s->process->umask_case, 0);
}

TEST(oci_spec_cut_at_any_byte_is_refused)
{
	struct err e;

	for (size_t n = 0; n < sizeof tspec_minimal - 1; n++) {
		test_note("%zu bytes", n);
		CHECK(!oci_spec_parse(test_guard(tspec_json(tspec_minimal), n), n, &e));
	}
}

static const char tspec_process[] =
	"{'ociVersion':'1.2.0','process':{"
	"'terminal':true,'consoleSize':{'height':24,'width':80},"
	"'user':{'uid':1000,'gid':100,'umask':18,'additionalGids':[5,6],'username':'me'},"
	"'args':['sleep','1'],'env':['PATH=/bin','A=\\u00e9'],'cwd':'/home',"
	"'capabilities':{'bounding':['CAP_KILL'],'effective':['CAP_KILL','CAP_CHOWN'],"
	"'inheritable':[],'permitted':null},"
	"'rlimits':[{'type':'RLIMIT_NOFILE','hard':18446744073709551615,'soft':1024}],"
	"'noNewPrivileges':true,'apparmorProfile':'p','oomScoreAdj':-998,'selinuxLabel':'l',"
	"'ioPriority':{'class':'IOPRIO_CLASS_IDLE','priority':3},"
	"'scheduler':{'policy':'SCHED_BATCH','nice':-5,'priority':1}},"
	"'root':{'path':'/r','readonly':true},'hostname':'h','domainname':'d',"
	"'mounts':[{'destination':'/proc','type':'proc','source':'proc',"
	"'options':['nosuid','ro']},{'destination':'/v','uidMappings':"
	"[{'containerID':0,'hostID':1000,'size':1}],'gidMappings':[]}],"
	"'hooks':{'createRuntime':[{'path':'/h','args':['h','x'],'env':['E=1'],"
	"'timeout':5}],'poststop':[{'path':'/p'}]},"
	"'annotations':{'a.b/c':'1','d':'','a.b/c':'2'}}";

TEST(oci_spec_reads_the_process)
{
	struct err e = { 0 };
	AUTO_SPEC Grpc__Spec *s = tspec_parse(tspec_process, &e);
	const Grpc__Process *p;

	CHECK_STR(e.msg, "");
	p = s->process;
	CHECK(p->terminal && p->nonewprivileges);
	CHECK_EQ(p->consolesize->height, 24);
	CHECK_EQ(p->consolesize->width, 80);
	CHECK_EQ(p->user->uid, 1000);
	CHECK_EQ(p->user->gid, 100);
	CHECK_EQ(p->user->n_additionalgids, 2);
	CHECK_EQ(p->user->additionalgids[1], 6);
	CHECK_STR(p->user->username, "me");
	CHECK_EQ(p->umask_case, GRPC__PROCESS__UMASK_UMASK);
	CHECK_EQ(p->umask, 022);
	CHECK_EQ(p->n_env, 2);
	CHECK_STR(p->env[1], "A=\xc3\xa9");
	CHECK_EQ(p->capabilities->n_effective, 2);
	CHECK_STR(p->capabilities->effective[1], "CAP_CHOWN");
	CHECK_EQ(p->capabilities->n_inheritable + p->capabilities->n_permitted, 0);
	CHECK_STR(p->rlimits[0]->type, "RLIMIT_NOFILE");
	CHECK(p->rlimits[0]->hard == UINT64_MAX && p->rlimits[0]->soft == 1024);
	CHECK_STR(p->apparmorprofile, "p");
	CHECK_STR(p->selinuxlabel, "l");
	CHECK_EQ(p->oomscoreadj, -998);
	CHECK_STR(p->iopriority->class_, "IOPRIO_CLASS_IDLE");
	CHECK_EQ(p->iopriority->priority, 3);
	CHECK_STR(p->scheduler->policy, "SCHED_BATCH");
	CHECK_EQ(p->scheduler->nice, -5);
}

TEST(oci_spec_reads_root_mounts_hooks_and_annotations)
{
	struct err e = { 0 };
	AUTO_SPEC Grpc__Spec *s = tspec_parse(tspec_process, &e);

	CHECK(s);
	CHECK(s->root->readonly);
	CHECK_STR(s->hostname, "h");
	CHECK_STR(s->domainname, "d");
	CHECK_EQ(s->n_mounts, 2);
	CHECK_STR(s->mounts[0]->options[1], "ro");
	CHECK_EQ(s->mounts[1]->uid_mappings[0]->hostid, 1000);
	CHECK_EQ(s->mounts[1]->n_gid_mappings, 0);
	CHECK_STR(s->hooks->createruntime[0]->args[1], "x");
	CHECK_EQ(s->hooks->createruntime[0]->timeout, 5);
	CHECK_STR(s->hooks->poststop[0]->path, "/p");
	CHECK_EQ(s->n_annotations, 2); /* the last of equal names */
	CHECK_STR(s->annotations[0]->key, "d");
	CHECK_STR(s->annotations[1]->key, "a.b/c");
	CHECK_STR(s->annotations[1]->value, "2");
}

static const char tspec_linux[] =
	"{'ociVersion':'1.2.0','linux':{"
	"'namespaces':[{'type':'pid'},{'type':'network','path':'/var/run/netns/x'}],"
	"'uidMappings':[{'containerID':1,'hostID':2,'size':3}],"
	"'timeOffsets':{'boottime':{'secs':-5,'nanosecs':7},'monotonic':{'secs':1}},"
	"'devices':[{'type':'c','path':'/dev/fuse','major':10,'minor':229,'fileMode':438,"
	"'uid':1,'gid':2},{'type':'p','path':'/dev/fifo'}],"
	"'cgroupsPath':'/a:b:c','rootfsPropagation':'rslave','mountLabel':'ml',"
	"'sysctl':{'net.core.somaxconn':'256'},'maskedPaths':['/proc/kcore'],"
	"'readonlyPaths':['/proc/sys','/proc/bus'],'intelRdt':{'l3CacheSchema':'L3:0=f'},"
	"'resources':{'devices':[{'allow':false,'access':'rwm'},{'allow':true,'type':'c',"
	"'major':1,'access':'r'}],"
	"'memory':{'limit':536870912,'swap':-1,'swappiness':60,'disableOOMKiller':true,"
	"'kernelTCP':5},"
	"'cpu':{'shares':1024,'quota':-1,'period':100000,'cpus':'0-1','mems':'0'},"
	"'pids':{'limit':100},"
	"'blockIO':{'weight':10,'weightDevice':[{'major':8,'minor':0,'weight':500}],"
	"'throttleReadBpsDevice':[{'major':8,'minor':1,'rate':600}]},"
	"'hugepageLimits':[{'pageSize':'2MB','limit':9223372036854771712}],"
	"'network':{'classID':1048577,'priorities':[{'name':'eth0','priority':5}]},"
	"'unified':{'memory.high':'1000','cpu.idle':null}},"
	"'seccomp':{'defaultAction':'SCMP_ACT_ERRNO','defaultErrnoRet':0,"
	"'architectures':['SCMP_ARCH_X86_64','SCMP_ARCH_X32'],"
	"'flags':['SECCOMP_FILTER_FLAG_LOG'],'syscalls':[{'names':['read','write'],"
	"'action':'SCMP_ACT_ALLOW'},{'names':['clone'],'action':'SCMP_ACT_ERRNO',"
	"'errnoRet':38,'args':[{'index':0,'value':2114060288,'valueTwo':1,"
	"'op':'SCMP_CMP_MASKED_EQ'}]}]}}}";

TEST(oci_spec_reads_namespaces_devices_and_paths)
{
	struct err e = { 0 };
	AUTO_SPEC Grpc__Spec *s = tspec_parse(tspec_linux, &e);
	const Grpc__Linux *l;

	CHECK_STR(e.msg, "");
	l = s->linux;
	CHECK_EQ(l->n_namespaces, 2);
	CHECK_STR(l->namespaces[0]->path, "");
	CHECK_STR(l->namespaces[1]->path, "/var/run/netns/x");
	CHECK_EQ(l->uidmappings[0]->containerid, 1);
	CHECK_EQ(l->uidmappings[0]->hostid, 2);
	CHECK_EQ(l->uidmappings[0]->size, 3);
	CHECK_EQ(l->n_timeoffsets, 2);
	CHECK_STR(l->timeoffsets[0]->clock, "boottime");
	CHECK_EQ(l->timeoffsets[0]->secs, -5);
	CHECK_EQ(l->timeoffsets[0]->nanosecs, 7);
	CHECK_EQ(l->devices[0]->minor, 229);
	CHECK_EQ(l->devices[0]->filemode, 0666);
	CHECK_EQ(l->devices[1]->major, 0);
	CHECK_STR(l->cgroupspath, "/a:b:c");
	CHECK_STR(l->rootfspropagation, "rslave");
	CHECK_STR(l->mountlabel, "ml");
	CHECK_STR(l->sysctl[0]->key, "net.core.somaxconn");
	CHECK_STR(l->sysctl[0]->value, "256");
	CHECK_STR(l->maskedpaths[0], "/proc/kcore");
	CHECK_EQ(l->n_readonlypaths, 2);
	CHECK_STR(l->intelrdt->l3cacheschema, "L3:0=f");
}

TEST(oci_spec_reads_resources)
{
	struct err e = { 0 };
	AUTO_SPEC Grpc__Spec *s = tspec_parse(tspec_linux, &e);
	const Grpc__LinuxResources *r;

	CHECK(s);
	r = s->linux->resources;
	CHECK_EQ(r->n_devices, 2);
	CHECK(!r->devices[0]->allow && r->devices[1]->allow);
	CHECK_EQ(r->devices[0]->major, -1);
	CHECK_STR(r->devices[0]->type, "");
	CHECK_EQ(r->devices[1]->major, 1);
	CHECK_EQ(r->devices[1]->minor, -1);
	CHECK_EQ(r->memory->limit, 536870912);
	CHECK_EQ(r->memory->swap, -1);
	CHECK_EQ(r->memory->swappiness, 60);
	CHECK_EQ(r->memory->kerneltcp, 5);
	CHECK(r->memory->disableoomkiller);
	CHECK_EQ(r->cpu->shares, 1024);
	CHECK_EQ(r->cpu->quota, -1);
	CHECK_STR(r->cpu->cpus, "0-1");
	CHECK_EQ(r->pids->limit, 100);
	CHECK_EQ(r->blockio->weightdevice[0]->weight, 500);
	CHECK_EQ(r->blockio->throttlereadbpsdevice[0]->rate, 600);
	CHECK_STR(r->hugepagelimits[0]->pagesize, "2MB");
	CHECK_EQ(r->hugepagelimits[0]->limit, 9223372036854771712);
	CHECK_EQ(r->network->classid, 0x100001);
	CHECK_STR(r->network->priorities[0]->name, "eth0");
	CHECK_EQ(r->n_unified, 1);
	CHECK_STR(r->unified[0]->value, "1000");
}

TEST(oci_spec_reads_seccomp)
{
	struct err e = { 0 };
	AUTO_SPEC Grpc__Spec *s = tspec_parse(tspec_linux, &e);
	const Grpc__LinuxSeccomp *c;

	CHECK(s);
	c = s->linux->seccomp;
	CHECK_STR(c->defaultaction, "SCMP_ACT_ERRNO");
	CHECK_EQ(c->default_errno_ret_case,
		 GRPC__LINUX_SECCOMP__DEFAULT_ERRNO_RET_DEFAULT_ERRNO_RET);
	CHECK_EQ(c->defaulterrnoret, 0);
	CHECK_EQ(c->n_architectures, 2);
	CHECK_STR(c->flags[0], "SECCOMP_FILTER_FLAG_LOG");
	CHECK_STR(c->syscalls[0]->names[1], "write");
	CHECK_EQ(c->syscalls[0]->errno_ret_case, 0);
	CHECK_EQ(c->syscalls[1]->errno_ret_case, GRPC__LINUX_SYSCALL__ERRNO_RET_ERRNO_RET);
	CHECK_EQ(c->syscalls[1]->errnoret, 38);
	CHECK_EQ(c->syscalls[1]->args[0]->value, 2114060288);
	CHECK_STR(c->syscalls[1]->args[0]->op, "SCMP_CMP_MASKED_EQ");
}

TEST(oci_spec_survives_the_wire)
{
	static const char *const texts[] = { tspec_minimal, tspec_process, tspec_linux };

	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct err e = { 0 };
		AUTO_SPEC Grpc__Spec *s = tspec_parse(texts[i], &e);
		size_t n = grpc__spec__get_packed_size(s);
		AUTO_FREE uint8_t *first = malloc(n), *second = malloc(n);
		CHECK_EQ(grpc__spec__pack(s, first), n);
		AUTO_SPEC Grpc__Spec *again = grpc__spec__unpack(NULL, n, first);
		CHECK(again);
		CHECK_EQ(grpc__spec__pack(again, second), n);
		CHECK_MEM(second, first, n);
	}
}

#define TSPEC_PROCESS(more) \
	"{'ociVersion':'1','process':{'args':['a'],'cwd':'/'," more "}}"
#define TSPEC_LINUX(members) "{'ociVersion':'1','linux':{" members "}}"

TEST(oci_spec_says_what_is_wrong)
{
	static const struct {
		const char *text, *error;
	} rows[] = {
		{ "[]", "must be an object" },
		{ "{}", "\"ociVersion\" is required" },
		{ "{'ociVersion':1}", "ociVersion: must be a string" },
		{ "{'ociVersion':'1','process':[]}", "process: must be an object" },
		{ "{'ociVersion':'1','process':{'cwd':'/'}}", "process: \"args\" is required" },
		{ "{'ociVersion':'1','process':{'cwd':'/','args':[]}}",
		  "process.args: must not be empty" },
		{ "{'ociVersion':'1','process':{'cwd':'/','args':'sh'}}",
		  "process.args: must be a list of strings" },
		{ "{'ociVersion':'1','process':{'cwd':'/','args':['a',null]}}",
		  "process.args[1]: must be a string" },
		{ "{'ociVersion':'1','process':{'args':['a']}}", "process: \"cwd\" is required" },
		{ "{'ociVersion':'1','process':{'args':['a'],'cwd':'tmp'}}",
		  "process.cwd: must be an absolute path" },
		{ "{'ociVersion':'1','process':{'args':['a'],'cwd':''}}",
		  "process.cwd: must be an absolute path" },
		{ TSPEC_PROCESS("'user':{'uid':-1}"),
		  "process.user.uid: must be a whole number from 0 to 4294967295" },
		{ TSPEC_PROCESS("'user':{'umask':'x'}"),
		  "process.user.umask: must be a whole number" },
		{ TSPEC_PROCESS("'terminal':1"), "process.terminal: must be true or false" },
		{ TSPEC_PROCESS("'rlimits':[{'type':'RLIMIT_X','soft':1,'hard':1}]"),
		  "process.rlimits[0].type: unknown value \"RLIMIT_X\"" },
		{ TSPEC_PROCESS("'rlimits':[{'type':'RLIMIT_AS','soft':1}]"),
		  "process.rlimits[0]: \"hard\" is required" },
		{ TSPEC_PROCESS("'rlimits':[{'type':'RLIMIT_AS','soft':1,'hard':1},"
				"{'type':'RLIMIT_AS','soft':1,'hard':1}]"),
		  "process.rlimits[1]: the second \"RLIMIT_AS\"" },
		{ "{'ociVersion':'1','root':{}}", "root: \"path\" is required" },
		{ "{'ociVersion':'1','mounts':[{'destination':'/a'},{'type':'proc'}]}",
		  "mounts[1]: \"destination\" is required" },
		{ "{'ociVersion':'1','mounts':[{'destination':'proc'}]}",
		  "mounts[0].destination: must be an absolute path" },
		{ "{'ociVersion':'1','mounts':{}}", "mounts: must be a list" },
		{ "{'ociVersion':'1','hooks':{'prestart':[{'path':'x'}]}}",
		  "hooks.prestart[0].path: must be an absolute path" },
		{ "{'ociVersion':'1','annotations':[]}", "annotations: must be an object" },
		{ "{'ociVersion':'1','annotations':{'a':1}}", "annotations.a: must be a string" },
		{ TSPEC_LINUX("'namespaces':[{'type':'cgroups'}]"),
		  "linux.namespaces[0].type: unknown value \"cgroups\"" },
		{ TSPEC_LINUX("'namespaces':[{'type':'pid'},{'type':'pid'}]"),
		  "linux.namespaces[1]: the second \"pid\"" },
		{ TSPEC_LINUX("'namespaces':[{'type':'pid','path':'x'}]"),
		  "linux.namespaces[0].path: must be an absolute path" },
		{ TSPEC_LINUX("'timeOffsets':{'realtime':{}}"),
		  "linux.timeOffsets.realtime: unknown value \"realtime\"" },
		{ TSPEC_LINUX("'devices':[{'type':'x','path':'/d'}]"),
		  "linux.devices[0].type: unknown value \"x\"" },
		{ TSPEC_LINUX("'devices':[{'type':'c','path':'/d','major':1}]"),
		  "linux.devices[0]: \"major\" and \"minor\" are required" },
		{ TSPEC_LINUX("'rootfsPropagation':'all'"),
		  "linux.rootfsPropagation: unknown value \"all\"" },
		{ TSPEC_LINUX("'maskedPaths':['proc']"),
		  "linux.maskedPaths[0]: must be an absolute path" },
		{ TSPEC_LINUX("'seccomp':{}"), "linux.seccomp: \"defaultAction\" is required" },
		{ TSPEC_LINUX("'seccomp':{'defaultAction':'ALLOW'}"),
		  "linux.seccomp.defaultAction: unknown value \"ALLOW\"" },
		{ TSPEC_LINUX("'seccomp':{'defaultAction':'SCMP_ACT_ALLOW',"
			      "'architectures':['SCMP_ARCH_VAX']}"),
		  "linux.seccomp.architectures[0]: unknown value \"SCMP_ARCH_VAX\"" },
		{ TSPEC_LINUX("'seccomp':{'defaultAction':'SCMP_ACT_ALLOW','syscalls':[{'names':[],"
			      "'action':'SCMP_ACT_LOG'}]}"),
		  "linux.seccomp.syscalls[0].names: must not be empty" },
		{ TSPEC_LINUX("'seccomp':{'defaultAction':'SCMP_ACT_ALLOW',"
			      "'syscalls':[{'names':['a'],'action':'SCMP_ACT_LOG',"
			      "'args':[{'index':0,'value':0,'op':'EQ'}]}]}"),
		  "linux.seccomp.syscalls[0].args[0].op: unknown value \"EQ\"" },
		{ TSPEC_LINUX("'resources':{'memory':{'limit':1.5}}"),
		  "linux.resources.memory.limit: must be a whole number" },
		{ TSPEC_LINUX("'resources':{'devices':[{'access':'r'}]}"),
		  "linux.resources.devices[0]: \"allow\" is required" },
		{ "{'ociVersion':'1'", "line 1: " },
	};

	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct err e = { 0 };
		test_note("%s", rows[i].text);
		CHECK(!tspec_parse(rows[i].text, &e));
		CHECK_EQ(e.code, -EINVAL);
		CHECK_HAS(e.msg, rows[i].error);
	}
}

TEST(oci_spec_ignores_members_it_does_not_know)
{
	struct err e = { 0 };
	AUTO_SPEC Grpc__Spec *s =
		tspec_parse("{'ociVersion':'9','vm':[1],'process':{'x':{},'args':['a'],'cwd':"
			    "'/','user':null},'linux':{'netDevices':{}},'solaris':{'a':1}}",
			    &e);

	CHECK_STR(e.msg, "");
	CHECK(s->linux && !s->process->user);
}

TEST(oci_spec_bounds_lists_and_maps)
{
	AUTO_BUF struct buf b = { 0 };
	struct err e = { 0 };

	buf_add_str(&b, "{'ociVersion':'1','annotations':{'a':''");
	for (int i = 0; i < OCI_SPEC_MAX_NAMES; i++)
		buf_printf(&b, ",'k%d':''", i);
	buf_add_str(&b, "}}");
	CHECK(!tspec_parse(buf_cstr(&b), &e));
	CHECK_STR(e.msg, "annotations: too many items");
	b.len = 0;
	buf_add_str(&b, "{'ociVersion':'1','mounts':[{}");
	for (int i = 0; i < OCI_SPEC_MAX_ITEMS; i++)
		buf_add_str(&b, ",{}");
	buf_add_str(&b, "]}");
	CHECK(!tspec_parse(buf_cstr(&b), &e));
	CHECK_STR(e.msg, "mounts: too many items");
	buf_reserve(&b, OCI_SPEC_MAX_BYTES);
	CHECK(!oci_spec_parse(b.data, OCI_SPEC_MAX_BYTES + 1, &e));
	CHECK_HAS(e.msg, "longer than");
}

TEST(oci_process_and_resources_are_read_alone)
{
	static const char process[] = "{'args':['id'],'cwd':'/','env':['A=1']}";
	static const char resources[] = "{'memory':{'limit':1000},'unified':{'x':'y'}}";
	struct err e = { 0 };
	Grpc__Process *p = oci_process_parse(tspec_json(process), sizeof process - 1, &e);
	Grpc__LinuxResources *r = oci_resources_parse(tspec_json(resources),
						      sizeof resources - 1, &e);

	CHECK_STR(p->args[0], "id");
	CHECK_EQ(r->memory->limit, 1000);
	CHECK_STR(r->unified[0]->key, "x");
	grpc__process__free_unpacked(p, NULL);
	grpc__linux_resources__free_unpacked(r, NULL);
	CHECK(!oci_process_parse("{}", 2, &e));
	CHECK_STR(e.msg, "\"cwd\" is required");
	CHECK(!oci_resources_parse("[]", 2, &e));
}
