#!/bin/bash
# inside.sh times N | memory - runs in the rig; prints "NAME VALUE" lines, one per sample.
#
#   times    clone, our cold boot and QEMU microvm's, N rounds of all after one that is thrown away;
#            in the deterministic rig a microsecond is a thousand instructions
#   memory   what a clone with a container in it takes, and the template
set -euo pipefail
cd "$(dirname "$0")/../.."

READY='agent ready' # the guest agent's first line on the serial console
SANDBOXES=/run/spore/sandboxes
work=/tmp/bench
mkdir -p $work $SANDBOXES
cp build/spore build/initramfs.cpio build/e2e/busybox.ext4 build/bench/{until,clone_host} \
	"$(cat build/kernel.from)/vmlinux" $work
cd $work

sample() { echo "$1 $2"; }

# --- times ---------------------------------------------------------------------------------------

# QEMU with all it opens in memory, like our one file: a root of its own. In the deterministic rig time
# rushes ahead whenever everybody waits, be it for a byte of the host's file system.
prepare_qemu() {
	local qemu root=$work/qemu
	qemu=$(command -v qemu-system-x86_64)
	mkdir -p $root/{dev,proc,sys,tmp,etc}
	ldd "$qemu" | grep -o '/[^ ]*' | xargs cp -L --parents -t $root
	cp "$qemu" $root/qemu
	cp $work/{until,initramfs.cpio,vmlinux,busybox.ext4} $root
	for f in /usr/share/qemu /usr/share/seabios; do
		[ ! -e $f/qboot.rom ] || cp -L $f/qboot.rom $root
		[ ! -e $f/bios-microvm.bin ] || cp -L $f/bios-microvm.bin $root
	done
	modprobe vhost_vsock
	for f in dev proc sys; do
		mount --rbind /$f $root/$f
	done
}

# The leanest machine QEMU has, with the devices and the kernel parameters ours has.
qemu_microvm() {
	chroot $work/qemu /until "$READY" -- /qemu -L / \
		-M microvm,accel=kvm,acpi=off,pit=off,pic=off,rtc=off -cpu host -m 128 -smp 1 \
		-nodefaults -no-user-config -no-reboot -display none -serial stdio \
		-kernel /vmlinux -initrd /initramfs.cpio -append "$params" \
		-device vhost-vsock-device,guest-cid=3 -device virtio-rng-device \
		-device virtio-balloon-device -device virtio-blk-device,drive=disk \
		-drive if=none,id=disk,file=/busybox.ext4,format=raw,readonly=on </dev/null
}

# One run by its own stage times. Anything else than the wanted kind of start is no sample.
stages() { # NAME IS_CLONE OPTIONS...
	local name=$1 clone=$2 line
	shift 2
	line=$(./spore run --json-times --block busybox.ext4 --read-only "$@" -- /bin/true 2>&1) || :
	case $line in
	"{\"clone\":$clone,"*) ;;
	*)
		echo "bench: $name: no sample: $line" >&2
		return
		;;
	esac
	echo "$line" | tr '{},' '\n' | sed -n "s/^\"\([a-z_]*\)_us\":\([0-9]*\)$/$name.\1 \2/p"
}

cold_to_console() {
	./until -f $SANDBOXES/bench/console.log "$READY" -- ./spore run --no-template --name bench \
		--config loud.toml --block busybox.ext4 --read-only -- /bin/true
}

round() {
	local us
	stages clone true
	stages cold false --no-template
	us=$(cold_to_console) && sample cold.console "$us" || echo "bench: cold.console: no sample" >&2
	us=$(qemu_microvm) && sample qemu.console "$us" || echo "bench: qemu.console: no sample" >&2
}

times() { # N
	prepare_qemu
	printf '[hypervisor.spore]\nkernel_params = "agent.log=info"\n' >loud.toml
	./spore factory init >/dev/null
	# What our machines boot with, without the windows that only ours have.
	params=$(sed -n 's/.*"cmdline": "\(.*\)".*/\1/p' /run/spore/template/*/template.json |
		sed 's/ virtio_mmio\.device=[^ ]*//g')
	params+=' agent.log=info'
	round >/dev/null
	for _ in $(seq "$1"); do
		round
	done
}

# --- memory -------------------------------------------------------------------------------------------

vmm_pids() {
	for p in /proc/[0-9]*; do
		[ "$(cat "$p/comm" 2>/dev/null)" = spore-vmm ] && echo "${p#/proc/}"
	done
}

memory() {
	local mib
	./spore factory init >/dev/null
	sample template.held_kib "$(du -sk /run/spore/template | cut -f1)"
	mib=$(sed -n 's/.*"memory_mib": \([0-9]*\).*/\1/p' /run/spore/template/*/template.json)
	sample template.guest_mib "$mib"
	idle clone "$mib" /bin/probe sleep
	idle busybox "$mib" /bin/sleep 3600
}

# Three clones with a container each that does nothing.
idle() { # NAME MIB COMMAND...
	local name=$1 mib=$2 i pid
	shift 2
	for i in 1 2 3; do
		./spore run -d --name "m$i" --block busybox.ext4 --read-only -- "$@" >/dev/null
	done
	sleep 5 # to idle
	for pid in $(vmm_pids); do
		./clone_host smaps "$pid" "$mib" "$name"
	done
	for i in 1 2 3; do
		./spore rm -f "m$i" >/dev/null
	done
}

# --- a host whose own KVM runs not even tiny guests -----------------------------------------------------

host() { # ROUNDS EXECS CLONES
	./clone_host make $work
	./clone_host inprocess $work "$1"
	./clone_host exec $work "$2"
	./clone_host memory $work "$3"
}

"$@"
