/* spore.c - the whole appliance, in reading order.
 *
 * Bottom layer first: a file may use only what stands above it here. The same file is the command
 * line, the supervisor of a sandbox and the machine process; which one is decided by argv[0] and the
 * first argument (last section). The guest's half is amalgam/agent.c. Folders and who may include
 * whom: amalgam/README.md, checked by tests/lint/layers.sh. */
/* No symbol of ours leaves this unit, so the compiler names every function that nobody calls. The two
 * lowest layers are shared with the agent: what only it uses may stay unused here. */
#define INTERNAL static __attribute__((unused))

/* Foundation: no policy, no knowledge of containers or machines. */
#include "amalgam/base/base.c" /* assertions                                              */
#include "amalgam/base/err.c"  /* the error value: code and words                         */
#include "amalgam/base/mem.c"  /* allocation, scoped ownership                            */
#include "amalgam/base/buf.c"  /* growable bytes, bounds-checked cursors                  */
#include "amalgam/base/str.c"  /* numbers, JSON strings                                   */
#include "amalgam/base/log.c"  /* one line per event                                      */
#include "amalgam/base/fd.c"   /* whole reads and writes, descriptors over sockets        */
#include "amalgam/base/path.c" /* files, atomic replacement, trees, walks inside a root   */
#include "amalgam/base/proc.c" /* process identity, exit status                           */
#include "amalgam/base/loop.c" /* epoll: descriptors and timers                           */
#include "amalgam/base/job.c"  /* programs run to their end                               */
#include "amalgam/base/nl.c"   /* netlink: build, ask, walk                               */
#include "amalgam/base/rtnl.c" /* links, addresses, routes as structures                  */

/* Bytes <-> structs. */
#include "amalgam/wire/json.c"        /* JSON reader                                      */
#include "amalgam/wire/toml.c"        /* TOML reader                                      */
#include "amalgam/wire/oci_spec.c"    /* OCI config.json -> the agent's Spec              */
#include "amalgam/wire/ttrpc_frame.c" /* ttRPC frames                                     */
#include "amalgam/wire/ttrpc.c"       /* ttRPC connections, both ends                     */

#undef INTERNAL
#define INTERNAL static

/* Settings. */
#include "amalgam/config/config.c"

/* What a sandbox takes from the host, and gives back. */
#include "amalgam/resource/hooks.c" /* OCI hooks                                           */
#include "amalgam/resource/mounts.c" /* root filesystems, as containerd lists them          */
#include "amalgam/resource/share.c"  /* a directory or file, as a detached mount            */
#include "amalgam/resource/hostcg.c" /* the cgroup of a machine                             */
#include "amalgam/resource/net.c"    /* the network of a pod                                */
#include "amalgam/resource/dan.c"    /* one that a plugin has written down                  */

/* The machine: knows no container. Runs jailed, behind vmm/ctl.h. */
#include "vmm/gmem.c"             /* guest memory: the only door to it                    */
#include "vmm/kvm.c"              /* /dev/kvm; the order that makes clones fast           */
#include "vmm/ioapic.c"           /* interrupt pins -> messages                           */
#include "vmm/uart.c"             /* COM1, for when nothing else speaks                   */
#include "vmm/virtio/queue.c"     /* split virtqueues                                     */
#include "vmm/virtio/mmio.c"      /* the register table                                   */
#include "vmm/virtio/slots.c"     /* windows: empty, filled, saved                        */
#include "vmm/virtio/rng.c"       /* entropy                                              */
#include "vmm/virtio/balloon.c"   /* memory back to the host                              */
#include "vmm/virtio/blk_req.c"   /* disks: what a request means                          */
#include "vmm/virtio/blk.c"       /* disks: queue, threads, life                          */
#include "vmm/fuse/pool.c"        /* files: threads that may                              */
#include "vmm/fuse/node.c"        /* files: what the guest knows                          */
#include "vmm/fuse/handle.c"      /* files: what it has open                              */
#include "vmm/fuse/host.c"        /* files: how the host is asked                         */
#include "vmm/fuse/server.c"      /* files: what a request means, and its answer          */
#include "vmm/fuse/share.c"       /* files: the root directory                            */
#include "vmm/fuse/lookup.c"      /* files: names to nodes                                */
#include "vmm/fuse/attr.c"        /* files: attributes                                    */
#include "vmm/fuse/name.c"        /* files: make, remove, move, link                      */
#include "vmm/fuse/file.c"        /* files: open, read, write                             */
#include "vmm/fuse/dir.c"         /* files: lists                                         */
#include "vmm/fuse/xattr.c"       /* files: extended attributes                           */
#include "vmm/virtio/fs.c"        /* files: the device                                    */
#include "vmm/virtio/vhost.c"     /* network cards: served by the host's kernel            */
#include "vmm/virtio/net.c"       /* network cards                                        */
#include "vmm/virtio/vsock.c"     /* streams: packets and credit                          */
#include "vmm/virtio/vsock_in.c"  /* streams: packets from the guest                       */
#include "vmm/virtio/vsock_out.c" /* streams: packets to the guest                         */
#include "vmm/virtio/vsock_mux.c" /* streams: host descriptors behind them                */
#include "vmm/virtio/vsock_io.c"  /* streams: how a descriptor is driven without sleeping */
#include "vmm/virtio/vsock_hybrid.c" /* streams: the Unix socket with CONNECT             */
#include "vmm/x86_64/cpuid.c"     /* which CPU the guest sees                             */
#include "vmm/x86_64/mptable.c"   /* which CPUs and pins exist                            */
#include "vmm/x86_64/boot.c"      /* kernel, zero page, first registers                   */
#include "vmm/x86_64/state.c"     /* a vCPU's registers, out and in                       */
#include "vmm/x86_64/selftest.c"  /* can this /dev/kvm run a guest at all                 */
#include "vmm/snapshot/snap.c"    /* the state file                                       */
#include "vmm/snapshot/memory.c"  /* the memory file                                      */
#include "vmm/vcpu.c"             /* vCPU threads and exits                               */
#include "vmm/machine.c"          /* make, pause, save a machine                          */
#include "vmm/jail/filter.c"      /* system calls a machine may make                      */
#include "vmm/jail/jail.c"        /* everything else it gives up                          */
#include "vmm/vmm.c"              /* the machine process: serve the control socket        */

/* One interface to machines. */
#include "amalgam/hv/hv_builtin.c"

/* The nouns of the product. */
#include "amalgam/runtime/rundir.c"    /* /run/spore: sandboxes, names, state files       */
#include "amalgam/runtime/target.c"    /* which container a person means                  */
#include "amalgam/runtime/agent.c"     /* typed calls into the guest                      */
#include "amalgam/runtime/template.c"  /* make, find, destroy templates                   */
#include "amalgam/runtime/sandbox.c"   /* a machine with an agent in it                   */
#include "amalgam/runtime/network.c"   /* a namespace's links in the guest                */
#include "amalgam/runtime/binds.c"     /* a specification's bind mounts -> shares         */
#include "amalgam/runtime/default_spec.c" /* a container nobody wrote a spec for       */
#include "amalgam/runtime/container.c" /* a container with its streams                    */
#include "amalgam/runtime/process.c"   /* a process among many, by callbacks             */
#include "amalgam/runtime/attach.c"    /* into a sandbox that somebody else supervises    */
#include "amalgam/runtime/pump.c"      /* bytes from one descriptor to another            */

/* containerd's face: a shim, one process and one thread per pod. */
#include "amalgam/shim/flags.c"      /* its command line                                  */
#include "amalgam/shim/bootstrap.c"  /* stdin of start; options                           */
#include "amalgam/shim/log.c"        /* our lines in containerd's log                     */
#include "amalgam/shim/events.c"     /* telling containerd what happened                  */
#include "amalgam/shim/uri.c"        /* where a stream goes                               */
#include "amalgam/shim/logger.c"     /* a program that gets the output                    */
#include "amalgam/shim/stdio.c"      /* streams as containerd names them                  */
#include "amalgam/shim/stats.c"      /* what a container uses, in containerd's words        */
#include "amalgam/shim/address.c"    /* where a shim is reached                           */
#include "amalgam/shim/proc.c"       /* containers, processes, exits in order             */
#include "amalgam/shim/pod.c"        /* the sandbox they share                            */
#include "amalgam/shim/create.c"     /* Create                                            */
#include "amalgam/shim/task.c"       /* the rest of the Task service                      */
#include "amalgam/shim/daemon.c"     /* socket, connections, life                         */
#include "amalgam/shim/start.c"      /* start, delete, -info                              */

/* Front door. */
#include "amalgam/cli/opt.c"         /* option tables                                     */
#include "amalgam/cli/cli.c"         /* failing in one line, opening /dev/kvm            */
#include "amalgam/cli/tty.c"         /* the person's terminal                             */
#include "amalgam/cli/run_rootfs.c"  /* spore run: image, directory, volumes              */
#include "amalgam/cli/cmd_run.c"     /* spore run                                         */
#include "amalgam/cli/cmd_exec.c"    /* spore exec                                        */
#include "amalgam/cli/cmd_manage.c"  /* spore ps, kill, logs, pause, resume, rm, check    */
#include "amalgam/cli/cmd_factory.c" /* spore factory init | status | destroy             */
#ifndef SPORE_NO_MAIN
#include "amalgam/cli/main.c" /* argv[0] and argv[1] -> command                           */
#endif
