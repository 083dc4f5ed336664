# clone.sh - templates, and machines made from them.

# Is what ran in the last sp, with --json-times, a clone?
was_clone() { err_has '{"clone":true,'; }
was_boot() { err_has '{"clone":false,'; }

clone_words() {
	sp factory status
	status 0
	out "vm factory is on"
	sp factory init
	status 0
	out "vm factory initialized"
	err ""
	sp factory destroy
	status 0
	out "vm factory destroyed"
	that [ ! -e $TEMPLATE ]
	sp factory status
	status 0
	out "vm factory is off"
	sp factory status --json
	out '{"on":false,"templates":[]}'
	sp factory destroy
	status 0
	out "vm factory destroyed"
	err ""
	sp factory init --json
	status 0
	out '{"initialized":true,"made":true}'
	sp factory init --json
	status 0
	out '{"initialized":true,"made":false}'
	sp factory status --json
	status 0
	that grep -qE '^\{"on":true,"templates":\[\{"fingerprint":"[0-9a-f]{64}","memory_mib":128,"held_bytes":[0-9]{8},"created_ns":[0-9]{19}\}\]\}$' out
	that [ "$(stat -c '%a %U' $TEMPLATE)" = "700 root" ]
	that [ "$(grep -c $TEMPLATE /proc/mounts)" = 1 ]
}
t "factory init, status and destroy say Kata's words, and twice is as good as once" clone_words

clone_disabled() {
	printf '[factory]\nenable_template = false\n' >off.toml
	sp factory init --config off.toml
	status 0
	out "vm factory is not enabled: factory.enable_template is false"
	sp factory status --config off.toml
	status 0
	out "vm factory not enabled"
	sp run --json-times --config off.toml --block "$IMG" --read-only -- /bin/echo booted
	status 0
	out booted
	one_line_err
	was_boot
}
t "with enable_template = false no template is made or used" clone_disabled

clone_runs() {
	in_clone /bin/echo hello
	status 0
	out hello
	err ""
	sp run --json-times --block "$IMG" --read-only -- /bin/true
	status 0
	was_clone
	one_line_err
	is "$(tr ',{}' '\n' <err | grep _us | tr -d '"' | cut -d: -f2)" \
		"$(tr ',{}' '\n' <err | grep _us | tr -d '"' | cut -d: -f2 | sort -n)" "times in order"
}
t "with a template a container runs in a clone" clone_runs

clone_two_inits() {
	local a b
	sp factory destroy
	"$SPORE" factory init --json >one 2>&1 &
	a=$!
	"$SPORE" factory init --json >two 2>&1 &
	b=$!
	that wait $a
	that wait $b
	is "$(sort one two)" "$(printf '{"initialized":true,"made":false}\n{"initialized":true,"made":true}')" output
}
t "of two factory inits at once one builds and the other waits for it" clone_two_inits

# Stop a factory init in the middle: $builder and $vmm are its processes, $1 tells which to stop too.
hold_build() {
	sp factory destroy
	"$SPORE" factory init >out 2>err &
	builder=$!
	until [ -n "$(echo $TEMPLATE/.build-*/memory)" ] && [ -e $TEMPLATE/.build-*/memory ]; do :; done
	kill -STOP $builder
	read -r vmm </proc/$builder/task/$builder/children
	kill -STOP $vmm
	that [ -n "$(building)" ]
	differ "$vmm" "" "the builder's machine process"
}
go_on() {
	kill -CONT $vmm $builder
	wait $builder
	rc=$?
}
building() { ls -d $TEMPLATE/.build-* 2>/dev/null; }

clone_killed_init() {
	hold_build
	kill -KILL $builder
	kill -CONT $vmm
	await gone "$vmm"
	sp factory status
	out "vm factory is off"
	sp factory init
	status 0
	out "vm factory initialized"
	is "$(building)" "" "still there"
	sp run --json-times --block "$IMG" --read-only -- /bin/echo works
	status 0
	out works
	was_clone
}
t "after an init that was killed half way init works and nothing of the first is left" clone_killed_init

clone_killed_build_vmm() {
	hold_build
	kill -KILL $vmm
	go_on
	refused "factory init: machine process killed by signal 9"
	is "$(building)" "" "still there"
	sp factory status
	out "vm factory is off"
	sp factory init
	status 0
}
t "an init whose machine is killed says so and leaves nothing" clone_killed_build_vmm

clone_full() {
	local mib
	hold_build
	for mib in 1 2 3 4 6 8 10 12 14 16; do
		mount -o remount,size=${mib}M $TEMPLATE 2>/dev/null && break
	done
	go_on
	refused "factory init: $TEMPLATE is full; free memory, or remove old templates with: spore factory destroy"
	is "$(building)" "" "still there"
	sp factory init
	status 0
	in_clone /bin/echo fine
	out fine
}
t "a template directory that runs full is reported as that, and init works once there is room" clone_full

# The template, to compare with later.
keep_template() { cp --sparse=always "$(memory_file)" kept.memory && cp "$(state_file)" kept.state; }
template_as_kept() {
	that cmp "$(memory_file)" kept.memory
	that cmp "$(state_file)" kept.state
}

clone_twenty() {
	local i
	keep_template
	for i in $(seq 20); do
		"$SPORE" run --name clone-$i --block "$IMG" --read-only -- /bin/sh -c "echo $i; hostname" >out.$i 2>err.$i &
	done
	for i in $(seq 20); do
		wait -n || fail "one of the 20 failed: $(cat err.* | head -n 5)"
	done
	for i in $(seq 20); do
		is "$(cat out.$i)" "$(printf '%s\nclone-%s' $i $i)" "output of clone $i"
		is "$(cat err.$i)" "" "stderr of clone $i"
	done
	template_as_kept
}
t "20 clones at once each run and the template stays as it was" clone_twenty

clone_private() {
	keep_template
	in_clone /bin/probe eat 32
	status 0
	out "ate 32 MiB"
	template_as_kept
}
t "what a clone writes to its memory does not reach the template" clone_private

# One line a thing that must be different in every machine.
clone_unique() {
	local dir i
	# The guest's own: a source that is not below /proc would be the host's.
	mounts='{"destination": "/tmp/id", "type": "bind", "source": "/proc/self/root/etc/machine-id", "options": ["bind", "ro"]}'
	dir=$(bundle unique 'head -c 16 /dev/urandom | od -An -tx1; head -c 16 /dev/random | od -An -tx1; probe getrandom
		cat /tmp/id /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid')
	for i in 1 2 3; do
		sp run --json-times --bundle "$dir"
		status 0
		was_clone
		is "$(wc -l <out)" 6 "lines of output"
		that grep -qE '^[0-9a-f]{32}$' out
		mv out "seen.$i"
	done
	is "$(cat seen.* | sort | uniq -d)" "" "seen twice"
	in_clone /bin/hostname
	mv out name.1
	in_clone /bin/hostname
	differ "$(cat name.1)" "$(cat out)" "host names"
}
t "clones differ in random numbers, machine id, boot id and host name" clone_unique

# The guest's clock in ms lies between the host's before and after, give or take a second.
clock_agrees() {
	local before guest after
	before=$(date +%s)
	in_clone /bin/date +%s
	after=$(date +%s)
	status 0
	guest=$(cat out)
	[ "$guest" -ge $((before - 1)) ] && [ "$guest" -le $((after + 1)) ] ||
		fail "clock: $before on the host, $guest in the clone, then $after"
}
clone_clock() {
	clock_agrees
	date -s "+1 hour" >/dev/null
	(clock_agrees) || fail
	date -s "-3 hours" >/dev/null
	(clock_agrees) || fail
	date -s "+2 hours" >/dev/null
}
t "a clone's clock is right although its template is an hour older, or from the future" clone_clock

clone_cpus() {
	local n
	for n in 2 4; do
		sp run --json-times --cpus $n --block "$IMG" --read-only -- \
			/bin/sh -c 'nproc; for c in $(seq 0 $(($(nproc) - 1))); do taskset -c $c sh -c "echo ran on $c"; done'
		status 0
		out "$n
$(seq -f 'ran on %g' 0 $((n - 1)))"
		was_clone
		one_line_err
	done
}
t "clones have 2 and 4 CPUs that work" clone_cpus

# --- no template that fits -------------------------------------------------------------------------------

not_used() { # REASON
	is "$(wc -l <err)" 2 "lines on stderr (one more for the times)"
	that grep -q '^time="[^"]*" level=warning msg="template not used, booting instead" reason=' err
	err_has "$1"
	was_boot
}
other_shape() { # ARGS
	sp run --json-times "$@" --block "$IMG" --read-only -- /bin/echo ran
	status 0
	out ran
	not_used "no template for this build, CPU and machine shape; make one with: spore factory init"
}
clone_other_shape() {
	printf '[hypervisor.spore]\nkernel_params = "quiet"\n' >quiet.toml
	other_shape --config quiet.toml
	other_shape --memory 160
	other_shape --cpus 16
	sp run --json-times --no-template --block "$IMG" --read-only -- /bin/true
	one_line_err
	was_boot
}
t "other kernel parameters, memory or CPUs than the template's: a boot and one line of log" clone_other_shape

clone_two_templates() {
	printf '[hypervisor.spore]\ndefault_memory = 96\n' >small.toml
	sp factory init --config small.toml
	status 0
	is "$(ls $TEMPLATE | wc -l)" 2 templates
	sp run --json-times --config small.toml --block "$IMG" --read-only -- /bin/grep MemTotal /proc/meminfo
	status 0
	was_clone
	that [ "$(awk '{ print $2 }' out)" -lt 98304 ]
	in_clone /bin/grep MemTotal /proc/meminfo
	that [ "$(awk '{ print $2 }' out)" -gt 98304 ]
	sp factory destroy
	sp factory init
}
t "templates of two shapes live side by side" clone_two_templates

clone_none() {
	sp factory destroy
	sp run --json-times --block "$IMG" --read-only -- /bin/echo ran
	status 0
	out ran
	one_line_err
	was_boot
	sp factory init
}
t "without any template a container is booted and nothing is said" clone_none

# damaged COMMAND REASON: the command spoils the template; a run boots and says why.
damaged() {
	cp -a $TEMPLATE/* saved
	eval "$1" || fail "could not: $1"
	sp run --json-times --block "$IMG" --read-only -- /bin/echo ran
	status 0
	out ran
	not_used "$2"
	rm -rf $TEMPLATE/*
	cp -a saved "$TEMPLATE/$HASH"
	rm -rf saved
}
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; } # FILE OFFSET BYTES
clone_damaged() {
	HASH=$(basename $TEMPLATE/*)
	bytes=$(stat -c %s "$(state_file)")
	damaged 'rm "$(memory_file)"' 'template is incomplete: memory is missing; make it anew with: spore factory init'
	damaged 'rm "$(state_file)"' 'template is incomplete: state is missing; make it anew with: spore factory init'
	damaged 'truncate -s 1000 "$(state_file)"' "state file: 1000 bytes long, header says $bytes: truncated?"
	damaged ': >"$(state_file)"' "state file: 0 bytes"
	damaged 'poke "$(state_file)" 3000 "\\xaa\\x55\\xaa"' "state file: checksum does not match: damaged"
	damaged 'poke "$(state_file)" 8 "\\x63"' "state file: format 99, this spore reads "
	damaged 'poke "$(state_file)" 12 "\\xb7"' "state file: made for another architecture (183)"
	damaged 'poke "$(state_file)" 0 X' "state file: not a spore snapshot"
	damaged 'truncate -s 64M "$(memory_file)"' "memory file"
	damaged ': >"$(memory_file)"' "memory file"
	sp run --json-times --block "$IMG" --read-only -- /bin/true
	was_clone
}
t "a damaged, truncated or foreign template is refused with the reason and a machine booted instead" clone_damaged

clone_foreign() {
	local mine
	mine=$(basename $TEMPLATE/*)
	mkdir kept
	mv "$TEMPLATE/$mine" kept/
	printf '[hypervisor.spore]\nkernel_params = "quiet"\n' >quiet.toml
	sp factory init --config quiet.toml
	status 0
	mv $TEMPLATE/* "$TEMPLATE/$mine"
	sp run --json-times --block "$IMG" --read-only -- /bin/echo ran
	status 0
	out ran
	not_used "state file: made by another build, kernel or CPU"
	sp factory destroy
	sp factory init
}
t "a template under a name that is not its own is refused" clone_foreign

clone_mended() {
	rm "$(memory_file)"
	sp factory init --json
	status 0
	out '{"initialized":true,"made":true}'
	sp run --json-times --block "$IMG" --read-only -- /bin/true
	status 0
	was_clone
}
t "factory init makes an incomplete template anew" clone_mended

clone_destroyed_under() {
	detached survivor /bin/sh -c 'trap "probe eat 32; exit 7" TERM; echo up; while :; do sleep 0.1; done'
	await file_has /run/spore/sandboxes/survivor/output.log up
	sp factory destroy
	status 0
	sp kill survivor TERM
	status 0
	await file_has /run/spore/sandboxes/survivor/output.log "ate 32 MiB"
	await stopped survivor
	that grep -q '"exit_code": 7' /run/spore/sandboxes/survivor/state.json
	sp rm survivor
	status 0
	sp factory init
}
stopped() { file_has "/run/spore/sandboxes/$1/state.json" '"status": "stopped"'; }
t "factory destroy does not touch the clones that run" clone_destroyed_under
