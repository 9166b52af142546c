/* SPDX-License-Identifier: MIT */
/* `aulos generate`: text to audio files, without a server.
 *
 * Order: the command line is checked whole, then the files' places, then the model and its adapters
 * are opened, then every prompt's length, then one request makes all clips. Each clip is written as
 * soon as it is there, whole and under its final name or not at all. A first SIGINT or SIGTERM is
 * taken between two units of the engine's work and leaves no partial file; a second one ends the
 * process at once. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "aulos/aulos.h"
#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/generate_plan.h"
#include "cli/model_path.h"
#include "cli/npy.h"
#include "cli/progress.h"
#include "jobs/params_json.h"

typedef struct clip_result {
    bool done;
    uint64_t n_frames;
    int sample_rate, channels;
    au_clip_stats stats;
} clip_result;

typedef struct generation {
    const au_options *options;
    au_plan plan;
    char *model_dir;
    au_model *model;
    au_adapter **adapters; /* plan.n_variants; NULL where the variant has none */
    au_params params;
    char *params_json;
    au_row *rows;         /* plan.n_clips */
    clip_result *results; /* plan.n_clips */
    au_progress_bar bar;
    double max_duration_s, load_s, total_s;
    const char *trace_dir; /* NULL: none */
    au_status trace_status;
    au_err trace_err;
} generation;

/* ---- Interruption
 * ------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted; /* the signal's number */
static volatile sig_atomic_t writing;     /* a file is half-written: not now */

static void on_signal(int sig)
{
    if (interrupted && !writing)
        _exit(128 + sig);
    interrupted = sig;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* ---- Preparation
 * -------------------------------------------------------------------------------------- */

/* Sets the exit status for what is wrong with values, as against files. */
static int exit_for(au_status st)
{
    return st == AU_INVALID ? AU_EXIT_USAGE : AU_EXIT_FAILED;
}

static au_status open_model(generation *g, int *exit_status, au_err *err)
{
    static const struct {
        const char *name;
        au_weights weights;
    } types[] = {{"auto", AU_WEIGHTS_AUTO},
                 {"f32", AU_WEIGHTS_F32},
                 {"f16", AU_WEIGHTS_F16},
                 {"bf16", AU_WEIGHTS_BF16}};
    const char *type = au_options_text(g->options, AU_OPT_WEIGHTS);
    au_model_options options = {.size = sizeof options,
                                .threads = (int)au_options_int(g->options, AU_OPT_THREADS)};
    size_t k = 0;
    while (k < sizeof types / sizeof *types && strcmp(types[k].name, type) != 0)
        k++;
    if (k == sizeof types / sizeof *types) {
        *exit_status = AU_EXIT_USAGE;
        return au_fail(err, AU_UNSUPPORTED, "option --weights %s is not available in this version",
                       type);
    }
    options.weights = types[k].weights;
    au_status st = au_model_open(g->model_dir, &options, &g->model, err);
    *exit_status = AU_EXIT_FAILED;
    if (st == AU_UNSUPPORTED && options.weights != AU_WEIGHTS_AUTO) {
        /* The model itself, or the conversion? Only the second is the command line's fault. */
        au_model *as_stored = NULL;
        options.weights = AU_WEIGHTS_AUTO;
        if (au_model_open(g->model_dir, &options, &as_stored, NULL) == AU_OK) {
            *exit_status = AU_EXIT_USAGE;
            (void)au_err_prefix(err, st, "option --weights %s is not available in this version",
                                type);
        }
        au_model_unref(&as_stored);
    }
    return st;
}

static au_status open_adapters(generation *g, au_err *err)
{
    au_status st = au_calloc(&g->adapters, g->plan.n_variants, sizeof *g->adapters, err);
    for (size_t i = 0; st == AU_OK && i < g->plan.n_variants; i++) {
        const au_plan_variant *v = &g->plan.variants[i];
        char *dir = NULL;
        if (!v->folder)
            continue;
        st = au_adapter_path_find(g->model_dir, v->folder, &dir, err);
        if (st == AU_OK) {
            st = au_adapter_open(g->model, dir, &g->adapters[i], err);
            if (st != AU_OK)
                (void)au_err_prefix(err, st, "adapter %s", dir);
        }
        free(dir);
    }
    return st;
}

static void set_params(generation *g)
{
    const au_options *o = g->options;
    au_params *p = &g->params;
    au_params_init(p, sizeof *p);
    au_params_preset(p, g->model,
                     strcmp(au_options_text(o, AU_OPT_PRESET), "hf") ? AU_PRESET_AUDIOCRAFT
                                                                     : AU_PRESET_HF);
    /* However short, it is one codec frame at least. */
    p->duration_s =
        fmax(au_options_real(o, AU_OPT_DURATION), 1 / au_model_get_info(g->model)->frame_rate);
    p->greedy = au_options_flag(o, AU_OPT_GREEDY);
    if (au_options_given(o, AU_OPT_GUIDANCE))
        p->guidance = au_options_real(o, AU_OPT_GUIDANCE);
    if (au_options_given(o, AU_OPT_TEMPERATURE))
        p->temperature = au_options_real(o, AU_OPT_TEMPERATURE);
    if (au_options_given(o, AU_OPT_TOP_K))
        p->top_k = (int)au_options_int(o, AU_OPT_TOP_K);
    if (au_options_given(o, AU_OPT_TOP_P))
        p->top_p = au_options_real(o, AU_OPT_TOP_P);
}

/* A prompt that the model cannot take is found before any other is worked on. */
static au_status check_prompts(generation *g, au_err *err)
{
    size_t limit = (size_t)au_model_get_info(g->model)->max_prompt_tokens;
    const char *negative = au_options_text(g->options, AU_OPT_NEGATIVE);
    for (size_t i = 0; i < g->plan.n_prompts + (negative != NULL); i++) {
        bool is_negative = i == g->plan.n_prompts;
        int32_t *ids = NULL;
        size_t n = 0;
        au_status st =
            au_tokenize(g->model, is_negative ? negative : g->plan.prompts[i].text, &ids, &n, err);
        free(ids);
        if (st == AU_LIMIT || (st == AU_OK && n > limit))
            st = au_fail(err, AU_INVALID, "%s has %zu tokens, the model takes at most %zu",
                         is_negative ? "the negative prompt" : "the prompt", n, limit);
        if (st != AU_OK && g->plan.prompts[0].line && !is_negative)
            return au_err_prefix(err, st, "line %zu", g->plan.prompts[i].line);
        if (st != AU_OK)
            return st;
    }
    return AU_OK;
}

static au_status make_rows(generation *g, au_err *err)
{
    au_status st = au_calloc(&g->rows, g->plan.n_clips, sizeof *g->rows, err);
    if (st == AU_OK)
        st = au_calloc(&g->results, g->plan.n_clips, sizeof *g->results, err);
    for (size_t i = 0; st == AU_OK && i < g->plan.n_clips; i++) {
        const au_plan_clip *clip = &g->plan.clips[i];
        g->rows[i] = (au_row){.size = sizeof(au_row),
                              .prompt = g->plan.prompts[clip->prompt].text,
                              .negative = au_options_text(g->options, AU_OPT_NEGATIVE),
                              .adapter = g->adapters[clip->variant],
                              .strength = g->plan.variants[clip->variant].strength,
                              .seed = clip->seed,
                              .params = &g->params};
    }
    return st;
}

/* ---- Callbacks
 * ---------------------------------------------------------------------------------------- */

static bool is_cancelled(void *user, size_t row)
{
    (void)user;
    (void)row;
    return interrupted != 0;
}

static void on_progress(void *user, const au_progress *progress)
{
    generation *g = user;
    au_progress_update(&g->bar, progress);
}

static au_status on_audio(void *user, size_t row, const au_audio *audio, au_err *err)
{
    generation *g = user;
    const au_plan_clip *clip = &g->plan.clips[row];
    clip_result *r = &g->results[row];
    const au_adapter *adapter = g->adapters[clip->variant];
    au_recipe recipe = {.prompt = g->rows[row].prompt,
                        .negative = g->rows[row].negative,
                        .model_fingerprint = au_model_get_info(g->model)->fingerprint,
                        .adapter_sha256 = adapter ? au_adapter_get_info(adapter)->sha256 : NULL,
                        .strength = g->rows[row].strength,
                        .seed = clip->seed,
                        .params_json = g->params_json,
                        .numerics = au_numerics_class()};
    au_clip samples = {audio->frames, audio->n_frames, audio->channels, audio->sample_rate};
    void *file = NULL;
    size_t len = 0;
    au_status st = AU_OK;
    AU_TRY(au_audio_encode(&samples, g->plan.format, &recipe, &file, &len, &r->stats, err));
    writing = 1;
    st = au_file_write(clip->path, file, len, au_options_flag(g->options, AU_OPT_FORCE), err);
    writing = 0;
    AU_TRY(st);
    r->n_frames = r->stats.n_frames;
    r->sample_rate = r->stats.sample_rate;
    r->channels = audio->channels;
    r->done = true;
done:
    free(file);
    return st;
}

static void on_trace(const char *stage, const char *dtype, int rank, const int64_t *shape,
                     const void *data, void *user)
{
    generation *g = user;
    char *name = NULL, *path = NULL;
    if (g->trace_status != AU_OK)
        return;
    au_status st = asprintf(&name, "%s.npy", stage) < 0
                       ? au_fail(&g->trace_err, AU_NOMEM, "out of memory")
                       : AU_OK;
    if (st == AU_OK)
        st = au_path_join(&path, g->trace_dir, name, &g->trace_err);
    if (st == AU_OK)
        st = au_npy_write(path, dtype, rank, shape, data, &g->trace_err);
    g->trace_status = st;
    free(name);
    free(path);
}

/* ---- Report
 * ------------------------------------------------------------------------------------------- */

static json_t *finite_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static double decibels(double amplitude)
{
    return 20 * log10(amplitude);
}

static json_t *clip_json(const generation *g, size_t i)
{
    const au_plan_clip *clip = &g->plan.clips[i];
    const clip_result *r = &g->results[i];
    const au_plan_variant *v = &g->plan.variants[clip->variant];
    const au_adapter *adapter = g->adapters[clip->variant];
    json_t *j = json_pack(
        "{s:I, s:I, s:I, s:s, s:s, s:s, s:i, s:i, s:I, s:f, s:I}", "index", (json_int_t)clip->index,
        "variant", (json_int_t)clip->variant, "seed", (json_int_t)clip->seed, "file", clip->path,
        "sha256", r->stats.sha256, "pcm_sha256", r->stats.pcm_sha256, "sample_rate", r->sample_rate,
        "channels", r->channels, "frames", (json_int_t)r->n_frames, "duration_s",
        (double)r->n_frames / r->sample_rate, "clipped", (json_int_t)r->stats.clipped);
    json_object_set_new(j, "loudness_lufs", finite_or_null(r->stats.loudness_lufs));
    json_object_set_new(j, "true_peak_dbtp", finite_or_null(r->stats.true_peak_dbtp));
    json_object_set_new(j, "peak", finite_or_null(r->stats.peak));
    json_object_set_new(j, "adapter",
                        !adapter
                            ? json_null()
                            : json_pack("{s:s, s:f, s:s}", "name", v->name, "strength", v->strength,
                                        "sha256", au_adapter_get_info(adapter)->sha256));
    if (g->plan.prompts[clip->prompt].line) {
        json_object_set_new(j, "line",
                            json_integer((json_int_t)g->plan.prompts[clip->prompt].line));
        json_object_set_new(j, "prompt", json_string(g->plan.prompts[clip->prompt].text));
    }
    return j;
}

static au_status print_json(const generation *g, au_err *err)
{
    const au_model_info *info = au_model_get_info(g->model);
    json_t *samples = json_array();
    for (size_t i = 0; i < g->plan.n_clips; i++)
        json_array_append_new(samples, clip_json(g, i));
    json_t *j = json_pack(
        "{s:{s:s, s:s, s:s}, s:s?, s:s?, s:s, s:o?, s:o, s:{s:f, s:f, s:f}}", "model", "name",
        info->name, "family", info->family, "fingerprint", info->fingerprint, "prompt",
        g->plan.prompts[0].line ? NULL : g->plan.prompts[0].text, "negative",
        au_options_text(g->options, AU_OPT_NEGATIVE), "numerics", au_numerics_class(), "params",
        json_loads(g->params_json, 0, NULL), "samples", samples, "timing", "load_s", g->load_s,
        "steps_per_s", au_progress_steps_per_s(&g->bar), "total_s", g->total_s);
    au_status st = j ? au_cli_print_json(j, err) : au_fail(err, AU_NOMEM, "out of memory");
    json_decref(j);
    return st;
}

/* One line a file: name, seed, and how it sounds in numbers. */
static void print_clips(const generation *g)
{
    for (size_t i = 0; g->results && i < g->plan.n_clips; i++) {
        const au_plan_clip *clip = &g->plan.clips[i];
        const clip_result *r = &g->results[i];
        if (!r->done)
            continue;
        printf("%s  seed %llu  %.2f s", clip->path, (unsigned long long)clip->seed,
               (double)r->n_frames / r->sample_rate);
        if (isfinite(r->stats.loudness_lufs))
            printf("  %.1f LUFS", r->stats.loudness_lufs);
        if (r->stats.peak > 0)
            printf("  peak %.1f dBFS", decibels(r->stats.peak));
        else
            printf("  silent");
        if (r->stats.clipped)
            printf("  %llu values clipped", (unsigned long long)r->stats.clipped);
        putchar('\n');
    }
}

static au_status report(const generation *g, au_err *err)
{
    const au_options *o = g->options;
    if (au_options_flag(o, AU_OPT_JSON))
        return print_json(g, err);
    print_clips(g);
    if (!au_options_flag(o, AU_OPT_QUIET))
        au_cli_note("%zu file%s in %.1f s, %.0f steps/s", g->plan.n_clips,
                    g->plan.n_clips == 1 ? "" : "s", g->total_s, au_progress_steps_per_s(&g->bar));
    return fflush(stdout) == 0 ? AU_OK : au_fail(err, AU_IO, "cannot write to standard output");
}

/* ---- The command
 * -------------------------------------------------------------------------------------- */

static au_status prepare(generation *g, int *exit_status, au_err *err)
{
    const au_options *o = g->options;
    au_status st = AU_OK;
    st = au_plan_init(&g->plan, o, err);
    *exit_status = exit_for(st);
    AU_TRY(st);
    /* From here on; a prompt being typed on standard input is ended by Ctrl-C as usual. */
    catch_signals();
    AU_TRY(au_plan_check_files(&g->plan, au_options_flag(o, AU_OPT_FORCE), err));
    *exit_status = AU_EXIT_FAILED;
    g->trace_dir = au_options_text(o, AU_OPT_TRACE);
    if (g->trace_dir)
        AU_TRY(au_mkdirs(g->trace_dir, err));
    st = au_model_path_one(o, &g->model_dir, err);
    *exit_status = exit_for(st);
    AU_TRY(st);
    AU_TRY(open_model(g, exit_status, err));
    AU_TRY(open_adapters(g, err));
    set_params(g);
    /* Nothing was trained on more than 30 s, and a model trained on less still makes 30 s of
     * something. */
    g->max_duration_s = au_options_given(o, AU_OPT_MAX_DURATION)
                            ? au_options_real(o, AU_OPT_MAX_DURATION)
                            : fmax(30, au_model_get_info(g->model)->trained_s);
    st = au_params_check(&g->params, g->model, g->max_duration_s, err);
    if (st == AU_OK)
        st = check_prompts(g, err);
    *exit_status = exit_for(st);
    AU_TRY(st);
    AU_TRY(au_params_json(&g->params, &g->params_json, err));
    AU_TRY(make_rows(g, err));
    if (g->params.duration_s > 30 && !au_options_flag(o, AU_OPT_QUIET))
        au_cli_note("warning: %g s is longer than the 30 s that such models are trained on",
                    g->params.duration_s);
done:
    return st;
}

static au_status generate(generation *g, au_err *err)
{
    const au_options *o = g->options;
    au_request request = {.size = sizeof request,
                          .model = g->model,
                          .rows = g->rows,
                          .n_rows = g->plan.n_clips,
                          .memory_bytes = (uint64_t)au_options_int(o, AU_OPT_SESSION_MEMORY),
                          .max_duration_s = g->max_duration_s,
                          .user = g,
                          .cancelled = is_cancelled,
                          .on_progress = on_progress,
                          .on_audio = on_audio,
                          .trace = g->trace_dir ? on_trace : NULL};
    bool quiet = au_options_flag(o, AU_OPT_QUIET) || au_options_flag(o, AU_OPT_JSON);
    au_progress_begin(&g->bar, quiet);
    au_status st = au_generate(&request, err);
    au_progress_clear(&g->bar);
    if (st == AU_OK && g->trace_status != AU_OK) {
        *err = g->trace_err;
        st = g->trace_status;
    }
    return st;
}

static void generation_free(generation *g)
{
    for (size_t i = 0; g->adapters && i < g->plan.n_variants; i++)
        au_adapter_unref(&g->adapters[i]);
    free(g->adapters);
    au_model_unref(&g->model);
    free(g->model_dir);
    free(g->params_json);
    free(g->rows);
    free(g->results);
    au_plan_deinit(&g->plan);
}

int au_command_generate(const au_options *o)
{
    generation g = {.options = o};
    au_err err = {0};
    int exit_status = AU_EXIT_FAILED;
    int64_t started = au_mono_ns();
    au_status st = prepare(&g, &exit_status, &err);
    g.load_s = (double)(au_mono_ns() - started) / 1e9;
    if (st == AU_OK) {
        st = generate(&g, &err);
        exit_status = exit_for(st);
        g.total_s = (double)(au_mono_ns() - started) / 1e9;
    }
    if (interrupted && st != AU_OK) {
        if (!au_options_flag(o, AU_OPT_JSON))
            print_clips(&g);
        au_cli_note("interrupted");
        exit_status = 128 + interrupted;
    } else if (st == AU_OK && (st = report(&g, &err)) == AU_OK) {
        exit_status = AU_EXIT_OK;
    } else {
        au_cli_error(&err, exit_status == AU_EXIT_OK ? AU_EXIT_FAILED : exit_status);
    }
    generation_free(&g);
    return exit_status;
}
