# errors.sh - what people get wrong: one line that names the thing and the next step, status 125, and
# nothing left behind.

run_ro() { sp run --read-only "$@" -- /bin/true; }
MAKE='mke2fs -t ext4 -d DIRECTORY'

bad_block() {
	local word="give an image file or a block device"
	run_ro --block "$WORK/nothing"
	refused "--block $WORK/nothing: No such file or directory; $word"
	sp run --block "$WORK/nothing" -- /bin/true
	refused "--block $WORK/nothing: No such file or directory; $word"
	sp run --block /etc -- /bin/true
	refused "--block /etc: Is a directory; $word"
	run_ro --block /etc
	refused "--block /etc: neither a file nor a block device; give one of them"
	run_ro --block /dev/null
	refused "--block /dev/null: neither a file nor a block device; give one of them"
	mkfifo pipe.img
	run_ro --block "$WORK/pipe.img"
	refused "--block $WORK/pipe.img: neither a file nor a block device; give one of them"
	: >empty.img
	run_ro --block "$WORK/empty.img"
	refused "--block $WORK/empty.img: empty file; make an image with: $MAKE IMAGE SIZE"
	head -c 100000 /dev/urandom >noise.img
	run_ro --block "$WORK/noise.img"
	refused "--block $WORK/noise.img: no ext4 or erofs filesystem in it; make one with: $MAKE IMAGE SIZE"
	head -c 700 "$IMG" >short.img
	run_ro --block "$WORK/short.img"
	refused "--block $WORK/short.img: no ext4 or erofs filesystem in it; make one with: $MAKE IMAGE SIZE"
}
t "a block file that is absent, a directory, a device that stores nothing, empty or noise is refused" bad_block

# The guest finds these: the message comes from its kernel.
bad_filesystem() {
	head -c 65536 "$IMG" >cut.img
	run_ro --block "$WORK/cut.img"
	status 125
	one_line_err
	err_has mount
	cp "$IMG" torn.img
	head -c 2048 /dev/urandom | dd of=torn.img bs=1 seek=1024 conv=notrunc status=none
	poke torn.img 1080 '\x53\xef'
	run_ro --block "$WORK/torn.img"
	status 125
	one_line_err
	err_has mount
}
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
t "a filesystem that the guest cannot mount is refused in one line" bad_filesystem

as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups "$SPORE" "$@" >out 2>err </dev/null; rc=$?; }
bad_permission() {
	chmod 755 "$WORK"
	as_nobody run --block "$IMG" --read-only -- /bin/true
	refused "must be root to deal with sandboxes; try: sudo spore ..."
	as_nobody factory init
	refused "must be root to deal with sandboxes; try: sudo spore ..."
	detached bg /bin/sleep 1000
	as_nobody exec bg -- /bin/true
	refused "must be root to deal with sandboxes; try: sudo spore ..."
	as_nobody kill bg
	refused "must be root to deal with sandboxes; try: sudo spore ..."
	as_nobody rm --force bg
	refused "must be root to deal with sandboxes; try: sudo spore ..."
	as_nobody ps
	refused "must be root to deal with sandboxes; try: sudo spore ..."
	sp exec bg -- /bin/echo untouched
	out untouched
	sp rm --force bg
}
t "who is not root is told so, and can do nothing to the sandboxes of root" bad_permission

bad_kvm() {
	local absent="/dev/kvm: not there; load the kvm_intel or kvm_amd module, or enable virtualization (in a VM: nested virtualization)"
	mv /dev/kvm /dev/kvm.away
	run_ro --block "$IMG"
	refused "$absent"
	sp factory init
	refused "$absent"
	sp check
	status 1
	out "this host cannot run spore's micro-VMs: $absent"
	err ""
	ln -s /dev/null /dev/kvm
	run_ro --block "$IMG"
	refused "/dev/kvm: not KVM's device; load the kvm_intel or kvm_amd module"
	rm /dev/kvm
	mv /dev/kvm.away /dev/kvm
	sp check
	status 0
}
t "without /dev/kvm, or with something else there, it says what to do" bad_kvm

bad_memory() {
	local cg=/sys/fs/cgroup/small
	(ulimit -v 100000; sp run --no-template --memory 256 --block "$IMG" --read-only -- /bin/true; refused "map 256 MiB of guest memory: Out of memory") || fail
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control
	mkdir $cg
	echo 60M >$cg/memory.max
	(sh -c "echo \$\$ >$cg/cgroup.procs; exec $SPORE run --block $IMG --read-only -- /bin/probe eat 90" >out 2>err)
	rc=$?
	rmdir $cg
	status 137
	out ""
	err "spore: machine process killed by signal 9"
}
t "too little memory on the host: refused at the start, 137 later" bad_memory

bad_name() {
	local long name
	long=$(printf 'x%.0s' $(seq 65))
	for name in "" . .. a/b -a _a "a b" "$long"; do
		run_ro --block "$IMG" "--name=$name"
		refused "name \"$name\": use 1 to 64 letters, digits, '_', '.', '-', starting with a letter or digit"
	done
	run_ro --block "$IMG" --name "${long#x}"
	status 0
}
t "a name that cannot be one is refused" bad_name

bad_options() {
	run_ro --frobnicate
	refused "unknown option --frobnicate; see --help"
	run_ro -z
	refused "unknown option -z; see --help"
	run_ro --memory
	refused "--memory --: must be a number from 64 to 65536"
	run_ro --block "$IMG" --memory 32
	refused "--memory 32: must be a number from 64 to 65536"
	run_ro --block "$IMG" --cpus 0
	refused "--cpus 0: must be a number from 1 to 64"
	run_ro --block "$IMG" --cpus 1x
	refused "--cpus 1x: must be a number from 1 to 64"
	run_ro --block "$IMG" --detach=1
	refused "--detach takes no value"
	run_ro --block "$IMG" --env NOVALUE
	refused "--env NOVALUE: must be NAME=VALUE"
	run_ro --block "$IMG" --env =x
	refused "--env =x: must be NAME=VALUE"
	run_ro --block "$IMG" --cwd tmp
	refused "--cwd tmp: must be absolute"
	sp run --block "$IMG" --read-only --name
	refused "--name needs a value: ID"
	sp run --block "$IMG" --read-only
	refused "run: no command; put it after --"
	sp run -- /bin/true
	refused "run: no root filesystem; give --rootfs DIR, --block FILE or --bundle DIR"
}
t "options that make no sense are refused" bad_options

bad_commands() {
	sp frobnicate
	refused 'unknown command "frobnicate"; see: spore help'
	sp factory frobnicate
	refused 'factory: unknown command "frobnicate"; use init, status or destroy'
	sp factory init now
	refused "factory init: unexpected argument now"
	sp kill
	refused "usage: spore kill NAME [SIGNAL]"
	sp ps me
	refused "usage: spore ps [--json]"
	sp
	status 125
	out ""
	err_has "usage: spore COMMAND [options]"
}
t "commands that do not exist are refused" bad_commands

helps() {
	local c
	sp help
	status 0
	err ""
	out_has "usage: spore COMMAND [options]"
	for c in run factory exec ps kill logs pause resume rm check; do
		out_has "  $c "
	done
	for c in run factory exec ps kill logs pause resume rm check; do
		sp $c --help
		status 0
		err ""
		out_has "usage: spore $c"
		out_has "-h, --help"
		cp out told
		sp help $c
		status 0
		err ""
		that cmp -s out told
	done
	sp help frobnicate
	refused 'unknown command "frobnicate"; see: spore help'
}
t "each command has help on stdout, by either word" helps

with_config() { # TEXT
	printf "$1" >config.toml
	run_ro --block "$IMG" --config "$WORK/config.toml"
}
bad_config() {
	local f=$WORK/config.toml
	with_config '# a comment\n\n[hypervisor.spore]\ndefault_memry = 128\n'
	refused "$f: line 4: unknown key \"hypervisor.spore.default_memry\"; remove it or mend its spelling"
	with_config '[hypervisor.qemu]\n'
	refused "$f: line 1: unknown key \"hypervisor.qemu\"; remove it or mend its spelling"
	with_config '[hypervisor.spore]\ndefault_memory = 8\n'
	refused "$f: line 2: hypervisor.spore.default_memory: must be a whole number from 64 to 65536"
	with_config '[hypervisor.spore]\nkernel_params = 7\n'
	refused "$f: line 2: hypervisor.spore.kernel_params: must be a string"
	with_config '[factory]\nenable_template = yes\n'
	status 125
	one_line_err
	err_has "$f: line 2: "
	with_config '[factory\n'
	status 125
	one_line_err
	err_has "$f: line 1: "
	with_config '[factory]\nenable_template = true\nenable_template = true\n'
	status 125
	one_line_err
	err_has "$f: line 3: "
	run_ro --block "$IMG" --config "$WORK/nothing.toml"
	refused "$WORK/nothing.toml: No such file or directory"
	sp factory init --config "$WORK/nothing.toml"
	refused "$WORK/nothing.toml: No such file or directory"
	with_config '[hypervisor.spore]\ndefault_memory = 128\n'
	status 0
}
t "a configuration with an unknown key, a wrong value or no TOML is refused with its line" bad_config

bad_params() {
	with_config "[hypervisor.spore]\nkernel_params = \"$(head -c 5000 /dev/zero | tr '\0' x)\"\n"
	status 125
	one_line_err
	err_has "kernel_params: too long by "
}
t "kernel parameters that do not fit are refused" bad_params

with_spec() { # TEXT
	mkdir -p b
	printf '%s' "$1" >b/config.json
	sp run --bundle "$WORK/b"
}
bad_bundle() {
	local c=$WORK/b/config.json root
	sp run --bundle "$WORK/nothing"
	refused "--bundle: $WORK/nothing/config.json: No such file or directory"
	with_spec '{'
	status 125
	one_line_err
	err_has "$c: "
	with_spec ''
	status 125
	one_line_err
	err_has "$c: "
	with_spec '{"ociVersion":"1.0.2","root":{"path":"x"}}'
	refused "$c: process: missing"
	with_spec '{"ociVersion":"1.0.2","process":{"cwd":"/","args":["/bin/true"]}}'
	refused "$c: root: missing"
	with_spec '{"ociVersion":"1.0.2","process":{"cwd":"/","args":["/bin/true"]},"root":{"path":"absent"}}'
	refused "$c: linux: missing"
	with_spec '{"ociVersion":"1.0.2","process":{"cwd":"/","args":["/bin/true"]},"linux":{},"root":{"path":"absent"}}'
	refused "$c: root.path $WORK/b/absent: No such file or directory; give a directory or an image"
	mkdir b/rootfs
	with_spec '{"ociVersion":"1.0.2","process":{"cwd":"/","args":["/bin/true"]},"linux":{},"root":{"path":"rootfs"}}'
	status 127
	with_spec "{\"ociVersion\":\"1.0.2\",\"process\":{\"cwd\":\"/\",\"args\":[]},\"linux\":{},\"root\":{\"path\":\"$IMG\"}}"
	status 125
	one_line_err
	sp run --bundle "$WORK/b" -e A=1
	refused "run: with --bundle the command, its environment, directory and terminal are config.json's; change them there"
	with_spec "{\"ociVersion\":\"1.0.2\",\"process\":{\"cwd\":\"/\",\"args\":[\"/bin/true\"]},\"root\":{\"path\":\"$IMG\",\"readonly\":true},\"linux\":{},\"mounts\":[{\"destination\":\"/proc\",\"type\":\"nosuchfs\",\"source\":\"x\"}]}"
	status 125
	one_line_err
	err_has nosuchfs
}
t "a bundle that is absent, no JSON or lacks something is refused" bad_bundle

full_run() {
	mkdir -p /run/spore/sandboxes
	mount -t tmpfs -o size=4k,nr_inodes=3 tmpfs /run/spore/sandboxes
	sp run --name full --block "$IMG" --read-only -- /bin/true
	is "$(ls -A /run/spore/sandboxes)" "" "left in the directory"
	umount /run/spore/sandboxes
	status 125
	one_line_err
	err_has "No space left on device"
	err_has "/run/spore/sandboxes/full"
}
t "no room for a sandbox's own files is reported" full_run

# The same file without its kernel: the packed one stands at a page's beginning and has a name.
no_kernel() {
	local at
	cp "$SPORE" bare
	at=$(LC_ALL=C grep -abo SPOREKRN bare | awk -F: '$1 % 4096 == 0 { print $1 }')
	differ "$at" "" "offset of the kernel"
	dd if=/dev/zero of=bare bs=1 seek="$at" count=64 conv=notrunc status=none
	"$WORK/bare" run --no-template --block "$IMG" --read-only -- /bin/true >out 2>err </dev/null
	rc=$?
	refused "this build has no guest kernel in it"
}
t "a build without a kernel says so" no_kernel
