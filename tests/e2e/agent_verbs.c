/* agent_verbs.c - the less used verbs of agent_client.c, which includes this file: limits, files,
 * clocks, network. One per method, in no order. */

/* watch-log MS: what the log port has to say until it is silent that long */
static int client_watch_log(struct client *c)
{
	AUTO_FREE char *path = mem_printf("%s.1025", c->socket);
	int fd = client_socket(path);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char chunk[4096];
	ssize_t n;

	while (poll(&p, 1, atoi(client_arg(c, 0))) > 0 && (n = read(fd, chunk, sizeof chunk)) > 0)
		(void)!fd_write_full(1, chunk, (size_t)n);
	close(fd);
	return 0;
}

/* call METHOD: an empty request to any method; its answer must be an Empty */
static int client_call(struct client *c)
{
	Grpc__Empty req = GRPC__EMPTY__INIT;

	client_do(c, client_arg(c, 0), &req.base);
	return 0;
}

/* update ID RESOURCES */
static int client_update(struct client *c)
{
	Grpc__UpdateContainerRequest req = GRPC__UPDATE_CONTAINER_REQUEST__INIT;
	struct buf text = client_file(client_arg(c, 1));
	struct err e;

	req.container_id = client_arg(c, 0);
	req.resources = oci_resources_parse(text.data, text.len, &e);
	if (!req.resources)
		client_die(e.msg);
	client_do(c, "UpdateContainer", &req.base);
	return 0;
}

/* stats ID */
static int client_stats(struct client *c)
{
	Grpc__StatsContainerRequest req = GRPC__STATS_CONTAINER_REQUEST__INIT;
	const Grpc__CgroupStats *s;
	Grpc__StatsContainerResponse *m;

	req.container_id = client_arg(c, 0);
	m = (void *)client_try(c, CLIENT_AGENT, "StatsContainer", &req.base,
			       &grpc__stats_container_response__descriptor, CLIENT_TIMEOUT);
	s = m->cgroup_stats;
	printf("cpu %llu\nmemory %llu\nmemory_limit %llu\npids %llu\npids_limit %llu\nmaps %zu\n",
	       (unsigned long long)s->cpu_stats->cpu_usage->total_usage,
	       (unsigned long long)s->memory_stats->usage->usage,
	       (unsigned long long)s->memory_stats->usage->limit,
	       (unsigned long long)s->pids_stats->current, (unsigned long long)s->pids_stats->limit,
	       s->memory_stats->n_stats);
	for (size_t i = 0; i < m->n_network_stats; i++)
		printf("net %s\n", m->network_stats[i]->name);
	return 0;
}

static int client_pause(struct client *c)
{
	Grpc__PauseContainerRequest req = GRPC__PAUSE_CONTAINER_REQUEST__INIT;

	req.container_id = client_arg(c, 0);
	client_do(c, "PauseContainer", &req.base);
	return 0;
}

static int client_resume(struct client *c)
{
	Grpc__ResumeContainerRequest req = GRPC__RESUME_CONTAINER_REQUEST__INIT;

	req.container_id = client_arg(c, 0);
	client_do(c, "ResumeContainer", &req.base);
	return 0;
}

/* copy PATH MODE(octal) SIZE OFFSET DATA */
static int client_copy(struct client *c)
{
	Grpc__CopyFileRequest req = GRPC__COPY_FILE_REQUEST__INIT;

	req.path = client_arg(c, 0);
	req.file_mode = (uint32_t)strtoul(client_arg(c, 1), NULL, 8);
	req.file_size = atoll(client_arg(c, 2));
	req.offset = atoll(client_arg(c, 3));
	req.data.data = (uint8_t *)client_arg(c, 4);
	req.data.len = strlen(client_arg(c, 4));
	client_do(c, "CopyFile", &req.base);
	return 0;
}

/* reseed BYTES */
static int client_reseed(struct client *c)
{
	Grpc__ReseedRandomDevRequest req = GRPC__RESEED_RANDOM_DEV_REQUEST__INIT;
	static uint8_t bytes[65536];

	req.data.data = bytes;
	req.data.len = (size_t)atoi(client_arg(c, 0));
	client_do(c, "ReseedRandomDev", &req.base);
	return 0;
}

/* settime SEC USEC */
static int client_settime(struct client *c)
{
	Grpc__SetGuestDateTimeRequest req = GRPC__SET_GUEST_DATE_TIME_REQUEST__INIT;

	req.sec = atoll(client_arg(c, 0));
	req.usec = atoll(client_arg(c, 1));
	client_do(c, "SetGuestDateTime", &req.base);
	return 0;
}

/* online CPUS WAIT */
static int client_online(struct client *c)
{
	Grpc__OnlineCPUMemRequest req = GRPC__ONLINE_CPUMEM_REQUEST__INIT;

	req.nb_cpus = (uint32_t)atoi(client_arg(c, 0));
	req.wait = atoi(client_arg(c, 1));
	client_do(c, "OnlineCPUMem", &req.base);
	return 0;
}

static int client_metrics(struct client *c)
{
	Grpc__GetMetricsRequest req = GRPC__GET_METRICS_REQUEST__INIT;
	Grpc__Metrics *m = (void *)client_try(c, CLIENT_AGENT, "GetMetrics", &req.base,
					      &grpc__metrics__descriptor, CLIENT_TIMEOUT);

	fputs(m->metrics, stdout);
	return 0;
}

/* volume PATH */
static int client_volume(struct client *c)
{
	Grpc__VolumeStatsRequest req = GRPC__VOLUME_STATS_REQUEST__INIT;
	Grpc__VolumeStatsResponse *m;

	req.volume_guest_path = client_arg(c, 0);
	m = (void *)client_try(c, CLIENT_AGENT, "GetVolumeStats", &req.base,
			       &grpc__volume_stats_response__descriptor, CLIENT_TIMEOUT);
	for (size_t i = 0; i < m->n_usage; i++)
		printf("%d total %llu used %llu\n", m->usage[i]->unit,
		       (unsigned long long)m->usage[i]->total,
		       (unsigned long long)m->usage[i]->used);
	return 0;
}

/* resize-tmpfs PATH OPTION */
static int client_resize_tmpfs(struct client *c)
{
	Grpc__UpdateEphemeralMountsRequest req = GRPC__UPDATE_EPHEMERAL_MOUNTS_REQUEST__INIT;
	Grpc__Storage s = GRPC__STORAGE__INIT, *list[] = { &s };
	static char driver[] = "ephemeral";

	s.driver = driver;
	s.mount_point = client_arg(c, 0);
	s.options = c->argv + 1;
	s.n_options = (size_t)c->argc - 1;
	req.storages = list;
	req.n_storages = 1;
	client_do(c, "UpdateEphemeralMounts", &req.base);
	return 0;
}

/* log ID: the termination log */
static int client_log(struct client *c)
{
	Grpc__GetDiagnosticDataRequest req = GRPC__GET_DIAGNOSTIC_DATA_REQUEST__INIT;
	static char type[] = "termination_log";
	Grpc__GetDiagnosticDataResponse *m;

	req.log_type = type;
	req.container_id = client_arg(c, 0);
	m = (void *)client_try(c, CLIENT_AGENT, "GetDiagnosticData", &req.base,
			       &grpc__get_diagnostic_data_response__descriptor, CLIENT_TIMEOUT);
	fputs(m->data, stdout);
	return 0;
}

/* ---- Network */

static void client_print_interface(const Types__Interface *i)
{
	printf("%s %s mtu %llu", i->name, i->hwaddr, (unsigned long long)i->mtu);
	for (size_t k = 0; k < i->n_ipaddresses; k++)
		printf(" %s/%s", i->ipaddresses[k]->address, i->ipaddresses[k]->mask);
	printf("\n");
}

/* interface NAME MAC MTU [ADDRESS/PREFIX ...] */
static int client_interface(struct client *c)
{
	Grpc__UpdateInterfaceRequest req = GRPC__UPDATE_INTERFACE_REQUEST__INIT;
	Types__Interface i = TYPES__INTERFACE__INIT;
	Types__IPAddress ip[8], *ips[8];

	i.name = client_arg(c, 0);
	i.hwaddr = client_arg(c, 1);
	i.mtu = (uint64_t)atoll(client_arg(c, 2));
	i.ipaddresses = ips;
	for (int k = 3; k < c->argc && k < 11; k++) {
		char *mask = c->argv[k];
		ips[k - 3] = &ip[k - 3];
		types__ipaddress__init(&ip[k - 3]);
		ip[k - 3].address = strsep(&mask, "/");
		ip[k - 3].mask = mask;
		i.n_ipaddresses++;
	}
	req.interface = &i;
	client_print_interface((void *)client_try(c, CLIENT_AGENT, "UpdateInterface", &req.base,
						  &types__interface__descriptor, CLIENT_TIMEOUT));
	return 0;
}

static int client_interfaces(struct client *c)
{
	Grpc__ListInterfacesRequest req = GRPC__LIST_INTERFACES_REQUEST__INIT;
	Grpc__Interfaces *m = (void *)client_try(c, CLIENT_AGENT, "ListInterfaces", &req.base,
						 &grpc__interfaces__descriptor, CLIENT_TIMEOUT);

	for (size_t i = 0; i < m->n_interfaces; i++)
		client_print_interface(m->interfaces[i]);
	return 0;
}

static void client_print_routes(const Grpc__Routes *m)
{
	for (size_t i = 0; i < m->n_routes; i++)
		printf("%s via %s dev %s src %s mtu %u\n",
		       *m->routes[i]->dest ? m->routes[i]->dest : "default", m->routes[i]->gateway,
		       m->routes[i]->device, m->routes[i]->source, m->routes[i]->mtu);
}

/* routes [DEST|GATEWAY|DEVICE|SOURCE|MTU ...] */
static int client_routes(struct client *c)
{
	Grpc__UpdateRoutesRequest req = GRPC__UPDATE_ROUTES_REQUEST__INIT;
	Grpc__Routes routes = GRPC__ROUTES__INIT;
	Types__Route r[8], *list[8];

	routes.routes = list;
	for (int k = 0; k < c->argc && k < 8; k++) {
		char *v = c->argv[k];
		list[k] = &r[k];
		types__route__init(&r[k]);
		r[k].dest = strsep(&v, "|");
		r[k].gateway = strsep(&v, "|");
		r[k].device = strsep(&v, "|");
		r[k].source = strsep(&v, "|");
		r[k].mtu = (uint32_t)atoi(strsep(&v, "|"));
		routes.n_routes++;
	}
	req.routes = &routes;
	client_print_routes((void *)client_try(c, CLIENT_AGENT, "UpdateRoutes", &req.base,
					       &grpc__routes__descriptor, CLIENT_TIMEOUT));
	return 0;
}

static int client_list_routes(struct client *c)
{
	Grpc__ListRoutesRequest req = GRPC__LIST_ROUTES_REQUEST__INIT;

	client_print_routes((void *)client_try(c, CLIENT_AGENT, "ListRoutes", &req.base,
					       &grpc__routes__descriptor, CLIENT_TIMEOUT));
	return 0;
}

/* neighbor ADDRESS DEVICE MAC */
static int client_neighbor(struct client *c)
{
	Grpc__AddARPNeighborsRequest req = GRPC__ADD_ARPNEIGHBORS_REQUEST__INIT;
	Grpc__ARPNeighbors list = GRPC__ARPNEIGHBORS__INIT;
	Types__ARPNeighbor n = TYPES__ARPNEIGHBOR__INIT, *ns[] = { &n };
	Types__IPAddress ip = TYPES__IPADDRESS__INIT;

	ip.address = client_arg(c, 0);
	n.toipaddress = &ip;
	n.device = client_arg(c, 1);
	n.lladdr = client_arg(c, 2);
	list.arpneighbors = ns;
	list.n_arpneighbors = 1;
	req.neighbors = &list;
	client_do(c, "AddARPNeighbors", &req.base);
	return 0;
}
