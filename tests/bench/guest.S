/* guest.S - a "guest kernel" of thirty instructions, packed as guest/kernel/pack.c would, in place of the
 * real one. Booted, it says R and waits for the word at 0x101000, which clone_host.c sets in the
 * template's memory file; so the first thing a clone does is to write a line feed to COM1. Then it
 * halts for good. */
	.section .rodata.assets, "a", @progbits
	.balign	4096
	.global	asset_kernel, asset_kernel_end, asset_initramfs, asset_initramfs_end
asset_kernel:
	.ascii	"SPOREKRN"
	.long	1, 1			/* version, segments */
	.quad	0x100000		/* entry */
	.quad	0x100000		/* segment: where, bytes there, bytes unpacked */
	.quad	guest_end - guest, guest_end - guest
	.quad	packed - asset_kernel, asset_kernel_end - packed
packed:					/* LZ4: one token, nothing but literals */
	.byte	0xf0, guest_end - guest - 15
guest:
	mov	$0x3f8, %edx
	mov	$'R', %al
	out	%al, %dx
	mov	$'\n', %al
	out	%al, %dx
1:	pause
	cmpl	$0, 0x101000
	je	1b
	out	%al, %dx
2:	hlt
	jmp	2b
guest_end:
asset_kernel_end:
	.byte	0
asset_initramfs:
asset_initramfs_end:
	.byte	0
	.section .note.GNU-stack, "", @progbits
