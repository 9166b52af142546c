-- SPDX-License-Identifier: MIT
-- Schema 2: keys and browser sessions, idempotency keys, renditions, blind comparisons, webhooks, events of more than jobs.

-- What the server keeps for itself: the secret that signs links and keys hashes, whether the queue is paused.
CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    prefix       TEXT NOT NULL,        -- the first 8 characters of the secret, for people
    hash         TEXT NOT NULL UNIQUE, -- keyed hash of the secret
    scopes       TEXT NOT NULL,        -- JSON array of read, write, admin
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL DEFAULT 0,
    last_used_at INTEGER NOT NULL DEFAULT 0,
    revoked_at   INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE browser_sessions (
    hash       TEXT PRIMARY KEY, -- keyed hash of the cookie
    key_id     TEXT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- owner: the key that asked, '' where none is needed. Written in the transaction that made the resource.
CREATE TABLE idempotency (
    owner        TEXT NOT NULL,
    key          TEXT NOT NULL,
    request_hash TEXT NOT NULL, -- of method, path and the parsed body
    status       INTEGER NOT NULL,
    location     TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- Other formats and rates of a sample, made when first asked for and kept.
CREATE TABLE renditions (
    sample_id   TEXT NOT NULL REFERENCES samples (id) ON DELETE CASCADE,
    format      TEXT NOT NULL,
    sample_rate INTEGER NOT NULL,
    store_key   TEXT NOT NULL UNIQUE,
    bytes       INTEGER NOT NULL,
    sha256      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (sample_id, format, sample_rate)
) STRICT, WITHOUT ROWID;

-- seq counts the events of a subject (a job, an adapter, a comparison, a sample) without gaps; id rises over all of them.
CREATE TABLE events_2 (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT NOT NULL DEFAULT 'job' CHECK (kind IN ('job', 'sample', 'adapter', 'comparison', 'prompt')),
    subject    TEXT NOT NULL, -- its id
    seq        INTEGER NOT NULL,
    event      TEXT NOT NULL, -- of a job: state, sample, done; else created, updated, deleted, restored
    data       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (subject, seq)
) STRICT;
INSERT INTO events_2 (id, subject, seq, event, data, created_at) SELECT id, job_id, seq, event, data, created_at FROM events;
DROP TABLE events;
ALTER TABLE events_2 RENAME TO events;

-- An attempt ended its worker, or stalled it: the next runs without other jobs beside it, so that only the culprit is found guilty.
ALTER TABLE jobs ADD COLUMN alone INTEGER NOT NULL DEFAULT 0;

ALTER TABLE samples ADD COLUMN rating INTEGER; -- 1 to 5, NULL: none
ALTER TABLE samples ADD COLUMN mini TEXT; -- the waveform in 64 numbers, for rows of lists
ALTER TABLE samples ADD COLUMN starred INTEGER NOT NULL DEFAULT 0;
CREATE INDEX samples_by_model ON samples (model_name, id);
CREATE INDEX samples_deleted ON samples (deleted_at) WHERE deleted_at > 0;
CREATE INDEX prompts_deleted ON prompts (deleted_at) WHERE deleted_at > 0;
CREATE INDEX adapters_deleted ON adapters (deleted_at) WHERE deleted_at > 0;
CREATE INDEX jobs_deleted ON jobs (deleted_at) WHERE deleted_at > 0;
DROP INDEX jobs_finished;
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at > 0;

-- seed: of sides and order.
ALTER TABLE comparisons ADD COLUMN title TEXT NOT NULL DEFAULT '';
ALTER TABLE comparisons ADD COLUMN blind INTEGER NOT NULL DEFAULT 0;
ALTER TABLE comparisons ADD COLUMN votes_wanted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE comparisons ADD COLUMN min_listen_s REAL NOT NULL DEFAULT 0;
ALTER TABLE comparisons ADD COLUMN seed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE comparisons ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE comparisons ADD COLUMN closed_at INTEGER NOT NULL DEFAULT 0;
-- Jobs that make the samples of a comparison from prompts and variants, one for each prompt.
CREATE TABLE comparison_jobs (
    comparison_id TEXT NOT NULL REFERENCES comparisons (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,
    job_id        TEXT NOT NULL,
    PRIMARY KEY (comparison_id, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX comparison_jobs_by_job ON comparison_jobs (job_id);
-- What is compared: adapters with their strength, counted from 0.
CREATE TABLE comparison_arms (
    comparison_id  TEXT NOT NULL REFERENCES comparisons (id) ON DELETE CASCADE,
    arm            INTEGER NOT NULL,
    adapter_id     TEXT, -- NULL: none
    adapter_sha256 TEXT,
    strength       REAL NOT NULL,
    PRIMARY KEY (comparison_id, arm)
) STRICT, WITHOUT ROWID;
-- Two samples that differ in their arm alone: given, or index idx of the arms' variants in a job.
CREATE TABLE comparison_pairs (
    comparison_id TEXT NOT NULL REFERENCES comparisons (id) ON DELETE CASCADE,
    position      INTEGER NOT NULL,
    prompt_id     TEXT NOT NULL,
    arm_a         INTEGER NOT NULL,
    arm_b         INTEGER NOT NULL,
    sample_a      TEXT,
    sample_b      TEXT,
    job_id        TEXT,
    idx           INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (comparison_id, position)
) STRICT, WITHOUT ROWID;
CREATE TABLE rater_sessions (
    id            TEXT PRIMARY KEY,
    comparison_id TEXT NOT NULL REFERENCES comparisons (id) ON DELETE CASCADE,
    token_hash    TEXT NOT NULL UNIQUE, -- SHA-256 of the token
    rater         TEXT NOT NULL DEFAULT '',
    number        INTEGER NOT NULL, -- of the comparison's sessions, from 0: decides sides and order
    created_at    INTEGER NOT NULL,
    UNIQUE (comparison_id, number)
) STRICT;
CREATE TABLE trials (
    id             TEXT PRIMARY KEY,
    session_id     TEXT NOT NULL REFERENCES rater_sessions (id) ON DELETE CASCADE,
    n              INTEGER NOT NULL, -- in the order heard, from 1
    pair           INTEGER NOT NULL, -- position
    x_is_a         INTEGER NOT NULL,
    reference_is_x INTEGER NOT NULL, -- abx
    sample_x       TEXT NOT NULL,
    sample_y       TEXT NOT NULL,
    x_gain_db      REAL NOT NULL,
    y_gain_db      REAL NOT NULL,
    UNIQUE (session_id, n)
) STRICT;
CREATE TABLE votes (
    trial_id   TEXT PRIMARY KEY REFERENCES trials (id) ON DELETE CASCADE,
    choice     TEXT NOT NULL CHECK (choice IN ('x', 'y', 'tie', 'both_bad')),
    heard_x_s  REAL NOT NULL,
    heard_y_s  REAL NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE webhooks (
    id          TEXT PRIMARY KEY,
    url         TEXT NOT NULL,
    secret      TEXT NOT NULL, -- whsec_...: needed in clear to sign
    events      TEXT NOT NULL, -- JSON array of names
    description TEXT NOT NULL DEFAULT '',
    active      INTEGER NOT NULL DEFAULT 1,
    created_at  INTEGER NOT NULL,
    deleted_at  INTEGER NOT NULL DEFAULT 0
) STRICT;
-- The outbox: written with the change it tells of. due_at is on the lease clock (au_clock_ms).
CREATE TABLE deliveries (
    id          TEXT PRIMARY KEY, -- the webhook-id
    webhook_id  TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
    event       TEXT NOT NULL,
    payload     TEXT NOT NULL,
    state       TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts    INTEGER NOT NULL DEFAULT 0,
    due_at      INTEGER NOT NULL DEFAULT 0,
    last_status INTEGER NOT NULL DEFAULT 0,
    last_error  TEXT NOT NULL DEFAULT '',
    created_at  INTEGER NOT NULL,
    ended_at    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX deliveries_due ON deliveries (due_at) WHERE state = 'pending';
CREATE INDEX deliveries_by_webhook ON deliveries (webhook_id, id);

-- The order of the queue: smaller first. created_at less a minute for each step of priority, so that a job that waits overtakes younger ones of
-- higher priority in the end, and the order of two jobs never changes.
ALTER TABLE jobs ADD COLUMN expected TEXT; -- of a job that reproduces a sample: {sha256, numerics, version} of that
ALTER TABLE jobs ADD COLUMN queue_key INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET queue_key = created_at - priority * 60000;
DROP INDEX jobs_queue;
CREATE INDEX jobs_queue ON jobs (state, queue_key, id) WHERE state = 'queued'; -- state first, so that the planner prefers it to jobs_by_state
CREATE INDEX jobs_queue_of_model ON jobs (state, model_name, queue_key, id) WHERE state = 'queued';
CREATE INDEX jobs_by_model ON jobs (model_name, id);
CREATE INDEX jobs_by_label ON jobs (label, id) WHERE label <> '';

-- How many jobs wait, by queue_key divided by 2^7, 2^15 and 2^23 (level 0, 1, 2): the limit and every position are sums of a few hundred rows at
-- most, however long the queue is. Kept by triggers, so that nothing can forget it. (An IN with a list of pairs would be a scan in them.)
CREATE TABLE queue_counts (
    level   INTEGER NOT NULL,
    bucket  INTEGER NOT NULL,
    waiting INTEGER NOT NULL,
    PRIMARY KEY (level, bucket)
) STRICT, WITHOUT ROWID;
INSERT INTO queue_counts SELECT 0, queue_key >> 7, COUNT(*) FROM jobs WHERE state = 'queued' GROUP BY 2;
INSERT INTO queue_counts SELECT 1, queue_key >> 15, COUNT(*) FROM jobs WHERE state = 'queued' GROUP BY 2;
INSERT INTO queue_counts SELECT 2, queue_key >> 23, COUNT(*) FROM jobs WHERE state = 'queued' GROUP BY 2;
CREATE TRIGGER jobs_enter AFTER INSERT ON jobs WHEN NEW.state = 'queued' BEGIN
    INSERT INTO queue_counts VALUES (0, NEW.queue_key >> 7, 1), (1, NEW.queue_key >> 15, 1), (2, NEW.queue_key >> 23, 1)
        ON CONFLICT DO UPDATE SET waiting = waiting + 1;
END;
CREATE TRIGGER jobs_enter_again AFTER UPDATE OF state ON jobs WHEN NEW.state = 'queued' AND OLD.state <> 'queued' BEGIN
    INSERT INTO queue_counts VALUES (0, NEW.queue_key >> 7, 1), (1, NEW.queue_key >> 15, 1), (2, NEW.queue_key >> 23, 1)
        ON CONFLICT DO UPDATE SET waiting = waiting + 1;
END;
CREATE TRIGGER jobs_leave AFTER UPDATE OF state ON jobs WHEN OLD.state = 'queued' AND NEW.state <> 'queued' BEGIN
    UPDATE queue_counts SET waiting = waiting - 1 WHERE level = 0 AND bucket = OLD.queue_key >> 7
        OR level = 1 AND bucket = OLD.queue_key >> 15 OR level = 2 AND bucket = OLD.queue_key >> 23;
    DELETE FROM queue_counts WHERE waiting = 0 AND (level = 0 AND bucket = OLD.queue_key >> 7
        OR level = 1 AND bucket = OLD.queue_key >> 15 OR level = 2 AND bucket = OLD.queue_key >> 23);
END;
CREATE TRIGGER jobs_vanish AFTER DELETE ON jobs WHEN OLD.state = 'queued' BEGIN
    UPDATE queue_counts SET waiting = waiting - 1 WHERE level = 0 AND bucket = OLD.queue_key >> 7
        OR level = 1 AND bucket = OLD.queue_key >> 15 OR level = 2 AND bucket = OLD.queue_key >> 23;
    DELETE FROM queue_counts WHERE waiting = 0 AND (level = 0 AND bucket = OLD.queue_key >> 7
        OR level = 1 AND bucket = OLD.queue_key >> 15 OR level = 2 AND bucket = OLD.queue_key >> 23);
END;

-- Lists of samples: newest first is (created_at, id) downwards. deleted_at at the end saves the look into the row.
DROP INDEX samples_by_prompt;
DROP INDEX samples_by_adapter;
DROP INDEX samples_by_model;
CREATE INDEX samples_by_prompt ON samples (prompt_id, created_at, id, deleted_at);
CREATE INDEX samples_by_adapter ON samples (adapter_id, created_at, id, deleted_at) WHERE adapter_id IS NOT NULL;
CREATE INDEX samples_by_model ON samples (model_name, created_at, id, deleted_at);
CREATE INDEX samples_by_age ON samples (created_at, id) WHERE deleted_at = 0;
CREATE INDEX samples_starred ON samples (starred, created_at, id) WHERE starred = 1 AND deleted_at = 0;
CREATE INDEX samples_by_rating ON samples (COALESCE(rating, 0), id) WHERE deleted_at = 0;
CREATE INDEX samples_by_duration ON samples (duration_s, id) WHERE deleted_at = 0;
CREATE TABLE sample_tags (
    tag       TEXT NOT NULL,
    sample_id TEXT NOT NULL,
    PRIMARY KEY (tag, sample_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sample_tags_by_sample ON sample_tags (sample_id);
INSERT INTO sample_tags SELECT DISTINCT t.value, s.id FROM samples s, json_each(s.tags) t;

-- Words of prompts and samples. A document's number is its age, so that what was found comes newest first without sorting. Only what is not deleted
-- is in the words; triggers see to that, whoever changes a row.
CREATE TABLE prompt_docs (doc INTEGER PRIMARY KEY, prompt_id TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE sample_docs (doc INTEGER PRIMARY KEY, sample_id TEXT NOT NULL UNIQUE) STRICT;
CREATE VIRTUAL TABLE prompt_words USING fts5 (text, title, attributes, tokenize = 'unicode61 remove_diacritics 2');
CREATE VIRTUAL TABLE sample_words USING fts5 (prompt, title, tokenize = 'unicode61 remove_diacritics 2');
INSERT INTO prompt_docs (prompt_id) SELECT id FROM prompts ORDER BY created_at, id;
INSERT INTO prompt_words (rowid, text, title, attributes) SELECT d.doc, p.text, p.title, p.attributes
    FROM prompt_docs d JOIN prompts p ON p.id = d.prompt_id WHERE p.deleted_at = 0;
INSERT INTO sample_docs (sample_id) SELECT id FROM samples ORDER BY created_at, id;
INSERT INTO sample_words (rowid, prompt, title) SELECT d.doc, p.text, s.title
    FROM sample_docs d JOIN samples s ON s.id = d.sample_id JOIN prompts p ON p.id = s.prompt_id WHERE s.deleted_at = 0;
CREATE TRIGGER samples_words_new AFTER INSERT ON samples BEGIN
    INSERT INTO sample_docs (sample_id) VALUES (NEW.id);
    INSERT INTO sample_words (rowid, prompt, title)
        SELECT d.doc, p.text, NEW.title FROM sample_docs d, prompts p WHERE d.sample_id = NEW.id AND p.id = NEW.prompt_id;
    INSERT OR IGNORE INTO sample_tags SELECT value, NEW.id FROM json_each(NEW.tags);
END;
CREATE TRIGGER samples_words_change AFTER UPDATE OF title, deleted_at ON samples
WHEN OLD.title <> NEW.title OR (OLD.deleted_at = 0) <> (NEW.deleted_at = 0) BEGIN
    DELETE FROM sample_words WHERE rowid = (SELECT doc FROM sample_docs WHERE sample_id = NEW.id);
    INSERT INTO sample_words (rowid, prompt, title) SELECT d.doc, p.text, NEW.title
        FROM sample_docs d, prompts p WHERE d.sample_id = NEW.id AND p.id = NEW.prompt_id AND NEW.deleted_at = 0;
END;
CREATE TRIGGER samples_tags_change AFTER UPDATE OF tags ON samples WHEN OLD.tags <> NEW.tags BEGIN
    DELETE FROM sample_tags WHERE sample_id = NEW.id;
    INSERT OR IGNORE INTO sample_tags SELECT value, NEW.id FROM json_each(NEW.tags);
END;
CREATE TRIGGER samples_words_gone AFTER DELETE ON samples BEGIN
    DELETE FROM sample_words WHERE rowid = (SELECT doc FROM sample_docs WHERE sample_id = OLD.id);
    DELETE FROM sample_docs WHERE sample_id = OLD.id;
    DELETE FROM sample_tags WHERE sample_id = OLD.id;
END;

-- What the attributes of prompts say, one value a row; of a list each element, of an object none.
CREATE TABLE prompt_attributes (
    name      TEXT NOT NULL,
    value     ANY NOT NULL,
    prompt_id TEXT NOT NULL,
    PRIMARY KEY (name, value, prompt_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX prompt_attributes_by_prompt ON prompt_attributes (prompt_id);
CREATE VIEW prompt_attribute_values AS
    SELECT p.id AS prompt_id, m.key AS name, COALESCE(e.value, m.value) AS value FROM prompts p, json_each(p.attributes) m
    LEFT JOIN json_each(CASE m.type WHEN 'array' THEN m.value ELSE '[]' END) e
    WHERE COALESCE(e.type, m.type) NOT IN ('array', 'object', 'null');
INSERT OR IGNORE INTO prompt_attributes SELECT name, value, prompt_id FROM prompt_attribute_values;
CREATE INDEX prompts_by_age ON prompts (created_at, id) WHERE deleted_at = 0;
CREATE TRIGGER prompts_words_new AFTER INSERT ON prompts BEGIN
    INSERT INTO prompt_docs (prompt_id) VALUES (NEW.id);
    INSERT INTO prompt_words (rowid, text, title, attributes) SELECT doc, NEW.text, NEW.title, NEW.attributes FROM prompt_docs WHERE prompt_id = NEW.id;
    INSERT OR IGNORE INTO prompt_attributes SELECT name, value, prompt_id FROM prompt_attribute_values WHERE prompt_id = NEW.id AND NEW.attributes <> '{}';
END;
CREATE TRIGGER prompts_words_change AFTER UPDATE OF title, attributes, deleted_at ON prompts BEGIN
    DELETE FROM prompt_words WHERE rowid = (SELECT doc FROM prompt_docs WHERE prompt_id = NEW.id);
    INSERT INTO prompt_words (rowid, text, title, attributes)
        SELECT doc, NEW.text, NEW.title, NEW.attributes FROM prompt_docs WHERE prompt_id = NEW.id AND NEW.deleted_at = 0;
END;
CREATE TRIGGER prompts_attributes_change AFTER UPDATE OF attributes ON prompts WHEN OLD.attributes <> NEW.attributes BEGIN
    DELETE FROM prompt_attributes WHERE prompt_id = NEW.id;
    INSERT OR IGNORE INTO prompt_attributes SELECT name, value, prompt_id FROM prompt_attribute_values WHERE prompt_id = NEW.id;
END;
CREATE TRIGGER prompts_words_gone AFTER DELETE ON prompts BEGIN
    DELETE FROM prompt_words WHERE rowid = (SELECT doc FROM prompt_docs WHERE prompt_id = OLD.id);
    DELETE FROM prompt_docs WHERE prompt_id = OLD.id;
    DELETE FROM prompt_attributes WHERE prompt_id = OLD.id;
END;
