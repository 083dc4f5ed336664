# The end of the sandbox.

CHANGES=1
destroy() {
	ARGS='["sleep","1000"]' && spec x && c create x $WORK/x.json "storage=ephemeral|tmpfs|tmpfs|/run/kata-containers/sandbox/e|size=1m" && c start x
	ARGS='["sleep","1000"]' && spec y && c create y $WORK/y.json
	c destroy && status 0
	wait $AGENT_PID
	that [ $? = 0 ] && that test ! -d /sys/fs/cgroup/x && that sh -c '! grep -q kata-containers/sandbox /proc/mounts'
	start_agent
}
t "DestroySandbox ends everything, then the agent" destroy

name() { c sandbox sb "" && ARGS='["hostname"]' TOP=',"hostname":"from-spec"' && run && out from-spec; }
t "a sandbox without a name takes its first container's" name
stop_agent
