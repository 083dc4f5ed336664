/* agent.c - the guest agent, in reading order: PID 1 of every micro-VM, the only file of its
 * initramfs.
 *
 * Bottom layer first: a file may use only what stands above it here. base and wire are shared with
 * the host (amalgam/spore.c), which uses more of them, so what stays unused here is no mistake. */
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
#include "amalgam/base/nl.c"   /* netlink: build, ask, walk                               */
#include "amalgam/base/rtnl.c" /* links, addresses, routes as structures                  */

/* Bytes <-> structs. */
#include "amalgam/wire/ttrpc_frame.c" /* ttRPC frames                                     */
#include "amalgam/wire/ttrpc.c"       /* ttRPC connections, both ends                     */

/* From here on everything is used: the compiler reports what is not. */
#undef INTERNAL
#define INTERNAL static

/* Parts that know the kernel but no containers. */
#include "guest/agent/wait.c"   /* look again later, without blocking                     */
#include "guest/agent/mount.c"  /* options by name; mounts that follow nothing            */
#include "guest/agent/ns.c"     /* namespaces kept, visited, made                         */
#include "guest/agent/cgdev.c"  /* device rules as a BPF program                          */
#include "guest/agent/cgroup.c" /* limits, freezing, killing                              */
#include "guest/agent/slot.c"   /* virtio-mmio windows: bind, find, unbind                */

/* The child's side: from clone to execve. */
#include "guest/agent/caps.c"    /* the five capability sets                              */
#include "guest/agent/user.c"    /* ids from numbers, names and the image's files         */
#include "guest/agent/limits.c"  /* rlimits, scheduling, sysctls                          */
#include "guest/agent/seccomp.c" /* OCI profile -> BPF                                    */
#include "guest/agent/copyup.c"  /* the tmpcopyup option                                  */
#include "guest/agent/idmap.c"   /* idmapped mounts                                       */
#include "guest/agent/dev.c"     /* device nodes and links                                */
#include "guest/agent/rootfs.c"  /* a container's tree, built and entered                 */
#include "guest/agent/tty.c"     /* pseudo terminals                                      */
#include "guest/agent/hooks.c"   /* startContainer hooks                                  */
#include "guest/agent/init.c"    /* the steps of a process on its way in                  */

/* The agent's side: what it knows of each process, container, and the pod. */
#include "guest/agent/stdio.c"     /* streams between processes and the host              */
#include "guest/agent/direct.c"    /* connections that are a stream                       */
#include "guest/agent/storage.c"   /* things to mount, by driver name                     */
#include "guest/agent/oom.c"       /* out-of-memory kills                                 */
#include "guest/agent/process.c"   /* spawned, started, awaited                           */
#include "guest/agent/container.c" /* created in steps, undone in reverse                 */
#include "guest/agent/signal.c"    /* SignalProcess                                       */
#include "guest/agent/update.c"    /* pause, resume, new limits                           */
#include "guest/agent/stats.c"     /* what a cgroup has counted                           */
#include "guest/agent/volume.c"    /* mounted volumes: usage, size                        */
#include "guest/agent/copyfile.c"  /* files from the host, confined                       */
#include "guest/agent/net.c"       /* links and addresses                                 */
#include "guest/agent/route.c"     /* routes and neighbours                               */
#include "guest/agent/metrics.c"   /* what the guest tells about itself                   */
#include "guest/agent/hotplug.c"   /* CPUs and memory that were added                     */
#include "guest/agent/resume.c"    /* a copy of a template becomes itself                 */
#include "guest/agent/sandbox.c"   /* the pod: shared namespaces, storages, the end       */

/* Front door. */
#include "guest/agent/rpc.c"     /* the method table                                      */
#include "guest/agent/logport.c" /* the log, for who wants it                             */
#include "guest/agent/reap.c"    /* SIGCHLD                                               */
#include "guest/agent/boot.c"    /* early mounts, kernel command line                     */
#include "guest/agent/agent.c"   /* main                                                  */
