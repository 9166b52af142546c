/* SPDX-License-Identifier: MIT */
/* Secrets and signatures of Standard Webhooks (https://www.standardwebhooks.com,
 * specification 1.0). Pure functions; any thread. */
#ifndef AU_WEBHOOKS_SIGN_H
#define AU_WEBHOOKS_SIGN_H

#include <stdbool.h>
#include <stdint.h>

#include "jobs/outbox.h"

/* A new secret, "whsec_" and base64 of 32 random bytes. */
void au_webhook_secret_make(char out[AU_WEBHOOK_SECRET_TEXT]);
/* Whether a text is a secret: "whsec_" and base64 of 24 to 64 bytes. */
bool au_webhook_secret_valid(const char *secret);

enum { AU_WEBHOOK_SIGNATURE_TEXT = 64 };
/* "v1," and base64 of HMAC-SHA-256 with the secret's bytes over "<id>.<timestamp>.<payload>".
 * False: the secret is not one. */
bool au_webhook_sign(char out[AU_WEBHOOK_SIGNATURE_TEXT], const char *secret, const char *id,
                     int64_t timestamp_s, const char *payload);

#endif
