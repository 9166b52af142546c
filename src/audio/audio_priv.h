/* SPDX-License-Identifier: MIT */
/* The steps of encoding. Private to this folder. */
#ifndef AU_AUDIO_AUDIO_PRIV_H
#define AU_AUDIO_AUDIO_PRIV_H

#include "audio/audio.h"
#include "base/buf.h"

/* A FLAC comment block holds 16 MiB; prompts are far shorter. */
enum { AU_TITLE_CHARS = 80, AU_COMMENT_BYTES = 1 << 20 };

/* Appends the title (may stay empty) and the comment. */
AU_MUST_CHECK au_status au_audio_tags(au_buf *title, au_buf *comment, const au_recipe *recipe,
                                      au_err *err);

/* Appends the two as a WAV's LIST INFO chunk (INAM, ICMT). */
void au_audio_info_chunk(au_buf *chunk, const au_buf *title, const au_buf *comment);

/* Peak, loudness and true peak of the frames as they are, before any clipping. All samples are
 * finite. */
AU_MUST_CHECK au_status au_audio_measure(au_clip_stats *stats, const au_clip *clip, au_err *err);

#endif
