/* SPDX-License-Identifier: MIT */
/* A client for the server's own API: one request a connection, over plain HTTP. A server that is
 * reached by https is spoken to on its own host, or through a tunnel. */
#ifndef AU_CLI_REMOTE_H
#define AU_CLI_REMOTE_H

#include <jansson.h>

#include "base/buf.h"
#include "base/err.h"

/* server: "http://HOST[:PORT][/BASE]". key NULL: none is sent. body NULL: none. *reply is a new
 * reference, NULL where the reply has no body. AU_INVALID: server or key are not well-formed.
 * AU_NOT_FOUND, AU_IO: what the server said, or that it is not there. */
AU_MUST_CHECK au_status au_remote_call(json_t **reply, const char *server, const char *key,
                                       const char *method, const char *path, const json_t *body,
                                       au_err *err);

/* Reads a whole reply of len bytes: status, and the body with its coding undone. AU_CORRUPT: it is
 * none, or was cut. */
AU_MUST_CHECK au_status au_remote_parse(int *status, au_buf *body, const char *data, size_t len,
                                        au_err *err);

#endif
