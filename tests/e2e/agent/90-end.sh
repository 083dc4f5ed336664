# The end of the sandbox.

destroy() {
	ARGS='["sleep","1000"]' && spec x && c create x $WORK/x.json "storage=ephemeral|tmpfs|tmpfs|/run/kata-containers/sandbox/e|size=1m" && c start x
	ARGS='["sleep","1000"]' && spec y && c create y $WORK/y.json
	c destroy && status 0
	wait $AGENT_PID
	that [ $? = 0 ] && that test ! -d /sys/fs/cgroup/x && that sh -c '! grep -q kata-containers/sandbox /proc/mounts'
	umount /etc/resolv.conf 2>/dev/null
	start_agent && c sandbox sb "" && ARGS='["hostname"]' TOP=',"hostname":"from-spec"' && run && out from-spec
}
destroy_alone() { (AGENT_PID=$AGENT_PID destroy); }
t_end() {
	N=$((N + 1))
	why='' && reset && "$2" </dev/null
	if [ -z "$why" ]; then echo "ok $N - $1"; else echo "not ok $N - $1"; echo "# $why"; FAILED=$((FAILED + 1)); fi
}
t_end "DestroySandbox ends everything and then the agent; a new one takes the name from the container" destroy
stop_agent
