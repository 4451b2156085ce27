/* SPDX-License-Identifier: Apache-2.0
 * The guest's one network card, set to the address that QEMU's user network forwards to. */
#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define GUEST_ADDRESS "10.0.2.15"
#define GUEST_NETMASK "255.255.255.0"
#define TCP_LISTEN_STATE 0x0A

static int set_address(int fd, const char *interface, const char *address, const char *netmask)
{
	struct ifreq request = { 0 };
	struct sockaddr_in *value = (struct sockaddr_in *)&request.ifr_addr;

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", interface);
	value->sin_family = AF_INET;
	inet_pton(AF_INET, address, &value->sin_addr);
	if (ioctl(fd, SIOCSIFADDR, &request) != 0)
		return -errno;
	inet_pton(AF_INET, netmask, &value->sin_addr);
	if (ioctl(fd, SIOCSIFNETMASK, &request) != 0)
		return -errno;
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	return ioctl(fd, SIOCSIFFLAGS, &request) == 0 ? 0 : -errno;
}

void network_up(void)
{
	int result = -ENODEV, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		boot_error("network: %s", strerror(errno));
		return;
	}
	set_address(fd, "lo", "127.0.0.1", "255.0.0.0");
	for (int wait = 0; wait < 200 && result != 0; wait++) {
		result = set_address(fd, "eth0", GUEST_ADDRESS, GUEST_NETMASK);
		if (result != 0)
			usleep(10000);
	}
	if (result != 0)
		boot_error("network: eth0: %s", strerror(-result));
	close(fd);
}

static bool listens_in(const char *path, unsigned port)
{
	char line[256];
	bool found = false;
	FILE *file = fopen(path, "re");

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file)) {
		unsigned local_port, state;
		if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x", &local_port, &state) == 2)
			found = local_port == port && state == TCP_LISTEN_STATE;
	}
	fclose(file);
	return found;
}

/* The card's interrupts to some CPUs. Those of a device are named after it, "virtio0-input.0". */
static void bind_interrupts(const char *device, unsigned long cpus)
{
	char line[1024], path[64], name[80];
	FILE *file = fopen("/proc/interrupts", "re");

	snprintf(name, sizeof(name), " %s-", device);
	while (file && fgets(line, sizeof(line), file)) {
		if (!strstr(line, name))
			continue;
		snprintf(path, sizeof(path), "/proc/irq/%ld/smp_affinity", strtol(line, NULL, 10));
		write_format(path, "%lx", cpus);
	}
	if (file)
		fclose(file);
}

void network_bind(unsigned long cpus)
{
	char target[256];
	ssize_t length = readlink("/sys/class/net/eth0/device", target, sizeof(target) - 1);
	const char *slash;

	if (length <= 0)
		return;
	target[length] = '\0';
	slash = strrchr(target, '/');
	bind_interrupts(slash ? slash + 1 : target, cpus);
}

bool network_listens(unsigned port)
{
	return listens_in("/proc/net/tcp", port) || listens_in("/proc/net/tcp6", port);
}

long long network_received_bytes(void)
{
	char text[32];

	if (read_text("/sys/class/net/eth0/statistics/rx_bytes", text, sizeof(text)) <= 0)
		return -1;
	return atoll(text);
}
