# The guest of practice machines: all of it in the first 2 KiB of its own disk, run by the BIOS.
#
# A Linux guest takes minutes to boot where an emulator runs inside an emulator; this one takes a second. It
# writes the same records as the guests of the practice cluster (tasks/lab/image.py has the layout, and
# tasks/lab/witness.py judges it): one per boot, then a counter about every second into the ring and into a page
# of its own. At the power button it switches itself off. It never flushes, so that QEMU writes everything through.

	.code16
	.globl _start

	.set RING_SECTOR, 4096		# 2 MiB
	.set BOOT_SECTOR, 8		# 4 KiB
	.set PAGE_SECTOR, 128		# 64 KiB
	.set BOOTS, 960
	.set SECTOR_BUFFER, 0x9000
	.set RECORD, 0x9400		# the record that is being made, 64 bytes
	.set BULK, 0x1000		# segment of the buffer for long reads
	.set TICKS, 0x46c		# the BIOS counts 18 a second there
	.set PAUSE, 18
	.set BUTTON, 0x100

_start:
	ljmp	$0, $1f
1:	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	$0x7c00, %sp
	sti
	cld
	movb	%dl, drive
	# The rest of this program lies behind the boot sector.
	movl	$1, %eax
	movw	$3, %cx
	movw	$0x7e0, %dx
	call	read
	jmp	main

# Read %cx sectors from sector %eax to the segment %dx; or write them.
read:
	movb	$0x42, %bh
	jmp	transfer
write:
	movb	$0x43, %bh
transfer:
	movw	%cx, packet_count
	movw	%dx, packet_segment
	movl	%eax, packet_sector
	pushal
	movb	%bh, %ah
	movb	$0, %al
	movb	drive, %dl
	movw	$packet, %si
	int	$0x13
	popal
	jc	off			# without its disk it has nothing to say
	ret

	.balign 4
packet:	.byte	16, 0
packet_count:
	.word	0
	.word	0
packet_segment:
	.word	0
packet_sector:
	.long	0, 0
drive:	.byte	0

off:
	movw	power, %dx
	addw	$4, %dx
	movw	$0x2000, %ax		# sleep now, type 0: soft off
	outw	%ax, %dx
	cli
	hlt
	jmp	off

power:	.word	0
number:	.long	0
counter:
	.long	0
page:	.long	0

	.org	510
	.word	0xaa55

# ------------------------------------------------------------------------------------------------------------

main:
	# The registers of power management: their base stands in the configuration of PCI device 1, function 3.
	movl	$0x80000b40, %eax
	movw	$0xcf8, %dx
	outl	%eax, %dx
	movw	$0xcfc, %dx
	inw	%dx, %ax
	andw	$0xffc0, %ax
	movw	%ax, power
	# The button is seen only when it is enabled. Nobody handles its interrupt: line 9 stays masked.
	inb	$0xa1, %al
	orb	$0x02, %al
	outb	%al, $0xa1
	movw	power, %dx
	movw	$BUTTON, %ax
	outw	%ax, %dx
	addw	$2, %dx
	outw	%ax, %dx

	call	make_id

	# The greatest boot number, and the greatest counter.
	movl	$BOOT_SECTOR, %eax
	movw	$(BOOTS / 8), %cx
	movw	$BULK, %dx
	call	read
	movw	$BOOTS, %cx
	xorl	%ebp, %ebp
	call	greatest
	movl	%ebp, number
	xorl	%ebp, %ebp
	movl	$RING_SECTOR, %eax
1:	movw	$64, %cx
	movw	$BULK, %dx
	call	read
	movw	$512, %cx
	call	greatest
	addl	$64, %eax
	cmpl	$(RING_SECTOR + 512), %eax
	jb	1b
	movl	%ebp, counter

	# The record of this boot: number, ID, counter found.
	call	blank
	movl	number, %eax
	incl	%eax
	movw	$(RECORD + 12), %di
	call	decimal
	movw	$(RECORD + 13), %di
	call	put_id
	movl	counter, %eax
	addw	$13, %di
	call	decimal
	movl	number, %eax
	xorl	%edx, %edx
	movl	$BOOTS, %ecx
	divl	%ecx
	movl	%edx, %eax
	movl	$BOOT_SECTOR, %ebx
	call	put_record

	# A page that no boot has written yet, from one on that depends on the time.
	rdtsc
	movzbl	%al, %esi
2:	movl	%esi, %eax
	shll	$3, %eax
	addl	$PAGE_SECTOR, %eax
	movl	%eax, page
	movw	$8, %cx
	movw	$BULK, %dx
	call	read
	movw	$64, %cx
	xorl	%ebp, %ebp
	call	greatest
	testl	%ebp, %ebp
	jz	again
	incl	%esi
	andl	$255, %esi
	jmp	2b

again:
	incl	counter
	call	blank
	movl	counter, %eax
	movw	$(RECORD + 12), %di
	call	decimal
	movw	$(RECORD + 13), %di
	call	put_id
	# The ring first: the page must never know more than it.
	movl	counter, %eax
	andl	$4095, %eax
	movl	$RING_SECTOR, %ebx
	call	put_record
	movl	counter, %eax
	andl	$63, %eax
	movl	page, %ebx
	call	put_record

	movl	TICKS, %ebx
3:	movw	power, %dx
	inw	%dx, %ax
	testw	$BUTTON, %ax
	jnz	off
	hlt
	movl	TICKS, %eax
	subl	%ebx, %eax
	cmpl	$PAUSE, %eax
	jb	3b
	jmp	again

# Put the greatest number at the beginning of %cx records in the bulk buffer into %ebp, if it is greater.
greatest:
	pushl	%eax
	pushl	%esi
	pushw	%ds
	movw	$BULK, %ax
	movw	%ax, %ds
	xorw	%bx, %bx
1:	movw	%bx, %si
	xorl	%edx, %edx
	pushw	%cx
	movw	$12, %cx
2:	xorl	%eax, %eax
	lodsb
	subb	$'0', %al
	jb	3f			# a blank, or nothing at all
	imull	$10, %edx
	addl	%eax, %edx
3:	loop	2b
	popw	%cx
	cmpl	%ebp, %edx
	jbe	4f
	movl	%edx, %ebp
4:	addw	$64, %bx
	decw	%cx
	jnz	1b
	popw	%ds
	popl	%esi
	popl	%eax
	ret

# Make the record empty: blanks and a line end.
blank:
	movw	$RECORD, %di
	movw	$63, %cx
	movb	$' ', %al
	rep stosb
	movb	$'\n', (%di)
	ret

# Write %eax in decimal so that it ends before %di.
decimal:
	pushw	%di
	movl	$10, %ecx
1:	xorl	%edx, %edx
	divl	%ecx
	addb	$'0', %dl
	decw	%di
	movb	%dl, (%di)
	testl	%eax, %eax
	jnz	1b
	popw	%di
	ret

# Write this boot's ID at %di, which is behind it then.
put_id:
	movw	$id, %si
	movw	$(id_end - id), %cx
	rep movsb
	ret

# Put the record into slot %eax of those that begin at sector %ebx.
put_record:
	movl	%eax, %ecx
	shrl	$3, %eax
	addl	%ebx, %eax
	andw	$7, %cx
	shlw	$6, %cx
	movw	%cx, %bp
	movw	$1, %cx
	movw	$(SECTOR_BUFFER >> 4), %dx
	call	read
	movw	$RECORD, %si
	leaw	SECTOR_BUFFER(%bp), %di
	movw	$64, %cx
	rep movsb
	movw	$1, %cx
	jmp	write

# The ID of this boot: date, time, and what the processor has counted.
make_id:
	movw	$id, %di
	movb	$0x04, %ah
	int	$0x1a
	pushw	%dx
	movb	%ch, %al
	call	digits
	movb	%cl, %al
	call	digits
	popw	%dx
	movb	%dh, %al
	call	digits
	movb	%dl, %al
	call	digits
	incw	%di
	movb	$0x02, %ah
	int	$0x1a
	movb	%ch, %al
	call	digits
	movb	%cl, %al
	call	digits
	movb	%dh, %al
	call	digits
	incw	%di
	rdtsc
	movw	$4, %cx
1:	roll	$8, %eax
	call	digits
	loop	1b
	ret

# Write %al as two hexadecimal digits at %di.
digits:
	pushl	%eax
	movb	%al, %ah
	shrb	$4, %al
	call	digit
	movb	%ah, %al
	andb	$15, %al
	call	digit
	popl	%eax
	ret
digit:
	addb	$'0', %al
	cmpb	$'9', %al
	jbe	1f
	addb	$('a' - '9' - 1), %al
1:	stosb
	ret

id:	.ascii	"YYYYMMDD-HHMMSS-TTTTTTTT"
id_end:

	.org	2048
