/* SPDX-License-Identifier: MIT */
/* Archives that clients send, into a staging folder: whatever the bytes are, nothing but the files
 * of an adapter may be there afterwards, and nothing of it beyond the limits. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobs/adapter_staging.h"

enum { MAX_BYTES = 1 << 20 };

static char data_dir[64];

static void remove_data_dir(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/incoming", data_dir);
    (void)!rmdir(path);
    (void)!rmdir(data_dir);
}

/* Aborts where something is in the folder that should not be. */
static void look(const char *dir)
{
    static const char *const known[] = {"adapter_config.json", "adapter_model.safetensors",
                                        "adapter_model.bin", "archive"};
    DIR *d = opendir(dir);
    if (!d)
        abort();
    uint64_t bytes = 0;
    for (struct dirent *e; (e = readdir(d));) {
        struct stat info;
        bool fine = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
        if (fine)
            continue;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            fine |= strcmp(e->d_name, known[i]) == 0;
        if (!fine || fstatat(dirfd(d), e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(info.st_mode))
            abort();
        bytes += strcmp(e->d_name, "archive") == 0 ? 0 : (uint64_t)info.st_size;
    }
    closedir(d);
    if (bytes > MAX_BYTES)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    au_staging s;
    au_err err = {0};
    if (!data_dir[0]) {
        snprintf(data_dir, sizeof data_dir, "%s/aulos-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        if (!mkdtemp(data_dir))
            abort();
        atexit(remove_data_dir);
    }
    if (au_staging_open(&s, data_dir, MAX_BYTES, 0, &err) != AU_OK)
        abort();
    au_status st = au_staging_begin_archive(&s, &err);
    if (st == AU_OK)
        st = au_staging_write(&s, data, size, &err);
    if (st == AU_OK)
        st = au_staging_end(&s, &err);
    if (st == AU_OK)
        st = au_staging_unpack(&s, &err);
    if (st == AU_OK)
        st = au_staging_finish(&s, &err);
    if (st != AU_OK && !err.message[0])
        abort();
    look(s.dir);
    au_staging_close(&s);
    return 0;
}
