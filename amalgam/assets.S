/* assets.S - see assets.h. The build directory is on the assembler's include path. */
	.section .rodata.assets, "a", @progbits
	.macro asset name, file
	.balign	4096
	.global	\name, \name\()_end
\name:
	.incbin	"\file"
\name\()_end:
	.byte	0
	.endm

	asset asset_kernel, "kernel.packed"
	asset asset_initramfs, "initramfs.cpio"
	.section .note.GNU-stack, "", @progbits
