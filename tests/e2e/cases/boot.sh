# boot.sh - machines that are booted, not cloned.

boot() { sp run --no-template --block "$IMG" --read-only "$@"; }

boot_runs() {
	boot -- /bin/echo hello
	status 0
	out hello
	err ""
}
t "a booted machine runs a command and prints nothing else" boot_runs

boot_64() {
	boot --memory 64 -- /bin/sh -c 'grep MemTotal /proc/meminfo; probe eat 16'
	status 0
	out_has "ate 16 MiB"
	total=$(awk '/MemTotal/ { print $2 }' out)
	that [ "$total" -gt 40000 ]
	that [ "$total" -lt 65536 ]
}
t "64 MiB of memory are enough" boot_64

# The guest hands out high memory first, so 24 MiB in a tmpfs lie behind the hole at 3 GiB.
boot_hole() {
	local script='free() { awk "/zone +Normal/ { on = 1 } on && /nr_free_pages/ { print \$2; exit }" /proc/zoneinfo; }
		before=$(free)
		yes spore | head -c 25165824 >/tmp/data
		echo $((before - $(free) > 6000))
		md5sum </tmp/data
		grep MemTotal /proc/meminfo'
	sp run --no-template --memory 3584 --bundle "$(bundle hole "$script")"
	status 0
	out_has "$(yes spore | head -c 25165824 | md5sum)"
	is "$(head -n 1 out)" 1 "24 MiB went behind the hole"
	that [ "$(awk '/MemTotal/ { print $2 }' out)" -gt 3500000 ]
}
t "3584 MiB of memory reach past the hole at 3 GiB and hold what is written there" boot_hole

boot_64g() {
	boot --memory 65536 -- /bin/sh -c 'awk "/MemTotal/ { print (\$2 > 65000000) }" /proc/meminfo'
	status 0
	out 1
}
t "64 GiB of memory are there, on a host that has less" boot_64g

boot_cpus() {
	local n
	for n in 1 2 4; do
		boot --cpus $n -- /bin/sh -c 'nproc; for c in $(seq 0 $(($(nproc) - 1))); do
			taskset -c $c sh -c "echo ran on $c"; done'
		status 0
		out "$n
$(seq -f 'ran on %g' 0 $((n - 1)))"
		err ""
	done
}
t "1, 2 and 4 CPUs are there and each runs programs" boot_cpus

# That the console works at all is what kernel_params shows below.
boot_console() {
	sp run -d --name talk --no-template --cpus 2 --block "$IMG" --read-only -- /bin/sleep 1000
	status 0
	console_of talk >console
	[ -z "$(grep -v level=info console)" ] || fail "on the console: $(grep -v level=info console)"
	sp rm --force talk
	status 0
}
t "the guest's console has no warning" boot_console

# stage_values: the numbers of --json-times, in the order they are printed.
stages() { tr ',{}' '\n' <err | grep _us | tr -d '"'; }

boot_times() {
	boot --json-times -- /bin/echo hello
	status 0
	one_line_err
	err_has '{"clone":false,'
	is "$(stages | cut -d: -f1 | tr '\n' ' ')" \
		"vmm_ready_us state_loaded_us agent_answering_us container_started_us first_output_us exit_us " stages
	is "$(stages | cut -d: -f2)" "$(stages | cut -d: -f2 | sort -n)" "times in order"
	that [ "$(stages | head -n 1 | cut -d: -f2)" -gt 0 ]
}
t "--json-times has every stage, in order" boot_times

boot_params() {
	printf '[hypervisor.spore]\nkernel_params = "spore.mark=1 loglevel=7"\n' >config.toml
	sp run -d --name loud --no-template --config config.toml --block "$IMG" --read-only -- /bin/cat /proc/cmdline
	status 0
	await file_has /run/spore/sandboxes/loud/output.log "spore.mark=1 loglevel=7"
	that grep -q 'Linux version' /run/spore/sandboxes/loud/console.log
	that grep -q 'virtio-mmio: Registering device' /run/spore/sandboxes/loud/console.log
	await supervisor_gone loud
	sp rm loud
	status 0
}
supervisor_gone() { ! kill -0 "$(supervisor_of "$1")" 2>/dev/null; }
t "kernel_params of the configuration reach the guest's kernel" boot_params

boot_check() {
	sp check
	status 0
	out "this host can run spore's micro-VMs"
	sp check --json
	status 0
	out '{"usable":true,"reason":""}'
	sp version
	status 0
	that grep -qE '^spore [0-9]+\.[0-9]+\.[0-9]+$' out
}
t "check and version answer" boot_check
