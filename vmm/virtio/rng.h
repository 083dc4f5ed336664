/* rng.h - entropy for the guest: virtio 1.2 section 5.4, served from getrandom(2).
 *
 * A request gets at most VRNG_MAX bytes, which the specification allows: 5.4.6.2, "MAY use less
 * than the entire buffer length". At most VRNG_BURST requests are served in one go; the rest follow
 * a millisecond later, so that a guest which never stops asking cannot hold the event loop.
 *
 * A clone's CRNG still has the template's state when it starts: this device is how it can get its
 * own (the agent asks for it before any container runs). No state to save. System call:
 * getrandom. */
#pragma once

#include "vmm/virtio/virtio.h"

#define VRNG_MAX   4096u
#define VRNG_BURST 16u

/* Never NULL. slots_attach() takes it. */
INTERNAL MUST_USE struct vdev *vrng_new(struct loop *loop, const struct gmem *mem);
