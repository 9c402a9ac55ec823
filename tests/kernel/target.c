/* A program to attach to: for each line of input, a number, it calls every function that often. */
#include <stdio.h>
#include <stdlib.h>

/* A nop is what the kernel emulates, instead of single-stepping it. */
#define FUNCTION(name)                                                                                               \
	__attribute__((noinline, noclone, used)) void name(void)                                                     \
	{                                                                                                            \
		__asm__ volatile("nop");                                                                             \
	}

FUNCTION(place_0)
FUNCTION(place_1)
FUNCTION(place_2)
FUNCTION(place_3)
FUNCTION(place_4)
FUNCTION(place_5)
FUNCTION(place_6)
FUNCTION(place_7)
FUNCTION(place_8)
FUNCTION(place_9)

int main(void)
{
	char line[32];

	printf("ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		for (long left = atol(line); left > 0; left--) {
			place_0(), place_1(), place_2(), place_3(), place_4();
			place_5(), place_6(), place_7(), place_8(), place_9();
		}
		printf("done\n");
		fflush(stdout);
	}
	return 0;
}
