/* SPDX-License-Identifier: MIT */
/* One thread, one curl multi handle, a transfer an attempt. Invariants: a transfer in the multi
 * handle is in the list; its delivery's row is put off for longer than the attempt may take, so
 * that nobody sends it beside. Addresses are checked when the socket is opened, after names have
 * been resolved, so a name that resolves to something else the second time gains nothing. libcurl
 * is set up when there is something to send for the first time: a server without webhooks does
 * without. */
#include "webhooks/sender.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "jobs/outbox.h"
#include "webhooks/address.h"
#include "webhooks/sign.h"

enum {
    LOOK_MS = 250, /* how soon what workers wrote is seen */
    IN_FLIGHT = 64,
    IN_FLIGHT_EACH = 8, /* of one webhook: one that hangs must not keep the others waiting */
    ANSWER_BYTES = 1 << 16,
    MARGIN_MS = 5000, /* beyond the time-out, until a delivery is anybody's again */
    ARENA_BYTES = 16 << 20,
    PURGE_MS = 3600000,
    ERROR_BYTES = 200,
};
static const int64_t KEEP_MS = INT64_C(7) * 86400000; /* ended deliveries are shown for so long */
/* Waits before another attempt, in units of the first one. */
static const int64_t waits[] = {1, 6, 24, 120, 360, 720, 1440, 2880, 4320, 5760};

typedef struct transfer {
    struct transfer *next;
    CURL *easy;
    struct curl_slist *headers;
    char id[AU_UUID_TEXT], webhook_id[AU_UUID_TEXT];
    char *payload;
    int attempts; /* before this one */
    size_t received;
    bool allow_private;
    char refused[INET6_ADDRSTRLEN]; /* an address that may not be connected to; "" */
} transfer;

struct au_sender {
    au_sender_config config;
    au_db *db; /* of the thread */
    pthread_t thread;
    bool thread_started;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool kicked, stopping; /* under lock */
    bool curl_ready;       /* the rest belongs to the thread */
    CURLM *multi;
    _Atomic(CURLM *) shared_multi; /* for waking it from another thread */
    transfer *transfers;
    size_t n_transfers;
    int64_t purge_at;
};

/* ---- What an attempt may do ---- */

static curl_socket_t open_socket(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    transfer *t = user;
    if (purpose != CURLSOCKTYPE_IPCXN)
        return CURL_SOCKET_BAD;
    if (!t->allow_private && !au_address_is_public(&address->addr)) {
        const void *ip =
            address->family == AF_INET6
                ? (const void *)&((struct sockaddr_in6 *)(void *)&address->addr)->sin6_addr
                : (const void *)&((struct sockaddr_in *)(void *)&address->addr)->sin_addr;
        if (!inet_ntop(address->family, ip, t->refused, sizeof t->refused))
            t->refused[0] = '?';
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static size_t take_answer(char *data, size_t size, size_t n, void *user)
{
    (void)data;
    transfer *t = user;
    t->received += size * n;
    return t->received > ANSWER_BYTES ? 0 : size * n; /* 0 ends the transfer */
}

static void free_transfer(transfer *t)
{
    curl_easy_cleanup(t->easy);
    curl_slist_free_all(t->headers);
    free(t->payload);
    free(t);
}

static bool add_header(transfer *t, const char *name, const char *value)
{
    char line[256];
    snprintf(line, sizeof line, "%s: %s", name, value);
    struct curl_slist *longer = curl_slist_append(t->headers, line);
    if (longer)
        t->headers = longer;
    return longer != NULL;
}

static bool set_headers(transfer *t, const au_delivery *d)
{
    char signature[AU_WEBHOOK_SIGNATURE_TEXT], timestamp[24];
    int64_t now_s = au_time_ms() / 1000;
    snprintf(timestamp, sizeof timestamp, "%lld", (long long)now_s);
    return au_webhook_sign(signature, d->secret, d->id, now_s, d->payload) &&
           add_header(t, "content-type", "application/json") &&
           add_header(t, "user-agent", "Aulos/" AU_VERSION) && add_header(t, "webhook-id", d->id) &&
           add_header(t, "webhook-timestamp", timestamp) &&
           add_header(t, "webhook-signature", signature) && add_header(t, "expect", "");
}

static bool set_options(transfer *t, const au_sender *s, const au_delivery *d)
{
    CURL *e = t->easy;
    return curl_easy_setopt(e, CURLOPT_URL, d->url) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PROXY, "") == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)s->config.timeout_ms) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_HTTPHEADER, t->headers) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE, (long)strlen(t->payload)) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_POSTFIELDS, t->payload) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, open_socket) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, t) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, take_answer) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_WRITEDATA, t) == CURLE_OK &&
           curl_easy_setopt(e, CURLOPT_PRIVATE, t) == CURLE_OK;
}

/* ---- Attempts ---- */

static size_t in_flight(const au_sender *s, const char *webhook_id)
{
    size_t n = 0;
    for (const transfer *t = s->transfers; t; t = t->next)
        n += strcmp(t->webhook_id, webhook_id) == 0;
    return n;
}

/* Without memory the delivery is due again when its hold is over. */
static void begin(au_sender *s, const au_delivery *d)
{
    transfer *t = calloc(1, sizeof *t);
    if (!t)
        return;
    snprintf(t->id, sizeof t->id, "%s", d->id);
    snprintf(t->webhook_id, sizeof t->webhook_id, "%s", d->webhook_id);
    t->attempts = d->attempts;
    t->allow_private = s->config.allow_private;
    t->payload = strdup(d->payload);
    t->easy = curl_easy_init();
    if (!t->payload || !t->easy || !set_headers(t, d) || !set_options(t, s, d) ||
        curl_multi_add_handle(s->multi, t->easy) != CURLM_OK) {
        au_log(AU_LOG_ERROR, "webhooks", "attempt cannot be made delivery=%s", d->id);
        free_transfer(t);
        return;
    }
    t->next = s->transfers;
    s->transfers = t;
    s->n_transfers++;
}

static int64_t wait_of(const au_sender *s, int attempts)
{
    if ((size_t)attempts >= sizeof waits / sizeof *waits)
        return -1;
    int64_t ms = waits[attempts] * s->config.backoff_ms, fifth = ms / 5;
    return ms - fifth + (fifth > 0 ? (int64_t)(au_random_seed() % (uint64_t)(2 * fifth)) : 0);
}

static au_status write_finish(au_db *db, void *arg, au_err *err)
{
    return au_delivery_finish(db, arg, err);
}

/* A transfer is over: what its end means, on record. Until it is there, the hold of the row stands.
 */
static void end_transfer(au_sender *s, transfer *t, CURLcode code)
{
    long status = 0;
    char why[ERROR_BYTES] = "";
    au_err err;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_WRITE_ERROR && t->received > ANSWER_BYTES)
        code = CURLE_OK; /* the status had come; the rest is not wanted */
    bool ok = code == CURLE_OK && status >= 200 && status < 300;
    if (t->refused[0])
        snprintf(why, sizeof why, "address %s is not of the public internet", t->refused);
    else if (code != CURLE_OK)
        snprintf(why, sizeof why, "%s", curl_easy_strerror(code));
    else if (!ok)
        snprintf(why, sizeof why, "answered %ld, expected 2xx", status);
    au_delivery_end end = {.id = t->id,
                           .ok = ok,
                           .gone = code == CURLE_OK && status == 410,
                           .status = code == CURLE_OK ? (int)status : 0,
                           .error = why,
                           .retry_ms = status == 410 ? -1 : wait_of(s, t->attempts)};
    if (au_writer_run(s->config.writer, write_finish, &end, &err) != AU_OK)
        au_log(AU_LOG_ERROR, "webhooks", "end of an attempt is not recorded delivery=%s detail=%s",
               t->id, au_log_quote((char[512]){0}, 512, err.message));
    else
        au_log(ok ? AU_LOG_DEBUG : AU_LOG_WARN, "webhooks",
               "attempt %s delivery=%s webhook=%s n=%d status=%ld detail=%s",
               ok ? "delivered" : "failed", t->id, t->webhook_id, t->attempts + 1, status,
               au_log_quote((char[512]){0}, 512, why));
}

static void unlink_transfer(au_sender *s, transfer *t)
{
    transfer **at = &s->transfers;
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    s->n_transfers--;
    curl_multi_remove_handle(s->multi, t->easy);
}

static void reap(au_sender *s)
{
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(s->multi, &left));) {
        if (m->msg != CURLMSG_DONE)
            continue;
        void *user = NULL;
        CURLcode code = m->data.result;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&user);
        transfer *t = user;
        end_transfer(s, t, code);
        unlink_transfer(s, t);
        free_transfer(t);
    }
}

/* ---- What is due ---- */

typedef struct take_arg {
    au_arena arena;
    int limit;
    int64_t hold_ms;
    au_delivery **list;
    size_t n;
} take_arg;

static au_status write_take(au_db *db, void *arg, au_err *err)
{
    take_arg *a = arg;
    return au_delivery_take(db, &a->arena, a->limit, a->hold_ms, &a->list, &a->n, err);
}

static bool set_up(au_sender *s)
{
    if (!s->curl_ready)
        s->curl_ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    if (s->curl_ready && !s->multi) {
        s->multi = curl_multi_init();
        atomic_store(&s->shared_multi, s->multi);
    }
    return s->multi != NULL;
}

/* Those that are too many for one webhook are left to their hold. */
static void take_due(au_sender *s)
{
    int64_t due_ms = -1;
    au_err err;
    if (s->n_transfers >= IN_FLIGHT || au_delivery_due_ms(s->db, &due_ms, &err) != AU_OK ||
        due_ms != 0 || !set_up(s))
        return;
    take_arg a = {.limit = (int)(IN_FLIGHT - s->n_transfers),
                  .hold_ms = s->config.timeout_ms + MARGIN_MS};
    au_arena_init(&a.arena, ARENA_BYTES);
    if (au_writer_run(s->config.writer, write_take, &a, &err) == AU_OK) {
        for (size_t i = 0; i < a.n; i++) {
            if (in_flight(s, a.list[i]->webhook_id) < IN_FLIGHT_EACH)
                begin(s, a.list[i]);
        }
    } else {
        au_log(AU_LOG_ERROR, "webhooks", "due deliveries cannot be taken detail=%s",
               au_log_quote((char[512]){0}, 512, err.message));
    }
    au_arena_deinit(&a.arena);
}

static au_status write_purge(au_db *db, void *arg, au_err *err)
{
    (void)arg;
    return au_delivery_purge(db, au_time_ms() - KEEP_MS, err);
}

static void purge(au_sender *s)
{
    au_err err;
    if (au_mono_ms() < s->purge_at)
        return;
    s->purge_at = au_mono_ms() + PURGE_MS;
    if (au_writer_run(s->config.writer, write_purge, NULL, &err) != AU_OK)
        au_log(AU_LOG_WARN, "webhooks", "old deliveries stay detail=%s",
               au_log_quote((char[512]){0}, 512, err.message));
}

/* ---- The thread ---- */

/* Until something may be due or moves. */
static void rest(au_sender *s)
{
    struct timespec until;
    int running;
    if (s->n_transfers) {
        curl_multi_poll(s->multi, NULL, 0, LOOK_MS, NULL);
        curl_multi_perform(s->multi, &running);
        reap(s);
        return;
    }
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)LOOK_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&s->lock);
    while (!s->kicked && !s->stopping && pthread_cond_timedwait(&s->wake, &s->lock, &until) == 0) {
    }
    s->kicked = false;
    pthread_mutex_unlock(&s->lock);
}

static void *send_all(void *arg)
{
    au_sender *s = arg;
    for (;;) {
        pthread_mutex_lock(&s->lock);
        bool stopping = s->stopping;
        pthread_mutex_unlock(&s->lock);
        if (stopping)
            break;
        purge(s);
        take_due(s);
        rest(s);
    }
    while (s->transfers) {
        transfer *t = s->transfers;
        unlink_transfer(s, t);
        free_transfer(t);
    }
    return NULL;
}

au_status au_sender_new(au_sender **out, const au_sender_config *config, au_err *err)
{
    au_sender *s = NULL;
    pthread_condattr_t attr;
    au_status st = AU_OK;
    AU_TRY(au_calloc(&s, 1, sizeof *s, err));
    s->config = *config;
    s->purge_at = au_mono_ms();
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->wake, &attr);
    pthread_condattr_destroy(&attr);
    const au_db_options options = {.read_only = true};
    AU_TRY(au_db_open(&s->db, config->db_url, &options, err));
    int rc = pthread_create(&s->thread, NULL, send_all, s);
    AU_FAIL_IF(rc != 0, AU_INTERNAL, "the thread of the webhooks cannot be started: %s",
               strerror(rc));
    s->thread_started = true;
    *out = s;
    s = NULL;
done:
    au_sender_free(&s);
    return st;
}

void au_sender_kick(au_sender *s)
{
    pthread_mutex_lock(&s->lock);
    s->kicked = true;
    pthread_cond_signal(&s->wake);
    pthread_mutex_unlock(&s->lock);
    CURLM *multi = atomic_load(&s->shared_multi);
    if (multi)
        curl_multi_wakeup(multi);
}

void au_sender_free(au_sender **sp)
{
    au_sender *s = *sp;
    if (!s)
        return;
    *sp = NULL;
    if (s->thread_started) {
        pthread_mutex_lock(&s->lock);
        s->stopping = true;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->lock);
        CURLM *multi = atomic_load(&s->shared_multi);
        if (multi)
            curl_multi_wakeup(multi);
        pthread_join(s->thread, NULL);
    }
    if (s->multi)
        curl_multi_cleanup(s->multi);
    if (s->curl_ready)
        curl_global_cleanup();
    au_db_close(&s->db);
    pthread_cond_destroy(&s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
