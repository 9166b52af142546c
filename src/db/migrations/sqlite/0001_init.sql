-- SPDX-License-Identifier: MIT
-- Schema 1. Ids are UUIDv7 texts, times Unix milliseconds, JSON columns texts of one valid value. lease_until, run_after and progress_clock are
-- on the database's lease clock (au_clock_ms), everything else on the wall clock.

CREATE TABLE prompts (
    id            TEXT PRIMARY KEY,
    text          TEXT NOT NULL,
    negative_text TEXT,
    attributes    TEXT NOT NULL DEFAULT '{}',
    title         TEXT NOT NULL DEFAULT '',
    content_hash  TEXT NOT NULL, -- SHA-256 of text and negative text: finds the record for a text
    created_at    INTEGER NOT NULL,
    deleted_at    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX prompts_by_content ON prompts (content_hash) WHERE deleted_at = 0;

CREATE TABLE models (
    fingerprint TEXT NOT NULL,
    name        TEXT NOT NULL,
    family      TEXT NOT NULL,
    dir         TEXT NOT NULL,
    info        TEXT NOT NULL,
    is_default  INTEGER NOT NULL DEFAULT 0,
    active      INTEGER NOT NULL DEFAULT 1, -- given to the server that runs now
    position    INTEGER NOT NULL DEFAULT 0, -- in the order given
    first_seen  INTEGER NOT NULL,
    PRIMARY KEY (name, fingerprint)
) STRICT;

CREATE TABLE adapters (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    version     INTEGER NOT NULL DEFAULT 1, -- rises with each new content of a name
    current     INTEGER NOT NULL DEFAULT 1, -- the one that its name means now
    source      TEXT NOT NULL,              -- 'folder' | 'upload'
    family      TEXT NOT NULL DEFAULT '',
    base_model  TEXT NOT NULL DEFAULT '',
    format      TEXT NOT NULL DEFAULT 'peft',
    kind        TEXT NOT NULL DEFAULT '',
    description TEXT NOT NULL DEFAULT '',
    rank        INTEGER NOT NULL DEFAULT 0,
    alpha       REAL NOT NULL DEFAULT 0,
    targets     INTEGER NOT NULL DEFAULT 0,
    sha256      TEXT UNIQUE,
    store_key   TEXT,
    bytes       INTEGER NOT NULL DEFAULT 0,
    status      TEXT NOT NULL CHECK (status IN ('validating', 'ready', 'rejected')),
    report      TEXT NOT NULL DEFAULT '{}',
    error       TEXT,
    created_at  INTEGER NOT NULL,
    deleted_at  INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX adapters_by_name ON adapters (name, version);

-- How the check of an adapter against a model ended.
CREATE TABLE adapter_models (
    adapter_id        TEXT NOT NULL REFERENCES adapters (id) ON DELETE CASCADE,
    model_fingerprint TEXT NOT NULL,
    status            TEXT NOT NULL CHECK (status IN ('ready', 'rejected')),
    report            TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (adapter_id, model_fingerprint)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id                TEXT PRIMARY KEY,
    prompt_id         TEXT NOT NULL REFERENCES prompts (id),
    model_name        TEXT NOT NULL,
    model_fingerprint TEXT NOT NULL,
    params            TEXT NOT NULL,
    format            TEXT NOT NULL,
    num_samples       INTEGER NOT NULL CHECK (num_samples > 0),
    num_variants      INTEGER NOT NULL CHECK (num_variants > 0),
    seed              INTEGER NOT NULL CHECK (seed >= 0 AND seed < 9007199254740992),
    seed_source       TEXT NOT NULL,
    label             TEXT NOT NULL DEFAULT '',
    priority          INTEGER NOT NULL DEFAULT 0,
    state             TEXT NOT NULL CHECK (state IN ('queued', 'processing', 'cancelling', 'completed', 'failed', 'cancelled')),
    attempt           INTEGER NOT NULL DEFAULT 0,
    max_attempts      INTEGER NOT NULL,
    deaths            INTEGER NOT NULL DEFAULT 0, -- attempts in a row whose worker died without a report
    interruptions     INTEGER NOT NULL DEFAULT 0, -- deaths of the server or host
    run_after         INTEGER NOT NULL DEFAULT 0,
    lease_owner       TEXT,
    lease_token       INTEGER NOT NULL DEFAULT 0,
    lease_until       INTEGER NOT NULL DEFAULT 0,
    attempt_started   INTEGER NOT NULL DEFAULT 0,
    percent           REAL NOT NULL DEFAULT 0,
    stage             TEXT NOT NULL DEFAULT '',
    step              INTEGER NOT NULL DEFAULT 0,
    steps             INTEGER NOT NULL DEFAULT 0,
    eta_ms            INTEGER NOT NULL DEFAULT -1,
    progress_at       INTEGER NOT NULL DEFAULT 0,
    progress_clock    INTEGER NOT NULL DEFAULT 0,
    error             TEXT,
    attempts          TEXT NOT NULL DEFAULT '[]',
    warnings          TEXT NOT NULL DEFAULT '[]',
    idempotency_key   TEXT,
    retry_of          TEXT,
    reproduces        TEXT,
    event_seq         INTEGER NOT NULL DEFAULT 0,
    revision          INTEGER NOT NULL DEFAULT 1,
    created_at        INTEGER NOT NULL,
    started_at        INTEGER NOT NULL DEFAULT 0,
    finished_at       INTEGER NOT NULL DEFAULT 0,
    deadline_at       INTEGER NOT NULL DEFAULT 0,
    deleted_at        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX jobs_queue ON jobs (priority DESC, id) WHERE state = 'queued';
CREATE INDEX jobs_leased ON jobs (lease_until) WHERE state IN ('processing', 'cancelling');
CREATE INDEX jobs_deadline ON jobs (deadline_at) WHERE deadline_at > 0 AND state IN ('queued', 'processing');
CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_prompt ON jobs (prompt_id, id);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state = 'completed';

-- The samples that a job makes. "index" is within the variant, so that all variants of an index share a seed.
CREATE TABLE job_samples (
    job_id         TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    variant        INTEGER NOT NULL,
    idx            INTEGER NOT NULL,
    seed           INTEGER NOT NULL,
    adapter_id     TEXT REFERENCES adapters (id),
    adapter_sha256 TEXT, -- pinned at submission
    strength       REAL NOT NULL DEFAULT 1,
    state          TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'completed')),
    sample_id      TEXT,
    PRIMARY KEY (job_id, variant, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_samples_by_adapter ON job_samples (adapter_id) WHERE adapter_id IS NOT NULL;

CREATE TABLE samples (
    id                TEXT PRIMARY KEY,
    job_id            TEXT NOT NULL,
    variant           INTEGER NOT NULL,
    idx               INTEGER NOT NULL,
    seed              INTEGER NOT NULL,
    prompt_id         TEXT NOT NULL,
    model_name        TEXT NOT NULL,
    model_fingerprint TEXT NOT NULL,
    adapter_id        TEXT,
    adapter_sha256    TEXT,
    strength          REAL NOT NULL,
    params            TEXT NOT NULL,
    duration_s        REAL NOT NULL,
    sample_rate       INTEGER NOT NULL,
    channels          INTEGER NOT NULL,
    frames            INTEGER NOT NULL,
    format            TEXT NOT NULL,
    bytes             INTEGER NOT NULL,
    sha256            TEXT NOT NULL,
    pcm_sha256        TEXT NOT NULL,
    store_key         TEXT NOT NULL UNIQUE,
    loudness_lufs     REAL, -- NULL: cannot be measured (silence, too short)
    true_peak_dbtp    REAL,
    peak              REAL,
    clipped           INTEGER NOT NULL DEFAULT 0,
    peaks             TEXT,
    recipe            TEXT NOT NULL,
    title             TEXT NOT NULL DEFAULT '',
    tags              TEXT NOT NULL DEFAULT '[]',
    revision          INTEGER NOT NULL DEFAULT 1,
    created_at        INTEGER NOT NULL,
    deleted_at        INTEGER NOT NULL DEFAULT 0,
    UNIQUE (job_id, variant, idx)
) STRICT;
CREATE INDEX samples_by_prompt ON samples (prompt_id, id);
CREATE INDEX samples_by_adapter ON samples (adapter_id, id) WHERE adapter_id IS NOT NULL;

-- Keys of objects that may exist without a row that owns them: about to be written by an attempt (job and token), or left to be deleted
-- (token -1). Whoever finds a row whose attempt is over deletes the object, then the row.
CREATE TABLE uploads (
    key         TEXT PRIMARY KEY,
    job_id      TEXT, -- NULL: not part of a job (adapters)
    lease_token INTEGER NOT NULL DEFAULT -1,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_by_job ON uploads (job_id);

-- seq counts a job's events without gaps; id rises over all jobs.
CREATE TABLE events (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id     TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    event      TEXT NOT NULL CHECK (event IN ('state', 'sample', 'done')),
    data       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (job_id, seq)
) STRICT;

CREATE TABLE workers (
    id         TEXT PRIMARY KEY,
    host       TEXT NOT NULL,
    boot_id    TEXT NOT NULL,
    pid        INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('starting', 'ready', 'stopping', 'failed', 'gone')),
    detail     TEXT NOT NULL DEFAULT '',
    models     TEXT NOT NULL DEFAULT '[]',
    started_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
) STRICT;

CREATE TABLE comparisons (
    id         TEXT PRIMARY KEY,
    mode       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE comparison_samples (
    comparison_id TEXT NOT NULL REFERENCES comparisons (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,
    sample_id     TEXT NOT NULL,
    PRIMARY KEY (comparison_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX comparison_samples_by_sample ON comparison_samples (sample_id);
