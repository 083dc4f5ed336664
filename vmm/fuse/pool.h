/* pool.h - file threads: the only threads of the machine process that may touch files by name.
 *
 * The first one is made before the jail closes. It calls enter(), which makes it what a file thread is
 * and which all later ones inherit, being its children: a filter of its own, the file capabilities
 * (CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, MKNOD, SETFCAP, SETUID, SETGID) and no other,
 * and these four, on which vmm/fuse relies:
 *
 *   own fs_struct      unshare(CLONE_FS), so that the next two are the file threads' alone
 *   working directory  /proc/self/fd of this process, by a descriptor of a detached mount of it: "17" is
 *                      then the file behind descriptor 17, whatever the root directory is. It is how a file
 *                      known by an O_PATH descriptor is opened and how its attributes are reached, symbolic
 *                      links included (proc(5): such a link is followed once). Never changed again
 *   umask 0            the guest's kernel has applied its caller's
 *   securebits         SECBIT_NO_SETUID_FIXUP: setfsuid() to a guest's user leaves the capabilities
 *
 * enter() must use system calls that act on one thread: libc's setresuid() and the like act on all.
 *
 * Idle threads listen to one eventfd, the bell, of which each write wakes one of them: a guest's
 * notification can be routed to it without anybody in between (slots.h, slots_wake()). Whoever wakes and
 * leaves nobody idle behind first makes a sibling, up to FPOOL_MAX: so a call that waits for the disk delays
 * no other one. Threads stay.
 *
 * System calls of a file thread, for its filter (all paths are one component, or a number; never "..";
 * FD is a descriptor or AT_FDCWD):
 *   openat(FD, name)    O_PATH | O_NOFOLLOW; or O_CREAT | O_EXCL | O_NOFOLLOW; or O_TMPFILE with "."; or
 *                       AT_FDCWD with a number: access mode, O_TRUNC, O_APPEND, O_DIRECTORY, O_PATH.
 *                       O_CLOEXEC always; never O_CREAT without O_EXCL
 *   statx               AT_EMPTY_PATH
 *   readlinkat, symlinkat, mknodat, mkdirat, unlinkat, renameat2
 *   linkat              (AT_FDCWD, number, FD, name, AT_SYMLINK_FOLLOW)
 *   fchownat            AT_EMPTY_PATH
 *   fchmodat, utimensat (AT_FDCWD, number); utimensat's flags 0
 *   setxattr, getxattr, listxattr, removexattr   a number
 *   preadv, pwritev2, ftruncate, fallocate, lseek, copy_file_range, getdents64, fstatfs, fsync, fdatasync,
 *                       syncfs
 *   fcntl(F_DUPFD_CLOEXEC), close
 *   setfsuid, setfsgid, capset (itself; only CAP_FSETID goes and comes back)
 *   threads             clone with CLONE_THREAD, mmap and mprotect without PROT_EXEC, munmap,
 *                       rt_sigprocmask, futex, clock_gettime where there is no vDSO, exit
 *   guest, bell and log ioctl(KVM_SIGNAL_MSI), epoll_pwait, write, rt_sigreturn */
#pragma once

#include "amalgam/base/err.h"

#define FPOOL_MAX 8 /* threads */

struct fpool;

/* Make the first file thread and wait for its enter(); NULL and e set when that fails, with the thread
 * gone. enter() may be NULL: threads like the caller's. */
INTERNAL MUST_USE struct fpool *fpool_start(int (*enter)(struct err *e), struct err *e);
/* From now on whoever is woken by the bell calls work(arg, i), i < FPOOL_MAX the number of the thread. It
 * looks for all there is to do: several rings may wake one thread. Once, and before the first ring. */
INTERNAL void fpool_set_work(struct fpool *p, void (*work)(void *arg, unsigned i), void *arg);
/* The bell, to be written to by others, as eventfd(2) says; the pool's. */
INTERNAL int fpool_bell(const struct fpool *p);
/* Ring it. Any thread, also with locks held: nothing is waited for. */
INTERNAL void fpool_ring(struct fpool *p);
/* End and join all threads, once their work() has returned. Free p. */
INTERNAL void fpool_stop(struct fpool *p);
