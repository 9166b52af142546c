/* SPDX-License-Identifier: MIT */
/* The plan of a `generate` run. Pure but for reading prompts; all its texts are owned by the plan.
 *
 * File names: FILE for one clip; -<sample> and -<adapter|none>- before the extension where there
 * are several samples and variants; "<line>-" before the name with --prompts. Two variants of one
 * name (the same adapter at two strengths) carry their strengths, and their number if that does not
 * tell them apart either. */
#include "cli/generate_plan.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"

static const uint64_t SEEDS = UINT64_C(1) << 53;

/* ---- Prompts
 * ------------------------------------------------------------------------------------------ */

static au_status add_prompt(au_plan *plan, const char *text, size_t len, size_t line, au_err *err)
{
    char place[48] = "prompt";
    if (line)
        snprintf(place, sizeof place, "prompt of line %zu", line);
    if (memchr(text, '\0', len))
        return au_fail(err, AU_INVALID, "%s contains a NUL byte", place);
    if (!au_utf8_valid(text, len))
        return au_fail(err, AU_INVALID, "%s is not valid UTF-8", place);
    if (plan->n_prompts == AU_PLAN_MAX_PROMPTS)
        return au_fail(err, AU_INVALID, "more than %d prompts", AU_PLAN_MAX_PROMPTS);
    if (len > AU_PLAN_MAX_PROMPT_BYTES)
        return au_fail(err, AU_INVALID, "%s has %zu bytes, allowed are %d", place, len,
                       AU_PLAN_MAX_PROMPT_BYTES);
    au_plan_prompt *p = &plan->prompts[plan->n_prompts];
    au_status st = au_calloc(&p->text, len + 1, 1, err);
    if (st != AU_OK)
        return st;
    memcpy(p->text, text, len);
    p->line = line;
    plan->n_prompts++;
    return AU_OK;
}

static au_status read_stdin(au_buf *b, au_err *err)
{
    char block[65536];
    for (ssize_t n; (n = read(STDIN_FILENO, block, sizeof block)) != 0;) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return au_fail_errno(err, errno, "cannot read standard input");
        au_buf_append(b, block, (size_t)n);
    }
    if (b->status == AU_LIMIT)
        return au_fail(err, AU_INVALID, "standard input has more than %d bytes",
                       AU_PLAN_MAX_PROMPT_BYTES);
    return au_buf_check(b, err);
}

static au_status prompt_from_stdin(au_plan *plan, au_err *err)
{
    au_buf b;
    au_buf_init(&b, AU_PLAN_MAX_PROMPT_BYTES);
    au_status st = read_stdin(&b, err);
    size_t len = b.len;
    if (len && b.data[len - 1] == '\n')
        len--;
    if (st == AU_OK)
        st = add_prompt(plan, au_buf_cstr(&b), len, 0, err);
    au_buf_deinit(&b);
    return st;
}

/* A prompt a line; empty lines are skipped but counted. */
static au_status prompts_from_file(au_plan *plan, const char *path, au_err *err)
{
    char *text = NULL;
    size_t len = 0, line = 0;
    au_status st = au_file_read(&text, &len, path, 64 * 1024 * 1024, err);
    for (const char *p = text, *end = text + len; st == AU_OK && p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((newline ? newline : end) - p);
        size_t kept = n && p[n - 1] == '\r' ? n - 1 : n;
        line++;
        if (kept)
            st = add_prompt(plan, p, kept, line, err);
        p += n + 1;
    }
    if (st == AU_OK && !plan->n_prompts)
        st = au_fail(err, AU_INVALID, "no prompt in %s", path);
    free(text);
    return st;
}

static au_status collect_prompts(au_plan *plan, const au_options *o, au_err *err)
{
    const char *file = au_options_text(o, AU_OPT_PROMPTS), *prompt = au_options_arg(o, 0);
    if (au_options_n_args(o) > 1)
        return au_fail(err, AU_INVALID,
                       "one PROMPT expected, found also \"%s\" (quote a prompt of several words)",
                       au_options_arg(o, 1));
    if (file && prompt)
        return au_fail(err, AU_INVALID,
                       "PROMPT and --prompts are both given, expected one of them");
    if (!file && !prompt)
        return au_fail(err, AU_INVALID, "no PROMPT given, see `aulos help generate`");
    if (file)
        return prompts_from_file(plan, file, err);
    if (!strcmp(prompt, "-"))
        return prompt_from_stdin(plan, err);
    return add_prompt(plan, prompt, strlen(prompt), 0, err);
}

/* ---- Variants
 * ----------------------------------------------------------------------------------------- */

au_status au_plan_split_adapter(const char *value, char **folder, double *strength, au_err *err)
{
    const char *colon = strrchr(value, ':');
    double number;
    *strength = 1;
    au_status st = au_strdup(folder, value, err);
    if (st == AU_OK && colon && colon > value && au_parse_f64(colon + 1, &number) && number >= -2 &&
        number <= 2) {
        (*folder)[colon - value] = '\0';
        *strength = number;
    }
    return st;
}

static au_status add_variant(au_plan *plan, const char *value, au_err *err)
{
    au_plan_variant *v = &plan->variants[plan->n_variants++];
    au_status st = au_plan_split_adapter(value, &v->folder, &v->strength, err);
    if (st != AU_OK)
        return st;
    if (!strcmp(v->folder, "none")) {
        if (strcmp(value, "none") != 0)
            return au_fail(err, AU_INVALID, "option --adapter is %s, but \"none\" has no strength",
                           value);
        free(v->folder);
        v->folder = NULL;
        return au_strdup(&v->name, "none", err);
    }
    while (strlen(v->folder) > 1 && au_str_ends(v->folder, "/"))
        v->folder[strlen(v->folder) - 1] = '\0';
    return au_strdup(&v->name, au_path_base(v->folder), err);
}

static au_status collect_variants(au_plan *plan, const au_options *o, au_err *err)
{
    size_t n = au_options_count(o, AU_OPT_ADAPTER);
    au_status st = au_calloc(&plan->variants, n ? n : 1, sizeof *plan->variants, err);
    if (st != AU_OK)
        return st;
    if (!n)
        return add_variant(plan, "none", err);
    for (size_t i = 0; i < n; i++) {
        st = add_variant(plan, au_options_list(o, AU_OPT_ADAPTER)[i], err);
        for (size_t k = 0; st == AU_OK && k < i; k++) {
            const au_plan_variant *a = &plan->variants[k], *b = &plan->variants[i];
            if (!a->folder == !b->folder && (!a->folder || !strcmp(a->folder, b->folder)) &&
                a->strength == b->strength)
                st = au_fail(err, AU_INVALID, "option --adapter %s is given twice", b->name);
        }
        if (st != AU_OK)
            return st;
    }
    return AU_OK;
}

/* What stands in file names for variant i: its name, with strength and number as far as needed to
 * tell it apart. */
static void variant_label(au_buf *b, const au_plan *plan, size_t i)
{
    const au_plan_variant *v = &plan->variants[i];
    bool same_name = false, same_strength = false;
    for (size_t k = 0; k < plan->n_variants; k++) {
        bool same = k != i && !strcmp(plan->variants[k].name, v->name);
        same_name |= same;
        same_strength |= same && plan->variants[k].strength == v->strength;
    }
    au_buf_str(b, v->name);
    if (same_name)
        au_buf_printf(b, "_%.15g", v->strength);
    if (same_strength)
        au_buf_printf(b, "_%zu", i);
}

/* ---- Files
 * -------------------------------------------------------------------------------------------- */

/* "a-calm-piano-melody": the letters and digits of the first words of a prompt. */
static void slug(au_buf *b, const char *prompt)
{
    enum { MAX = 40 };
    size_t begin = b->len;
    for (const char *p = prompt; *p && b->len - begin < MAX; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 128 && isalnum(c))
            au_buf_char(b, (char)tolower(c));
        else if (b->len > begin && b->data[b->len - 1] != '-')
            au_buf_char(b, '-');
    }
    if (b->len > begin && b->data[b->len - 1] == '-')
        b->data[--b->len] = '\0';
    if (b->len == begin)
        au_buf_str(b, "aulos");
}

static au_status choose_format(au_plan *plan, const au_options *o, au_err *err)
{
    const char *name = au_options_text(o, AU_OPT_FORMAT), *file = au_options_text(o, AU_OPT_OUTPUT);
    plan->format = AU_FORMAT_WAV;
    if (name && !au_format_parse(name, &plan->format))
        return au_fail(err, AU_INVALID, "option --format %s is not known", name);
    if (!file)
        return AU_OK;
    const char *base = au_path_base(file), *dot = strrchr(base, '.');
    if (!*base)
        return au_fail(err, AU_INVALID, "option --output %s is a folder, expected a file name",
                       file);
    au_format of_file;
    if (!dot || !au_format_of_path(file, &of_file))
        return au_fail(
            err, AU_INVALID,
            "option --output %s: expected a name that ends with .wav, .flac, .mp3 or .opus", file);
    if (!name)
        plan->format = of_file;
    else if (strcmp(au_format_extension(of_file), au_format_extension(plan->format)) != 0)
        return au_fail(err, AU_INVALID, "option --format is %s, but --output %s ends with %s", name,
                       file, dot);
    return AU_OK;
}

static au_status name_file(const au_plan *plan, const char *output, au_plan_clip *clip, au_err *err)
{
    const au_plan_prompt *prompt = &plan->prompts[clip->prompt];
    const char *base = output ? au_path_base(output) : "";
    au_buf b;
    au_buf_init(&b, 65536);
    if (output)
        au_buf_append(&b, output, (size_t)(base - output));
    if (prompt->line)
        au_buf_printf(&b, "%zu-", prompt->line);
    if (output) {
        au_buf_append(&b, base, (size_t)(strrchr(base, '.') - base));
    } else {
        slug(&b, prompt->text);
        au_buf_printf(&b, "-%llu", (unsigned long long)plan->seed);
    }
    if (plan->n_variants > 1) {
        au_buf_char(&b, '-');
        variant_label(&b, plan, clip->variant);
    }
    if (plan->n_variants > 1 || plan->n_samples > 1)
        au_buf_printf(&b, "-%zu", clip->index);
    if (output)
        au_buf_str(&b, strrchr(base, '.'));
    else
        au_buf_printf(&b, ".%s", au_format_extension(plan->format));
    au_status st = au_buf_take(&b, &clip->path, NULL, err);
    au_buf_deinit(&b);
    return st;
}

static au_status list_clips(au_plan *plan, const au_options *o, au_err *err)
{
    size_t n = plan->n_prompts * plan->n_variants; /* at most 10 000 times 4096 */
    if (n > AU_PLAN_MAX_CLIPS / plan->n_samples)
        return au_fail(err, AU_INVALID,
                       "%zu prompts, %zu variants and %zu samples are more than %d files",
                       plan->n_prompts, plan->n_variants, plan->n_samples, AU_PLAN_MAX_CLIPS);
    n *= plan->n_samples;
    au_status st = au_calloc(&plan->clips, n, sizeof *plan->clips, err);
    for (size_t i = 0; st == AU_OK && i < n; i++) {
        au_plan_clip *clip = &plan->clips[i];
        clip->index = i % plan->n_samples;
        clip->variant = i / plan->n_samples % plan->n_variants;
        clip->prompt = i / plan->n_samples / plan->n_variants;
        clip->seed = (plan->seed + clip->index) % SEEDS;
        st = name_file(plan, au_options_text(o, AU_OPT_OUTPUT), clip, err);
        plan->n_clips += st == AU_OK;
    }
    return st;
}

au_status au_plan_init(au_plan *plan, const au_options *o, au_err *err)
{
    au_status st = AU_OK;
    memset(plan, 0, sizeof *plan);
    AU_TRY(au_calloc(&plan->prompts, AU_PLAN_MAX_PROMPTS, sizeof *plan->prompts, err));
    plan->n_samples = (size_t)au_options_int(o, AU_OPT_NUM_SAMPLES);
    plan->seed = au_options_given(o, AU_OPT_SEED) ? (uint64_t)au_options_int(o, AU_OPT_SEED)
                                                  : au_random_seed();
    AU_TRY(choose_format(plan, o, err));
    AU_TRY(collect_variants(plan, o, err));
    AU_TRY(collect_prompts(plan, o, err));
    AU_TRY(list_clips(plan, o, err));
done:
    return st;
}

void au_plan_deinit(au_plan *plan)
{
    for (size_t i = 0; i < plan->n_prompts; i++)
        free(plan->prompts[i].text);
    for (size_t i = 0; i < plan->n_variants; i++) {
        free(plan->variants[i].folder);
        free(plan->variants[i].name);
    }
    for (size_t i = 0; plan->clips && i < plan->n_clips; i++)
        free(plan->clips[i].path);
    free(plan->prompts);
    free(plan->variants);
    free(plan->clips);
    memset(plan, 0, sizeof *plan);
}

au_status au_plan_check_files(const au_plan *plan, bool force, au_err *err)
{
    for (size_t i = 0; i < plan->n_clips; i++) {
        const char *path = plan->clips[i].path;
        if (strlen(au_path_base(path)) > NAME_MAX)
            return au_fail(err, AU_IO, "file name %s is longer than %d bytes", au_path_base(path),
                           NAME_MAX);
        if (au_dir_exists(path))
            return au_fail(err, AU_EXISTS, "%s is a folder", path);
        if (!force && au_file_exists(path))
            return au_fail(err, AU_EXISTS, "%s exists already; --force overwrites it", path);
        /* The surest test of a place is to begin the write. */
        au_atomic_file file = {0};
        au_status st = au_atomic_begin(&file, path, err);
        au_atomic_abort(&file);
        if (st != AU_OK)
            return st;
    }
    return AU_OK;
}
