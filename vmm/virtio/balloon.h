/* balloon.h - memory back to the host: virtio 1.2 section 5.5, inflate, deflate and free page
 * reporting.
 *
 * Two ways to the same gmem_discard(). Balloon: the host sets a target, the driver picks pages and
 * names them, the pages go; the guest may take them back when it is short (DEFLATE_ON_OOM). Free
 * page reporting: the guest names large free blocks all the time, keeps them, and they cost memory
 * again only when used; this is what makes an idle guest small without anybody setting a target.
 *
 * What the driver names is advice: a page outside RAM, or more than VBAL_MAX_PFNS in one request,
 * is counted as refused and otherwise ignored. At most VBAL_BURST requests are served in one go,
 * the rest a millisecond later. Everything runs on the loop thread. System calls: madvise, mmap
 * (gmem.c).
 *
 * Queue numbers. 5.5.2 lists the reporting queue as number 4, but Linux counts only the queues
 * whose feature was negotiated (up to and including 6.1, our guest kernel, on virtio-mmio), so with
 * neither STATS_VQ nor FREE_PAGE_HINT offered it is number 2, and a driver that looks for number 4
 * finds no such queue here. PAGE_POISON is not offered: a guest that relies on the content of its
 * free pages then does without reporting (5.5.3.1). */
#pragma once

#include "vmm/virtio/virtio.h"

#define VBAL_MAX_PFNS 512u
#define VBAL_BURST    16u

struct vbal_stats {
	uint64_t target_pages;   /* what we ask for, 4 KiB pages */
	uint64_t actual_pages;   /* what the driver says it gave; its word, not ours */
	uint64_t inflated_pages; /* given to us so far, repeats included */
	uint64_t deflated_pages; /* taken back so far */
	uint64_t reported_bytes; /* dropped by free page reporting so far */
	uint64_t refused;        /* pages and blocks we did not drop */
};

/* Never NULL. slots_attach() takes it. */
INTERNAL MUST_USE struct vdev *vbal_new(struct loop *loop, const struct gmem *mem);

/* Ask the guest for `mib` of its memory in all, 0 = have everything back; more than its RAM counts
 * as all. Loop thread, lock not held. Before it is attached the target waits for the driver. */
INTERNAL void vbal_set_target(struct vdev *d, uint32_t mib);

/* Loop thread, lock not held. */
INTERNAL void vbal_get_stats(struct vdev *d, struct vbal_stats *out);
