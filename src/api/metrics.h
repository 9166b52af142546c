/* SPDX-License-Identifier: MIT */
/* What is counted over the life of the server from the events that the database keeps: how many
 * jobs came to each state, how long they waited and ran, how much audio was made. Worker processes
 * write those events too, so nothing that happens anywhere is missed. */
#ifndef AU_API_METRICS_H
#define AU_API_METRICS_H

#include "base/buf.h"
#include "db/db.h"
#include "jobs/job.h"

typedef struct au_metrics au_metrics;

/* Counts from now on. */
AU_MUST_CHECK au_status au_metrics_new(au_metrics **out, au_db *db, au_err *err);
void au_metrics_free(au_metrics **m); /* NULL is fine */
/* Reads what has happened since and appends the counters in the text format of Prometheus. Any
 * thread. */
AU_MUST_CHECK au_status au_metrics_write(au_metrics *m, au_db *db, au_buf *out, au_err *err);

#endif
