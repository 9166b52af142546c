/* SPDX-License-Identifier: MIT */
/* Stateless. URLs are taken apart by libcurl, the library that will follow them: it also knows the
 * odd spellings of an IPv4 address (octal, hexadecimal, one number). */
#include "webhooks/address.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"

typedef struct network {
    const char *prefix;
    int bits;
} network;

static const network special4[] = {
    {"0.0.0.0", 8},      {"10.0.0.0", 8},     {"100.64.0.0", 10}, {"127.0.0.0", 8},
    {"169.254.0.0", 16}, {"172.16.0.0", 12},  {"192.0.0.0", 24},  {"192.0.2.0", 24},
    {"192.88.99.0", 24}, {"192.168.0.0", 16}, {"198.18.0.0", 15}, {"198.51.100.0", 24},
    {"203.0.113.0", 24}, {"224.0.0.0", 4},    {"240.0.0.0", 4},
};
/* Only 2000::/3 is given out; these parts of it are not hosts of the internet. */
static const network special6[] = {
    {"2001::", 23},
    {"2001:db8::", 32},
    {"2002::", 16},
    {"3fff::", 20},
};

static bool in_network(const unsigned char *address, const unsigned char *prefix, int bits)
{
    int bytes = bits / 8, rest = bits % 8;
    if (memcmp(address, prefix, (size_t)bytes) != 0)
        return false;
    return rest == 0 || (address[bytes] ^ prefix[bytes]) >> (8 - rest) == 0;
}

static bool is_special(int family, const unsigned char *address, const network *list, size_t n)
{
    unsigned char prefix[16];
    for (size_t i = 0; i < n; i++) {
        int rc = inet_pton(family, list[i].prefix, prefix);
        AU_ASSERT(rc == 1);
        if (in_network(address, prefix, list[i].bits))
            return true;
    }
    return false;
}

static bool is_public4(const unsigned char *address)
{
    return !is_special(AF_INET, address, special4, sizeof special4 / sizeof *special4);
}

static bool is_public6(const unsigned char *address)
{
    static const unsigned char mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    static const unsigned char nat64[12] = {0, 0x64, 0xff, 0x9b};
    if (memcmp(address, mapped, sizeof mapped) == 0 || memcmp(address, nat64, sizeof nat64) == 0)
        return is_public4(address + 12);
    return address[0] >> 5 == 1 &&
           !is_special(AF_INET6, address, special6, sizeof special6 / sizeof *special6);
}

bool au_address_is_public(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET)
        return is_public4(
            (const unsigned char *)&((const struct sockaddr_in *)(const void *)address)->sin_addr);
    if (address->sa_family == AF_INET6)
        return is_public6(((const struct sockaddr_in6 *)(const void *)address)->sin6_addr.s6_addr);
    return false;
}

/* A host that is an address, or a name that means this machine whatever the resolver says. */
static bool host_is_public(const char *host)
{
    unsigned char address[16];
    char bare[64];
    size_t len = strlen(host);
    if (inet_pton(AF_INET, host, address) == 1)
        return is_public4(address);
    if (host[0] == '[' && len >= 2 && len - 2 < sizeof bare) {
        memcpy(bare, host + 1, len - 2);
        bare[len - 2] = '\0';
        return inet_pton(AF_INET6, bare, address) == 1 && is_public6(address);
    }
    if (len > 1 && host[len - 1] == '.')
        len--;
    return !(len == 9 && strncasecmp(host, "localhost", 9) == 0) &&
           !(len > 10 && strncasecmp(host + len - 10, ".localhost", 10) == 0);
}

static au_status check_parts(CURLU *parts, const char *url, bool allow_private, au_err *err)
{
    char *scheme = NULL, *host = NULL, *user = NULL, *password = NULL, *fragment = NULL;
    au_status st = AU_OK;
    AU_FAIL_IF(curl_url_set(parts, CURLUPART_URL, url, 0) != CURLUE_OK ||
                   curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) != CURLUE_OK ||
                   curl_url_get(parts, CURLUPART_HOST, &host, 0) != CURLUE_OK || !*host,
               AU_INVALID, "not a URL with scheme and host");
    AU_FAIL_IF(strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0, AU_INVALID,
               "scheme %.20s, expected http or https", scheme);
    AU_FAIL_IF(curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_OK ||
                   curl_url_get(parts, CURLUPART_PASSWORD, &password, 0) == CURLUE_OK,
               AU_INVALID, "a user name or password is not allowed in the URL");
    AU_FAIL_IF(curl_url_get(parts, CURLUPART_FRAGMENT, &fragment, 0) == CURLUE_OK, AU_INVALID,
               "a fragment is not sent, so it is not allowed in the URL");
    AU_FAIL_IF(!allow_private && !host_is_public(host), AU_UNSUPPORTED,
               "host %.80s is not an address of the public internet", host);
done:
    curl_free(scheme);
    curl_free(host);
    curl_free(user);
    curl_free(password);
    curl_free(fragment);
    return st;
}

au_status au_webhook_url_check(const char *url, bool allow_private, au_err *err)
{
    for (const char *c = url; *c; c++) {
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return au_fail(err, AU_INVALID, "blanks and control characters are not allowed");
    }
    CURLU *parts = curl_url();
    if (!parts)
        return au_fail(err, AU_NOMEM, "out of memory");
    au_status st = check_parts(parts, url, allow_private, err);
    curl_url_cleanup(parts);
    return st;
}
