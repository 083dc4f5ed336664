/* assets.h - what the file carries besides code: the packed guest kernel and the initramfs with the
 * agent. Page aligned, so that their pages are the page cache's and shared by every process. */
#pragma once

#include <stdint.h>

extern const uint8_t asset_kernel[], asset_kernel_end[];
extern const uint8_t asset_initramfs[], asset_initramfs_end[];
