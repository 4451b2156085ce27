/* SPDX-License-Identifier: Apache-2.0
 *
 * Android's properties as a directory of files, one per property: written to a temporary name and renamed, so a
 * reader sees the old or the new value. ro.* names are linked into place instead, which fails if they exist.
 */
#include "guest.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHORT_VALUE_MAX 92 /* PROP_VALUE_MAX: with the closing NUL; ro.* values may be longer */

static bool name_ok(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 || length >= NAME_MAX_BYTES - 16 || name[0] == '.' || name[length - 1] == '.')
		return false;
	for (size_t i = 0; i < length; i++) {
		if (name[i] == '.' && name[i + 1] == '.')
			return false;
		if (!isalnum((unsigned char)name[i]) && !strchr("._-@:", name[i]))
			return false;
	}
	return true;
}

static bool read_only(const char *name)
{
	return strncmp(name, "ro.", 3) == 0;
}

int property_get(const char *name, char *value, size_t size)
{
	char path[sizeof(PROPERTY_DIR) + NAME_MAX_BYTES];

	if (!name_ok(name))
		return -ENOENT;
	snprintf(path, sizeof(path), PROPERTY_DIR "/%s", name);
	return (int)read_text(path, value, size);
}

bool property_is_true(const char *name)
{
	static const char *const WORDS[] = { "1", "true", "y", "yes", "on" };
	char value[16];

	if (property_get(name, value, sizeof(value)) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(WORDS); i++)
		if (strcmp(value, WORDS[i]) == 0)
			return true;
	return false;
}

int property_set(const char *name, const char *value)
{
	char path[sizeof(PROPERTY_DIR) + NAME_MAX_BYTES], draft[sizeof(PROPERTY_DIR) + NAME_MAX_BYTES];
	int result;

	if (!name_ok(name))
		return -EINVAL;
	if (strlen(value) >= (read_only(name) ? VALUE_MAX_BYTES : SHORT_VALUE_MAX))
		return -EINVAL;
	snprintf(path, sizeof(path), PROPERTY_DIR "/%s", name);
	/* A leading dot: no property name starts so, readers skip it. */
	snprintf(draft, sizeof(draft), PROPERTY_DIR "/.%d.%lld", (int)getpid(), now_ms());
	result = write_text(draft, value);
	if (result == 0 && read_only(name))
		result = link(draft, path) == 0 ? 0 : (errno == EEXIST ? -EPERM : -errno);
	else if (result == 0)
		return rename(draft, path) == 0 ? 0 : -errno;
	unlink(draft);
	return result;
}

int property_load(const char *path)
{
	char line[VALUE_MAX_BYTES + NAME_MAX_BYTES];
	int refused = 0;
	FILE *file = fopen(path, "re");

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file)) {
		char *text = trim(line);
		char *equals = strchr(text, '=');
		if (*text == '#' || *text == '\0')
			continue;
		if (!equals) {
			refused++;
			continue;
		}
		*equals = '\0';
		if (property_set(trim(text), trim(equals + 1)) != 0)
			refused++;
	}
	fclose(file);
	return refused;
}

static int compare_names(const void *left, const void *right)
{
	return strcmp(*(char *const *)left, *(char *const *)right);
}

static int list_all(void)
{
	char **names = NULL;
	size_t count = 0, room = 0;
	struct dirent *entry;
	DIR *directory = opendir(PROPERTY_DIR);

	if (!directory)
		return 1;
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		if (count == room) {
			room = room ? room * 2 : 256;
			names = realloc(names, room * sizeof(*names));
			if (!names)
				return 1;
		}
		names[count++] = strdup(entry->d_name);
	}
	closedir(directory);
	if (count)
		qsort(names, count, sizeof(*names), compare_names);
	for (size_t i = 0; i < count; i++) {
		char value[VALUE_MAX_BYTES];
		if (property_get(names[i], value, sizeof(value)) >= 0)
			printf("[%s]: [%s]\n", names[i], value);
	}
	return 0;
}

int getprop_main(int argc, char **argv)
{
	char value[VALUE_MAX_BYTES];

	if (argc < 2)
		return list_all();
	if (argc > 3) {
		fprintf(stderr, "usage: getprop [NAME [DEFAULT]]\n");
		return 1;
	}
	if (property_get(argv[1], value, sizeof(value)) <= 0)
		puts(argc > 2 ? argv[2] : "");
	else
		puts(value);
	return 0;
}

int setprop_main(int argc, char **argv)
{
	char request[NAME_MAX_BYTES * 2];
	int result;

	if (argc != 3) {
		fprintf(stderr, "usage: setprop NAME VALUE\n");
		return 1;
	}
	if (strncmp(argv[1], "ctl.", 4) == 0 || strcmp(argv[1], "sys.powerctl") == 0) {
		const char *verb = argv[1][0] == 'c' ? argv[1] + 4 : "power";
		snprintf(request, sizeof(request), "%s %s", verb, argv[2]);
		result = init_request(request);
	} else {
		result = property_set(argv[1], argv[2]);
	}
	if (result == 0)
		return 0;
	fprintf(stderr, "Failed to set property '%s' to '%s': %s\n", argv[1], argv[2],
		result == -EPERM ? "ro. properties are set once" : strerror(-result));
	return 1;
}
