/* selftest.S - the guest of selftest.c. Starts in ring 3 and makes one system call; the entry point it
 * must arrive at, in ring 0, reports the selector it runs with. Position independent. */
	.section .rodata.selftest, "a", @progbits
	.global	selftest_user, selftest_entry, selftest_end
selftest_user:
	syscall
	hlt			/* not reached; in ring 3 it faults */
selftest_entry:
	mov	%cs, %eax
	out	%al, $0x99
	hlt
selftest_end:
	.section .note.GNU-stack, "", @progbits
