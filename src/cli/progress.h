/* SPDX-License-Identifier: MIT */
/* Progress of a request: a bar on a terminal, and the time that each stage took. */
#ifndef AU_CLI_PROGRESS_H
#define AU_CLI_PROGRESS_H

#include "aulos/aulos.h"

enum { AU_STAGE_COUNT = AU_STAGE_CODEC + 1 };

typedef struct au_progress_bar {
    bool visible;
    int64_t started_ns, last_ns, drawn_ns;
    int64_t stage_ns[AU_STAGE_COUNT]; /* time spent per stage so far */
    uint64_t steps;                   /* decoder steps done */
} au_progress_bar;

/* Starts the clock. Draws only when standard error is a terminal and `quiet` is false. */
void au_progress_begin(au_progress_bar *bar, bool quiet);
void au_progress_update(au_progress_bar *bar, const au_progress *progress);
/* Takes the bar off the screen, so that other text can be written. */
void au_progress_clear(au_progress_bar *bar);
/* Decoder steps per second, 0 before any. */
double au_progress_steps_per_s(const au_progress_bar *bar);

#endif
