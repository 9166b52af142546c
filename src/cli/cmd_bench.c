/* SPDX-License-Identifier: MIT */
/* `aulos bench`: how fast this machine runs a model, and how near that is to what its memory
 * allows.
 *
 * A decoder step reads every weight of the decoder's layers and heads once, whatever the number of
 * rows, so steps/s times these bytes, as a share of the read bandwidth measured in the same run,
 * says how much is left to gain. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "aulos/aulos.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/threads.h"
#include "cli/model_path.h"
#include "cli/progress.h"

enum { PROBE_BYTES = 512 * 1024 * 1024, MAX_ROWS = 4 };
static const double CLIP_S =
    5; /* long enough for a steady rate, short enough to wait for on a large model */

/* One line of the result. */
typedef struct figure {
    const char *name, *unit;
    double value;
} figure;

typedef struct bench {
    figure figures[32];
    size_t n;
    au_progress_bar bar;
} bench;

static void add(bench *b, const char *name, double value, const char *unit)
{
    AU_ASSERT(b->n < sizeof b->figures / sizeof *b->figures);
    b->figures[b->n++] = (figure){name, unit, value};
}

static void on_progress(void *user, const au_progress *progress)
{
    au_progress_update(&((bench *)user)->bar, progress);
}

static au_status ignore_audio(void *user, size_t row, const au_audio *audio, au_err *err)
{
    (void)user;
    (void)row;
    (void)audio;
    (void)err;
    return AU_OK;
}

static size_t element_bytes(const char *dtype)
{
    return !strcasecmp(dtype, "f32") ? 4 : 2;
}

/* Bytes of weights that every decoder step reads: layers and heads, without the keys and values of
 * the text, which are computed once. */
static au_status step_bytes(const au_model *model, double *bytes, au_err *err)
{
    char *text = NULL;
    json_t *report = NULL, *tensor, *dim;
    size_t i, k;
    au_status st = AU_OK;
    *bytes = 0;
    AU_TRY(au_model_report(model, false, &text, err));
    AU_TRY(au_json_parse(&report, text, strlen(text), "report", err));
    json_array_foreach(json_object_get(report, "tensors"), i, tensor)
    {
        const char *name = json_string_value(json_object_get(tensor, "name"));
        double size = (double)element_bytes(json_string_value(json_object_get(tensor, "dtype")));
        if (!au_str_starts(name, "decoder.model.decoder.layers.") &&
            !au_str_starts(name, "decoder.lm_heads."))
            continue;
        if (strstr(name, "encoder_attn.k_proj") || strstr(name, "encoder_attn.v_proj"))
            continue;
        json_array_foreach(json_object_get(tensor, "shape"), k, dim) size *= json_number_value(dim);
        *bytes += size;
    }
done:
    json_decref(report);
    au_text_free(text);
    return st;
}

static au_status run_rows(bench *b, au_model *model, size_t rows, bool quiet, au_err *err)
{
    au_params params;
    au_row row[MAX_ROWS];
    au_params_init(&params, sizeof params);
    params.duration_s = CLIP_S;
    for (size_t i = 0; i < rows; i++)
        row[i] = (au_row){.size = sizeof *row,
                          .prompt = "calm piano with soft strings",
                          .seed = i,
                          .params = &params,
                          .strength = 1};
    au_request request = {.size = sizeof request,
                          .model = model,
                          .rows = row,
                          .n_rows = rows,
                          .user = b,
                          .on_progress = on_progress,
                          .on_audio = ignore_audio};
    au_progress_begin(&b->bar, quiet);
    au_status st = au_generate(&request, err);
    au_progress_clear(&b->bar);
    return st;
}

static au_status measure(bench *b, const au_options *o, const char *dir, au_err *err)
{
    bool quiet = au_options_flag(o, AU_OPT_QUIET);
    int threads = (int)au_options_int(o, AU_OPT_THREADS);
    double bandwidth = 0, bytes = 0, one = 0;
    au_model *model = NULL;
    au_model_options options = {.size = sizeof options, .threads = threads};
    au_status st = AU_OK;
    threads = threads ? threads : au_threads_default();
    add(b, "threads", threads, "");
    AU_TRY(au_probe_bandwidth(threads, PROBE_BYTES, &bandwidth, err));
    add(b, "memory_read", bandwidth / 1e9, "GB/s");
    int64_t started = au_mono_ns();
    AU_TRY(au_model_open(dir, &options, &model, err));
    add(b, "model_open", (double)(au_mono_ns() - started) / 1e6, "ms");
    AU_TRY(step_bytes(model, &bytes, err));
    add(b, "weights_per_step", bytes / 1e6, "MB");
    /* The first run pages the weights in. */
    AU_TRY(run_rows(b, model, 1, quiet, err));
    for (size_t rows = 1; rows <= MAX_ROWS; rows *= 4) {
        started = au_mono_ns();
        AU_TRY(run_rows(b, model, rows, quiet, err));
        double total = (double)(au_mono_ns() - started) / 1e9;
        double codec = (double)b->bar.stage_ns[AU_STAGE_CODEC] / 1e9;
        /* Progress counts the steps of each row; the rows go through the decoder together. */
        double rate =
            (double)b->bar.steps / (double)rows / ((double)b->bar.stage_ns[AU_STAGE_DECODE] / 1e9);
        bool single = rows == 1;
        add(b, single ? "text_1" : "text_4", (double)b->bar.stage_ns[AU_STAGE_TEXT] / 1e6, "ms");
        add(b, single ? "step_1" : "step_4", 1e3 / rate, "ms");
        add(b, single ? "steps_per_s_1" : "steps_per_s_4", rate, "1/s");
        add(b, single ? "bandwidth_share_1" : "bandwidth_share_4", 100 * rate * bytes / bandwidth,
            "%");
        add(b, single ? "codec_1" : "codec_4", (double)rows * CLIP_S / codec, "x real time");
        add(b, single ? "whole_1" : "whole_4", (double)rows * CLIP_S / total, "x real time");
        if (single)
            one = total;
        else
            add(b, "four_cost", total / one, "x one");
    }
done:
    au_model_unref(&model);
    return st;
}

static au_status print_figures(const bench *b, const au_options *o, const char *dir, au_err *err)
{
    if (au_options_flag(o, AU_OPT_JSON)) {
        json_t *figures = json_object();
        for (size_t i = 0; i < b->n; i++)
            json_object_set_new(
                figures, b->figures[i].name,
                json_pack("{s:f, s:s}", "value", b->figures[i].value, "unit", b->figures[i].unit));
        json_t *j = json_pack("{s:s, s:s, s:s, s:f, s:o}", "model", dir, "kernels", au_cpu_name(),
                              "version", au_version(), "clip_s", CLIP_S, "figures", figures);
        au_status st = j ? au_cli_print_json(j, err) : au_fail(err, AU_NOMEM, "out of memory");
        json_decref(j);
        return st;
    }
    printf("name,value,unit\nkernels,%s,\nclip,%g,s\n", au_cpu_name(), CLIP_S);
    for (size_t i = 0; i < b->n; i++)
        printf("%s,%.4g,%s\n", b->figures[i].name, b->figures[i].value, b->figures[i].unit);
    return fflush(stdout) == 0 ? AU_OK : au_fail(err, AU_IO, "cannot write to standard output");
}

int au_command_bench(const au_options *o)
{
    bench b = {0};
    char *dir = NULL;
    au_err err_details = {0}, *err = &err_details;
    au_status st = AU_OK;
    if (au_options_n_args(o))
        return au_cli_usage("unexpected argument %s", au_options_arg(o, 0));
    AU_TRY(au_model_path_one(o, &dir, err));
    AU_TRY(measure(&b, o, dir, err));
    AU_TRY(print_figures(&b, o, dir, err));
done:
    free(dir);
    return st == AU_OK ? AU_EXIT_OK
                       : au_cli_error(err, st == AU_INVALID ? AU_EXIT_USAGE : AU_EXIT_FAILED);
}
