/* SPDX-License-Identifier: MIT */
/* Where webhooks may go. A server that sends to any URL that it is told is a way into the network
 * that it stands in; so only addresses of the public internet are allowed. Pure functions. */
#ifndef AU_WEBHOOKS_ADDRESS_H
#define AU_WEBHOOKS_ADDRESS_H

#include <stdbool.h>
#include <sys/socket.h>

#include "base/err.h"

/* Whether an address is one of the public internet: not loopback, private, link-local (where clouds
 * keep their metadata), shared, multicast, reserved or for documentation, in IPv4 or IPv6, also
 * where an IPv6 address holds an IPv4 one (mapped, NAT64, 6to4, Teredo). Source: the
 * special-purpose address registries of IANA (RFC 6890). */
bool au_address_is_public(const struct sockaddr *address);

/* Whether a URL may be a target as it stands: http or https, a host, no user name or password, no
 * fragment; and, unless `allow_private`, no address that is not public and no name of this machine.
 * What a name resolves to is checked when it is connected to. AU_INVALID: it is not a URL like
 * that; AU_UNSUPPORTED: its address is not public; err says what. */
AU_MUST_CHECK au_status au_webhook_url_check(const char *url, bool allow_private, au_err *err);

#endif
