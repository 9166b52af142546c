/* SPDX-License-Identifier: MIT */
/* The thread of the server that works off the outbox: each delivery is a POST with the headers
 * webhook-id, webhook-timestamp and webhook-signature. Any 2xx is a success. Everything else is
 * tried again: 5 s, 30 s, 2 min, 10 min, 30 min, 1 h, 2 h, 4 h, 6 h, 8 h after the attempt before,
 * each up to a fifth more or less, together about a day. 410 switches the webhook off. Redirects
 * are not followed, answers are read up to 64 KiB, proxies of the environment are not used.
 *
 * At most once at a time, at least once in all: a server that dies between an answer and its record
 * sends again, with the same webhook-id. */
#ifndef AU_WEBHOOKS_SENDER_H
#define AU_WEBHOOKS_SENDER_H

#include "db/writer.h"

typedef struct au_sender au_sender;

typedef struct au_sender_config {
    const char *db_url;
    au_writer *writer;  /* borrowed until the sender is freed */
    bool allow_private; /* addresses that are not of the public internet, too */
    int64_t timeout_ms; /* of one attempt, in all */
    int64_t backoff_ms; /* 5000: the first wait; the others in proportion */
} au_sender_config;

AU_MUST_CHECK au_status au_sender_new(au_sender **out, const au_sender_config *config, au_err *err);
/* Something is due: look now. Any thread. */
void au_sender_kick(au_sender *s);
/* Ends attempts under way, which will be made again, and joins. NULL is fine. */
void au_sender_free(au_sender **s);

#endif
