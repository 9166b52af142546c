/* SPDX-License-Identifier: MIT */
/* /metrics for Prometheus and /v1/system for people: what the server, its workers, its queue and
 * its disks are doing now. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "api/api.h"
#include "api/metrics.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/threads.h"

enum { METRICS_BYTES = 4 << 20 };

static const char *const no_query[] = {NULL};

/* ---- The process ---- */

typedef struct process {
    double cpu_s;
    uint64_t resident_bytes, virtual_bytes;
    int64_t open_files, max_files;
} process;

/* Resident and virtual size from statm, in pages; descriptors by counting. What cannot be read
 * stays 0. */
static process look_at_process(void)
{
    process p = {0};
    struct rusage usage;
    struct rlimit limit;
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        p.cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                  (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        p.max_files = (int64_t)limit.rlim_cur;
    FILE *statm = fopen("/proc/self/statm", "re");
    unsigned long pages[2];
    if (statm) {
        if (fscanf(statm, "%lu %lu", &pages[0], &pages[1]) == 2) {
            p.virtual_bytes = pages[0] * (uint64_t)sysconf(_SC_PAGESIZE);
            p.resident_bytes = pages[1] * (uint64_t)sysconf(_SC_PAGESIZE);
        }
        fclose(statm);
    }
    DIR *files = opendir("/proc/self/fd");
    while (files && readdir(files))
        p.open_files++;
    if (files)
        closedir(files);
    p.open_files -= 3; /* the folder itself, "." and ".." */
    return p;
}

static void gauge(au_buf *out, const char *name, const char *help, double value)
{
    au_buf_printf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %.17g\n", name, help, name, name, value);
}

static void counter(au_buf *out, const char *name, const char *help, double value)
{
    au_buf_printf(out, "# HELP %s %s\n# TYPE %s counter\n%s %.17g\n", name, help, name, name,
                  value);
}

static void write_process(au_buf *out, const au_api *api)
{
    process p = look_at_process();
    counter(out, "process_cpu_seconds_total", "Processor time of the server, workers not included.",
            p.cpu_s);
    gauge(out, "process_resident_memory_bytes", "Resident memory of the server.",
          (double)p.resident_bytes);
    gauge(out, "process_virtual_memory_bytes", "Virtual memory of the server.",
          (double)p.virtual_bytes);
    gauge(out, "process_open_fds", "Open file descriptors.", (double)p.open_files);
    gauge(out, "process_max_fds", "Limit of open file descriptors.", (double)p.max_files);
    gauge(out, "process_start_time_seconds", "When the server started, Unix time.",
          (double)api->started_at / 1000);
}

/* ---- Metrics ---- */

static void write_build(au_buf *out, const au_api *api)
{
    au_buf_printf(
        out,
        "# HELP aulos_build_info What runs here.\n# TYPE aulos_build_info gauge\n"
        "aulos_build_info{version=\"%s\",numerics=\"%s\",kernels=\"%s\"} 1\n"
        "# HELP aulos_model_info Models that are served.\n# TYPE aulos_model_info gauge\n",
        au_version(), au_numerics_class(), au_cpu_name());
    for (size_t i = 0; i < au_registry_count(api->registry); i++) {
        const char *name = au_registry_name(api->registry, i);
        au_buf_str(out, "aulos_model_info{name=\"");
        for (const char *c = name; *c; c++) { /* as a label's value */
            if (*c == '"' || *c == '\\')
                au_buf_char(out, '\\');
            au_buf_char(out, *c);
        }
        au_buf_str(out, "\"} 1\n");
    }
}

static au_status write_queue(au_buf *out, const au_api *api, au_db *db, au_err *err)
{
    au_queue_stats q;
    int64_t oldest, cancelling, pending;
    au_status st = AU_OK;
    AU_TRY(au_queue_stats_get(db, &q, err));
    AU_TRY(au_db_int(&cancelling, db, 0, err,
                     "SELECT COUNT(*) FROM jobs WHERE state = 'cancelling'", ""));
    AU_TRY(au_db_int(&oldest, db, 0, err,
                     "SELECT au_now_ms() - created_at FROM jobs WHERE state = 'queued' "
                     "ORDER BY id LIMIT 1",
                     ""));
    AU_TRY(au_db_int(&pending, db, 0, err,
                     "SELECT COUNT(*) FROM deliveries WHERE state = 'pending'", ""));
    au_buf_printf(out,
                  "# HELP aulos_jobs Jobs that have not ended, by state.\n# TYPE aulos_jobs gauge\n"
                  "aulos_jobs{state=\"queued\"} %" PRId64
                  "\naulos_jobs{state=\"processing\"} %" PRId64
                  "\naulos_jobs{state=\"cancelling\"} %" PRId64 "\n",
                  q.queued, q.processing, cancelling);
    gauge(out, "aulos_queue_limit", "Waiting jobs that are accepted.",
          (double)api->limits.queue_limit);
    gauge(out, "aulos_queue_oldest_seconds", "How long the oldest waiting job waits.",
          oldest > 0 ? (double)oldest / 1000 : 0);
    gauge(out, "aulos_queue_paused", "1 while no job is taken up.", q.paused);
    gauge(out, "aulos_webhook_deliveries_pending", "Deliveries that wait for their next attempt.",
          (double)pending);
    gauge(out, "aulos_event_streams", "Streams of events that are open.", au_hub_streams(api->hub));
done:
    return st;
}

static au_status write_workers(au_buf *out, au_db *db, au_arena *a, au_err *err)
{
    static const char *const states[] = {"starting", "ready", "stopping", "failed"};
    au_worker_row **rows;
    size_t n;
    au_status st = AU_OK;
    AU_TRY(au_worker_row_list(db, a, &rows, &n, err));
    au_buf_str(out,
               "# HELP aulos_workers Worker processes, by state.\n# TYPE aulos_workers gauge\n");
    for (size_t s = 0; s < sizeof states / sizeof *states; s++) {
        int in_state = 0;
        for (size_t i = 0; i < n; i++)
            in_state += strcmp(rows[i]->state, states[s]) == 0;
        au_buf_printf(out, "aulos_workers{state=\"%s\"} %d\n", states[s], in_state);
    }
done:
    return st;
}

static void write_disk(au_buf *out, const au_api *api)
{
    uint64_t data = 0, objects = 0;
    au_buf_str(out, "# HELP aulos_disk_free_bytes Space that is left.\n"
                    "# TYPE aulos_disk_free_bytes gauge\n");
    if (au_fs_free_bytes(&data, api->config->data_dir, NULL) == AU_OK)
        au_buf_printf(out, "aulos_disk_free_bytes{volume=\"data\"} %" PRIu64 "\n", data);
    if (au_store_free_bytes(api->store, &objects, NULL) == AU_OK && objects < UINT64_MAX)
        au_buf_printf(out, "aulos_disk_free_bytes{volume=\"objects\"} %" PRIu64 "\n", objects);
    gauge(out, "aulos_disk_min_free_bytes", "With less than this free no job is accepted.",
          (double)api->limits.min_free_disk);
}

au_http_result au_get_metrics(au_http_request *rq)
{
    const au_api *api = au_api_of(rq);
    au_db *db = au_api_db(rq);
    au_buf out;
    au_err err;
    au_http_result result;
    au_status st = AU_OK;
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    au_buf_init(&out, METRICS_BYTES);
    write_build(&out, api);
    AU_TRY(write_queue(&out, api, db, &err));
    AU_TRY(write_workers(&out, db, au_http_arena(rq), &err));
    AU_TRY(au_metrics_write(api->metrics, db, &out, &err));
    write_disk(&out, api);
    au_http_write_metrics(rq, &out);
    write_process(&out, api);
    AU_TRY(au_buf_check(&out, &err));
done:
    result = st == AU_OK ? au_http_reply_text(rq, 200, "text/plain; version=0.0.4; charset=utf-8",
                                              out.data, out.len)
                         : au_api_failed(rq, st, &err);
    au_buf_deinit(&out);
    return result;
}

/* ---- The system ---- */

static json_t *worker_json(const au_worker_row *w)
{
    return json_pack("{s:s, s:s, s:s?, s:s, s:I, s:o, s:o, s:o}", "id", w->id, "state", w->state,
                     "detail", *w->detail ? w->detail : NULL, "host", w->host, "pid",
                     (json_int_t)w->pid, "models", au_text_json(w->models), "started_at",
                     au_time_json(w->started_at), "seen_at", au_time_json(w->seen_at));
}

static json_t *volume_json(const char *path)
{
    struct statvfs fs;
    if (statvfs(path, &fs) != 0)
        return json_null();
    return json_pack("{s:I, s:I}", "free_bytes", (json_int_t)(fs.f_bavail * fs.f_frsize),
                     "total_bytes", (json_int_t)(fs.f_blocks * fs.f_frsize));
}

static json_t *memory_json(void)
{
    process p = look_at_process();
    return json_pack(
        "{s:I, s:I, s:I}", "server_resident_bytes", (json_int_t)p.resident_bytes, "total_bytes",
        (json_int_t)sysconf(_SC_PHYS_PAGES) * (json_int_t)sysconf(_SC_PAGESIZE), "available_bytes",
        (json_int_t)sysconf(_SC_AVPHYS_PAGES) * (json_int_t)sysconf(_SC_PAGESIZE));
}

static json_t *devices_json(const au_api *api)
{
    int threads = api->config->threads ? api->config->threads : au_threads_default();
    return json_pack("[{s:s, s:s, s:i, s:i, s:s}]", "kind", "cpu", "kernels", au_cpu_name(),
                     "processors", (int)sysconf(_SC_NPROCESSORS_ONLN), "threads", threads,
                     "numerics", au_numerics_class());
}

static json_t *queue_json(const au_api *api, const au_queue_stats *q)
{
    json_t *drain = q->drain_ms >= 0 ? json_integer(q->drain_ms) : json_null();
    return json_pack("{s:I, s:I, s:I, s:b, s:b, s:o}", "queued", (json_int_t)q->queued,
                     "processing", (json_int_t)q->processing, "limit",
                     (json_int_t)api->limits.queue_limit, "paused", q->paused, "draining",
                     atomic_load(&api->draining), "drain_ms", drain);
}

static json_t *models_json(const au_api *api)
{
    json_t *list = json_array();
    for (size_t i = 0; i < au_registry_count(api->registry); i++)
        au_list_add(&list, json_string(au_registry_name(api->registry, i)));
    return list;
}

au_http_result au_get_system(au_http_request *rq)
{
    const au_api *api = au_api_of(rq);
    au_db *db = au_api_db(rq);
    au_worker_row **rows = NULL;
    size_t n = 0;
    au_queue_stats q;
    au_err err;
    au_status st = AU_OK;
    if (!au_http_query_parse(rq, no_query))
        return AU_HTTP_DONE;
    AU_TRY(au_worker_row_list(db, au_http_arena(rq), &rows, &n, &err));
    AU_TRY(au_queue_stats_get(db, &q, &err));
done:
    if (st != AU_OK)
        return au_api_failed(rq, st, &err);
    json_t *workers = json_array();
    for (size_t i = 0; i < n; i++)
        au_list_add(&workers, worker_json(rows[i]));
    int64_t now = au_time_ms();
    return au_http_reply_json(
        rq, 200,
        json_pack("{s:s, s:o, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:s, s:i}}", "version",
                  au_version(), "started_at", au_time_json(api->started_at), "uptime_s",
                  (double)(now > api->started_at ? now - api->started_at : 0) / 1000, "workers",
                  workers, "devices", devices_json(api), "memory", memory_json(), "disk",
                  volume_json(api->config->data_dir), "queue", queue_json(api, &q), "models",
                  models_json(api), "database", "kind", "sqlite", "schema",
                  au_db_schema_version()));
}
