/* SPDX-License-Identifier: Apache-2.0 */
#include "apprunner_restart.h"

#include <stdio.h>
#include <stdlib.h>

#include "common.h"

/* ActivityManagerConstants: SERVICE_RESTART_DURATION, _FACTOR, SERVICE_RESET_RUN_DURATION and
 * SERVICE_MIN_RESTART_TIME_BETWEEN. */
#define RESTART_NS NS_PER_S
#define RESTART_FACTOR 4
#define RESET_RUN_NS (60 * NS_PER_S)
#define MIN_BETWEEN_NS (10 * NS_PER_S)

#define SELFTEST_OTHERS_MAX 64

int64_t restart_next(int64_t delay_ns, int64_t ran_ns, int64_t now_ns, const int64_t *others_ns, int count)
{
	int64_t at_ns;

	delay_ns *= RESTART_FACTOR;
	if (delay_ns < RESTART_NS || ran_ns > RESET_RUN_NS)
		delay_ns = RESTART_NS;
	at_ns = now_ns + delay_ns;
	/* Every round moves it behind another one. */
	for (int round = 0; round <= count; round++) {
		int near = 0;

		while (near < count && (at_ns < others_ns[near] - MIN_BETWEEN_NS ||
					at_ns >= others_ns[near] + MIN_BETWEEN_NS))
			near++;
		if (near == count)
			break;
		at_ns = others_ns[near] + MIN_BETWEEN_NS;
	}
	return at_ns;
}

int restart_selftest(void)
{
	char line[2048];

	while (fgets(line, sizeof(line), stdin)) {
		int64_t numbers[3 + SELFTEST_OTHERS_MAX];
		char *at = line, *end;
		int count = 0;

		for (; count < (int)LMK_ARRAY_LEN(numbers); count++, at = end) {
			numbers[count] = strtoll(at, &end, 10);
			if (end == at)
				break;
		}
		if (count < 3)
			return 2;
		printf("%lld\n",
		       (long long)restart_next(numbers[0], numbers[1], numbers[2], numbers + 3, count - 3));
	}
	return 0;
}
