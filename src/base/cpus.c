/* SPDX-License-Identifier: MIT */
/* How many threads this process should use: physical cores of its affinity mask, within its
 * cgroup's quota. Reads /sys and /proc once a call; what is missing or strange there sets no limit.
 * Stateless; any thread. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/threads.h"

enum { MAX_CPUS = 8192, TEXT_MAX = 4096 };

/* The first TEXT_MAX - 1 bytes of a file, as a string; false if it cannot be read. */
static bool read_text(char text[TEXT_MAX], const char *path)
{
    size_t len = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    while (len < TEXT_MAX - 1) {
        ssize_t n = read(fd, text + len, TEXT_MAX - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    close(fd);
    text[len] = '\0';
    return true;
}

/* The number at *s, which is moved past it; -1 where there is none or it is out of range. */
static long number(const char **s)
{
    char *end;
    errno = 0;
    long v = strtol(*s, &end, 10);
    if (end == *s || errno != 0 || v < 0)
        return -1;
    *s = end;
    return v;
}

/* The cores of the mask: a hyperthread counts only if none of its siblings before it is in the
 * mask. */
static int count_cores(const cpu_set_t *set, size_t set_bytes)
{
    int cores = 0;
    for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
        char path[96], text[TEXT_MAX];
        if (!CPU_ISSET_S((size_t)cpu, set_bytes, set))
            continue;
        bool first = true;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list",
                 cpu);
        const char *s = read_text(text, path) ? text : "";
        for (;;) { /* "0,64" or "0-1" */
            long lo = number(&s), hi = lo;
            if (lo < 0)
                break;
            if (*s == '-') {
                s++;
                hi = number(&s);
            }
            for (long other = lo; other <= hi && other < cpu; other++)
                first = first && !CPU_ISSET_S((size_t)other, set_bytes, set);
            if (*s != ',')
                break;
            s++;
        }
        cores += first;
    }
    return cores;
}

/* quota / period, at least 1; 0 for no limit. */
static int quota_threads(long quota, long period)
{
    if (quota <= 0 || period <= 0 || quota / period > INT32_MAX)
        return 0;
    return quota < period ? 1 : (int)(quota / period);
}

static int quota_of_dir(const char *dir, bool v2)
{
    char path[2 * TEXT_MAX], text[TEXT_MAX];
    const char *s = text;
    if (v2) { /* "max 100000" or "150000 100000" */
        snprintf(path, sizeof path, "%s/cpu.max", dir);
        if (!read_text(text, path))
            return 0;
        long quota = number(&s);
        return quota_threads(quota, number(&s));
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (!read_text(text, path))
        return 0;
    long quota = number(&s);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    s = text;
    return read_text(text, path) ? quota_threads(quota, number(&s)) : 0;
}

/* The least quota of `group` and the groups above it, under `mount`; 0 for none. In a container the
 * path may name a group that is not visible: then only those above it are read. */
static int quota_of_group(const char *mount, const char *group, bool v2)
{
    char dir[TEXT_MAX];
    int least = 0;
    size_t root = strlen(mount);
    if (root + strlen(group) >= sizeof dir)
        return 0;
    snprintf(dir, sizeof dir, "%s%s", mount, group);
    for (;;) {
        int q = quota_of_dir(dir, v2);
        if (q > 0 && (least == 0 || q < least))
            least = q;
        char *slash = strrchr(dir, '/');
        if (!slash || slash < dir + root)
            return least;
        *slash = '\0';
    }
}

/* Whether "cpu" is one of the comma-separated controllers in [s, end). */
static bool names_cpu(const char *s, const char *end)
{
    while (s < end) {
        const char *comma = memchr(s, ',', (size_t)(end - s));
        size_t n = (size_t)((comma ? comma : end) - s);
        if (n == 3 && memcmp(s, "cpu", 3) == 0)
            return true;
        s += n + 1;
    }
    return false;
}

int au_threads_quota(const char *root)
{
    char path[TEXT_MAX], text[TEXT_MAX], mount[TEXT_MAX];
    int least = 0;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    if (!read_text(text, path))
        return 0;
    /* lines of "0::/group" (v2) or "4:cpu,cpuacct:/group" (v1) */
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        bool v2 = group == controllers + 1;
        if (!v2 && !names_cpu(controllers + 1, group))
            continue;
        snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, v2 ? "" : "/cpu");
        int q = quota_of_group(mount, strcmp(group + 1, "/") == 0 ? "" : group + 1, v2);
        if (q > 0 && (least == 0 || q < least))
            least = q;
    }
    return least;
}

int au_threads_default(void)
{
    int cores = 1;
    cpu_set_t *set = CPU_ALLOC(MAX_CPUS);
    size_t bytes = CPU_ALLOC_SIZE(MAX_CPUS);
    if (set && sched_getaffinity(0, bytes, set) == 0)
        cores = count_cores(set, bytes);
    CPU_FREE(set);
    int quota = au_threads_quota("");
    if (quota > 0 && quota < cores)
        cores = quota;
    return cores > 0 ? cores : 1;
}
