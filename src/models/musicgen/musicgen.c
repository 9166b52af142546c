/* SPDX-License-Identifier: MIT */
/* The MusicGen family: opening, facts, and the vtable. */
#include <stdlib.h>

#include "base/mem.h"
#include "models/musicgen/session.h"

/* ---- Opening ---- */

static void close_net(au_net **net)
{
    if (!*net)
        return;
    au_arena_deinit(&(*net)->arena);
    free(*net);
    *net = NULL;
}

static au_status open_net(au_net **out, const au_source *source, au_err *err)
{
    au_status st = AU_OK;
    au_net *net = NULL;
    mg_problems problems = {0};
    au_buf_init(&problems.text, sizeof err->message - 64);
    AU_TRY(au_calloc(&net, 1, sizeof *net, err));
    au_arena_init(&net->arena, SIZE_MAX / 4);
    au_mg_config_read(&net->config, source->config, source->generation, &problems);
    if (!problems.count)
        AU_TRY(au_mg_weights_bind(net, source->tensors, &problems, err));
    if (problems.unlisted)
        st = au_fail(err, problems.status, "%s\nand %zu more problems", au_buf_cstr(&problems.text),
                     problems.unlisted);
    else if (problems.count)
        st = au_fail(err, problems.status, "%s", au_buf_cstr(&problems.text));
done:
    au_buf_deinit(&problems.text);
    if (st != AU_OK)
        close_net(&net);
    *out = net;
    return st;
}

static void net_info(const au_net *net, au_model_info *info)
{
    const mg_config *c = &net->config;
    info->family = "musicgen";
    info->sample_rate = c->codec.sample_rate;
    info->channels = c->lm.channels;
    info->frame_rate = c->codec.frame_rate;
    info->hop = c->codec.hop;
    info->codebooks = c->lm.codebooks;
    info->vocab = c->lm.vocab;
    info->text_width = c->text.width;
    info->text_vocab = c->text.vocab;
    info->width = c->lm.width;
    info->layers = c->lm.layers;
    info->trained_s = 30; /* every published MusicGen; the config has no field for it */
    info->max_prompt_tokens = MG_MAX_PROMPT_TOKENS;
    info->hf_guidance = c->generation.guidance;
    info->hf_temperature = c->generation.temperature;
    info->hf_top_k = c->generation.top_k;
    info->hf_top_p = c->generation.top_p;
}

static const au_module *net_modules(const au_net *net, size_t *n)
{
    *n = net->n_modules;
    return net->modules;
}

static au_status net_report(const au_net *net, json_t *object, au_err *err)
{
    const mg_config *c = &net->config;
    json_t *text =
        json_pack("{s:i, s:i, s:i, s:i, s:i}", "width", c->text.width, "layers", c->text.layers,
                  "heads", c->text.heads, "ffn", c->text.ffn, "vocab", c->text.vocab);
    json_t *lm = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:i}", "width", c->lm.width, "layers",
                           c->lm.layers, "heads", c->lm.heads, "ffn", c->lm.ffn, "codebooks",
                           c->lm.codebooks, "vocab", c->lm.vocab, "channels", c->lm.channels);
    json_t *codec =
        json_pack("{s:i, s:i, s:i, s:i, s:i, s:i}", "sample_rate", c->codec.sample_rate, "hop",
                  c->codec.hop, "frame_rate", c->codec.frame_rate, "quantizers",
                  c->codec.quantizers, "filters", c->codec.filters, "lstm_layers", c->codec.n_lstm);
    int failed = json_object_set_new(object, "text_encoder", text) |
                 json_object_set_new(object, "decoder", lm) |
                 json_object_set_new(object, "codec", codec);
    return failed ? au_fail(err, AU_NOMEM, "cannot allocate the report") : AU_OK;
}

static bool complete(const au_sequence *s, size_t slot)
{
    const mg_slot *at = s->slots[slot];
    return !at->left && at->column == at->steps;
}

const au_family au_family_musicgen = {
    .name = "musicgen",
    .open = open_net,
    .close = close_net,
    .info = net_info,
    .modules = net_modules,
    .report = net_report,
    .session_bytes = au_mg_session_bytes,
    .session_open = au_mg_session_open,
    .session_close = au_mg_session_close,
    .join = au_mg_join,
    .leave = au_mg_leave,
    .encode = au_mg_encode,
    .step = au_mg_step,
    .complete = complete,
    .render = au_mg_render,
};
