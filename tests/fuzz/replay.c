/* SPDX-License-Identifier: MIT */
/* Runs a fuzz target over every file of the folders and files named on the command line. Each input
 * is copied to a heap block of exactly its size, so that a sanitizer sees a read past its end. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat sb;
    if (!f || fstat(fileno(f), &sb) != 0) {
        perror(path);
        return -1;
    }
    size_t size = (size_t)sb.st_size;
    uint8_t *data = malloc(size);
    if (size && (!data || fread(data, 1, size, f) != size)) {
        perror(path);
        exit(1);
    }
    fclose(f);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

static int run_path(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir)
        return run_file(path);
    int count = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        int n = run_file(file);
        if (n < 0) {
            closedir(dir);
            return n;
        }
        count += n;
    }
    closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        int n = run_path(argv[i]);
        if (n < 0)
            return 1;
        count += n;
    }
    if (!count) {
        fprintf(stderr, "no inputs\n");
        return 1;
    }
    printf("%d inputs replayed\n", count);
    return 0;
}
