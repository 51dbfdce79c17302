/* The first process of a pod: it holds the pod's namespaces, reaps orphans and ends when told to.
 * No C library, so that it is small and needs nothing in its image. x86-64 Linux only. */

enum { SYS_EXIT = 60, SYS_WAIT4 = 61, SYS_RT_SIGPROCMASK = 14, SYS_RT_SIGTIMEDWAIT = 128 };
enum { INTERRUPT = 2, TERMINATE = 15, CHILD = 17, NO_HANG = 1, BLOCK = 0 };

static long call(long number, long a, long b, long c, long d)
{
	register long fourth __asm__("r10") = d;
	long result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
			 : "rcx", "r11", "memory");
	return result;
}

void _start(void)
{
	/* Blocked, so that each waits to be taken below: the first process of a pid namespace has no
	 * default actions. */
	unsigned long signals = 1UL << (INTERRUPT - 1) | 1UL << (TERMINATE - 1) | 1UL << (CHILD - 1);
	call(SYS_RT_SIGPROCMASK, BLOCK, (long)&signals, 0, sizeof signals);
	for (;;) {
		long signal = call(SYS_RT_SIGTIMEDWAIT, (long)&signals, 0, 0, sizeof signals);
		if (signal == CHILD)
			while (call(SYS_WAIT4, -1, 0, NO_HANG, 0) > 0)
				;
		else if (signal == INTERRUPT || signal == TERMINATE)
			call(SYS_EXIT, 0, 0, 0, 0);
	}
}
