/* SPDX-License-Identifier: MIT */
/* The progress bar. The time since the last call is booked on the stage that this call reports,
 * since the engine reports after each unit of work. */
#include "cli/progress.h"

#include <string.h>
#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

enum { BAR_WIDTH = 30 };
static const int64_t REDRAW_NS =
    100 * 1000 * 1000; /* ten times a second is smooth enough to read */

void au_progress_begin(au_progress_bar *bar, bool quiet)
{
    memset(bar, 0, sizeof *bar);
    bar->visible = !quiet && isatty(STDERR_FILENO);
    bar->started_ns = bar->last_ns = au_mono_ns();
}

double au_progress_steps_per_s(const au_progress_bar *bar)
{
    int64_t ns = bar->stage_ns[AU_STAGE_DECODE];
    return ns > 0 ? (double)bar->steps * 1e9 / (double)ns : 0;
}

void au_progress_update(au_progress_bar *bar, const au_progress *progress)
{
    static const char *const names[AU_STAGE_COUNT] = {"reading the prompt", "composing",
                                                      "making audio"};
    int64_t now = au_mono_ns();
    bar->stage_ns[progress->stage] += now - bar->last_ns;
    bar->last_ns = now;
    bar->steps = progress->step;
    if (!bar->visible || now - bar->drawn_ns < REDRAW_NS)
        return;
    bar->drawn_ns = now;
    double elapsed = (double)(now - bar->started_ns) / 1e9;
    char cells[BAR_WIDTH + 1];
    int full = (int)(progress->fraction * BAR_WIDTH);
    for (int i = 0; i < BAR_WIDTH; i++)
        cells[i] = i < full ? '#' : '.';
    cells[BAR_WIDTH] = '\0';
    fprintf(stderr, "\r[%s] %3d %%  %s, %llu of %llu steps", cells, (int)(progress->fraction * 100),
            names[progress->stage], (unsigned long long)progress->step,
            (unsigned long long)progress->steps);
    if (progress->fraction > 0.02)
        fprintf(stderr, ", %.0f s left", elapsed * (1 / progress->fraction - 1));
    fputs("\033[K", stderr);
    fflush(stderr);
}

void au_progress_clear(au_progress_bar *bar)
{
    if (bar->visible && bar->drawn_ns)
        fputs("\r\033[K", stderr);
    bar->drawn_ns = 0;
}
