/* SPDX-License-Identifier: MIT */
/* `aulos migrate`: brings the database of a data folder to this version's schema, as its owner. A
 * server does the same when it starts; this is for those who want to see it done first. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fs.h"
#include "cli/cli.h"
#include "db/db.h"

enum { VERSION_AT = 60 }; /* of the schema's number in a SQLite file, four bytes, high first */

static au_status read_version(const char *path, long *version, au_err *err)
{
    unsigned char bytes[4];
    FILE *f = fopen(path, "rb");
    if (!f)
        return au_fail(err, AU_NOT_FOUND, "%s does not exist", path);
    bool right = fseek(f, VERSION_AT, SEEK_SET) == 0 && fread(bytes, 1, 4, f) == 4;
    fclose(f);
    if (!right)
        return au_fail(err, AU_CORRUPT, "%s is no database", path);
    *version = (long)bytes[0] << 24 | (long)bytes[1] << 16 | (long)bytes[2] << 8 | (long)bytes[3];
    return AU_OK;
}

static au_status migrate(const char *dir, au_err *err)
{
    char *lock = NULL, *path = NULL;
    int fd = -1;
    long before = 0;
    au_status st = AU_OK;
    AU_TRY(au_path_join(&path, dir, "aulos.db", err));
    AU_FAIL_IF(!au_file_exists(path), AU_NOT_FOUND,
               "%s is no data folder: there is no aulos.db in it", dir);
    AU_TRY(au_path_join(&lock, dir, "server.lock", err));
    st = au_lock_file(&fd, lock, err);
    if (st == AU_CONFLICT)
        st = au_err_prefix(err, st, "the folder %s belongs to a server", dir);
    AU_TRY(st);
    AU_TRY(read_version(path, &before, err));
    AU_TRY(au_db_migrate(path, err));
    if (before == au_db_schema_version())
        printf("%s has schema %ld, nothing to do\n", path, before);
    else
        printf("%s brought from schema %ld to %d; the old one is %s.v%ld.bak\n", path, before,
               au_db_schema_version(), path, before);
    AU_FAIL_IF(fflush(stdout) != 0, AU_IO, "cannot write to standard output");
done:
    if (fd >= 0)
        close(fd);
    free(lock);
    free(path);
    return st;
}

int au_command_migrate(const au_options *o)
{
    au_err err = {0};
    if (au_options_n_args(o))
        return au_cli_usage("migrate takes no argument, found %s", au_options_arg(o, 0));
    au_status st = migrate(au_options_text(o, AU_OPT_DATA), &err);
    return st == AU_OK ? AU_EXIT_OK : au_cli_error(&err, AU_EXIT_FAILED);
}
