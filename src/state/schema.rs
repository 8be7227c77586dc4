//! The tables, and how an older file becomes a newer one.
//!
//! ```text
//! site       one row: tag (in every mark), lineage (drawn once; a restored copy keeps it), next_run, frozen (JSON: who, since, why),
//!              home: where this state lives, so that a copy knows that it is one (JSON)
//! labs       lab ─ serial (counts every change of this lab), folder it was last applied from, frozen
//! objects    lab, kind, name ─ body: users, groups, vm groups, templates, permissions, sessions as last applied (JSON)
//! versions   lab, template, version ─ disks: published read-only images with their source's size, mtime, sha256 (JSON)
//! vms        lab, name ─ ip (unique in the site), mac, generation, run (its latest), version of its template, body (JSON)
//! disks      path ─ lab, vm, slot, base; made: 0 while it is being made; moving_to: where it is being set aside, or put back;
//!              aside, aside_at: where it was before, since when; owner: whose it was when it was set aside, kept while it has
//!              no vm; image: digest of the image that it is a copy of; instance: what the guest is called that boots from it
//! digests    path ─ size, mtime, sha256 of an image, as it was when it was last read
//! runs       run ─ lab, vm, generation, batch, task, job, started (JSON), state, reason
//!              state: intended ─▶ submitted ─▶ ended
//! applies    id ─ lab, who, host, command as it was typed, commit, summary, began, ended, outcome; beside: 1 of what was done
//!              beside any plan, such as a suspension
//! overtaken  apply ─ by_apply: the one that goes on in its place, since it was cut short
//! holds      lab, address ─ apply that works on it, doing, ip, mac and number of the run that it is to have, owner whose
//!              vm is to run or to get disks, bytes of all its disks then: as long as that apply runs
//! journal    id ─ apply, address, effect, intended_at, outcome (null: under way, or its controller died), detail
//! claims     id ─ lab, kind, name, body (JSON, with its version), by, at; ended_at, ended: since when it counts no more, and why
//! roster     what rosters say of people besides their accounts: see `roster`
//! audit      who asked for what, with tables of its own beside it: see `audit`
//! session_record, submissions, keeps
//!            what happened in exams, and what is to be had of them later: see `chain`
//! ```
//!
//! Times are RFC 3339 texts in UTC. Rows are keyed by lab; addresses and runs are the site's.
//!
//! The indexes are there so that a command costs what it touches: runs, applies and their journal grow with every day, and
//! of them a plan reads the latest alone.

use rusqlite::Connection;

/// Version of the tables that this program writes, kept in `PRAGMA user_version`.
pub(super) const VERSION: u32 = 12;

/// `MIGRATIONS[n]` turns version n into n + 1. Never edited once released.
const MIGRATIONS: [&str; VERSION as usize] = ["
    CREATE TABLE site (
        tag TEXT NOT NULL, lineage TEXT NOT NULL, created_at TEXT NOT NULL, next_run INTEGER NOT NULL, frozen TEXT
    ) STRICT;
    CREATE TABLE labs (
        lab TEXT PRIMARY KEY, serial INTEGER NOT NULL, folder TEXT NOT NULL, frozen TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE objects (
        lab TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (lab, kind, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE versions (
        lab TEXT NOT NULL, template TEXT NOT NULL, version INTEGER NOT NULL, disks TEXT NOT NULL, published_at TEXT NOT NULL,
        PRIMARY KEY (lab, template, version)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE vms (
        lab TEXT NOT NULL, name TEXT NOT NULL, ip TEXT NOT NULL UNIQUE, mac TEXT NOT NULL UNIQUE,
        generation INTEGER NOT NULL, run TEXT, version INTEGER, body TEXT NOT NULL,
        PRIMARY KEY (lab, name)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE disks (
        path TEXT PRIMARY KEY, lab TEXT NOT NULL, vm TEXT NOT NULL, slot INTEGER NOT NULL, base TEXT,
        made INTEGER NOT NULL, moving_to TEXT, aside TEXT, aside_at TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX disks_of_vm ON disks (lab, vm);
    CREATE TABLE runs (
        run TEXT PRIMARY KEY, lab TEXT NOT NULL, vm TEXT NOT NULL, generation INTEGER NOT NULL,
        batch TEXT NOT NULL, task INTEGER NOT NULL, job INTEGER, started TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('intended', 'submitted', 'ended')), reason TEXT,
        created_at TEXT NOT NULL, ended_at TEXT
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX runs_of_vm ON runs (lab, vm, generation);
    CREATE TABLE applies (
        id INTEGER PRIMARY KEY AUTOINCREMENT, lab TEXT NOT NULL, who TEXT NOT NULL, host TEXT NOT NULL,
        \"commit\" TEXT, summary TEXT NOT NULL, began_at TEXT NOT NULL, ended_at TEXT, outcome TEXT
    ) STRICT;
    CREATE TABLE journal (
        id INTEGER PRIMARY KEY AUTOINCREMENT, apply INTEGER NOT NULL REFERENCES applies (id), address TEXT NOT NULL,
        effect TEXT NOT NULL, intended_at TEXT NOT NULL, outcome TEXT, detail TEXT, ended_at TEXT
    ) STRICT;
    CREATE INDEX journal_of_apply ON journal (apply);
", "
    ALTER TABLE site ADD COLUMN home TEXT;
    ALTER TABLE disks ADD COLUMN owner TEXT;
    ALTER TABLE disks ADD COLUMN image TEXT;
    CREATE TABLE digests (
        path TEXT PRIMARY KEY, bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT OR REPLACE INTO digests (path, bytes, mtime_ns, sha256)
        SELECT json_extract(disk.value, '$.source'), json_extract(disk.value, '$.source_bytes'),
               json_extract(disk.value, '$.source_mtime_ns'), json_extract(disk.value, '$.sha256')
        FROM versions, json_each(versions.disks) AS disk ORDER BY versions.version;
", "
    ALTER TABLE applies ADD COLUMN command TEXT;
    ALTER TABLE applies ADD COLUMN beside INTEGER NOT NULL DEFAULT 0;
", "
    CREATE TABLE claims (
        id INTEGER PRIMARY KEY AUTOINCREMENT, lab TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,
        \"by\" TEXT NOT NULL, at TEXT NOT NULL, ended_at TEXT, ended TEXT
    ) STRICT;
    CREATE INDEX claims_of_lab ON claims (lab, ended_at);
    CREATE UNIQUE INDEX claims_of_power ON claims (lab, name) WHERE kind = 'power' AND ended_at IS NULL;
    CREATE INDEX runs_of_batch ON runs (lab, batch, task);
    CREATE INDEX runs_over ON runs (lab, ended_at) WHERE state = 'ended';
    CREATE INDEX disks_aside ON disks (lab, aside_at) WHERE aside IS NOT NULL;
    CREATE INDEX applies_of_lab ON applies (lab, id);
    CREATE INDEX journal_of_address ON journal (address, id);
", "
    CREATE TABLE IF NOT EXISTS overtaken (
        apply INTEGER PRIMARY KEY REFERENCES applies (id) ON DELETE CASCADE, by_apply INTEGER NOT NULL
    ) STRICT;
    INSERT OR IGNORE INTO overtaken (apply, by_apply)
        SELECT id, latest FROM applies JOIN (SELECT lab AS of, MAX(id) AS latest FROM applies WHERE NOT beside GROUP BY lab) ON of = lab
        WHERE ended_at IS NULL AND NOT beside AND id < latest;
    CREATE INDEX IF NOT EXISTS applies_open ON applies (lab) WHERE ended_at IS NULL;
    CREATE TABLE IF NOT EXISTS holds (
        lab TEXT NOT NULL, address TEXT NOT NULL, apply INTEGER NOT NULL REFERENCES applies (id) ON DELETE CASCADE,
        doing TEXT NOT NULL, ip TEXT, mac TEXT, run INTEGER,
        PRIMARY KEY (lab, address)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS holds_of_apply ON holds (apply);
    CREATE INDEX IF NOT EXISTS holds_of_ip ON holds (ip) WHERE ip IS NOT NULL;
    CREATE INDEX IF NOT EXISTS holds_of_mac ON holds (mac) WHERE mac IS NOT NULL;
", super::audit::TABLES, "
    -- Nobody holds anything while tables are brought up to date.
    DROP TABLE holds;
    CREATE TABLE holds (
        lab TEXT NOT NULL, address TEXT NOT NULL, apply INTEGER NOT NULL REFERENCES applies (id) ON DELETE CASCADE,
        doing TEXT NOT NULL, ip TEXT, mac TEXT, run INTEGER, owner TEXT,
        PRIMARY KEY (lab, address)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX holds_of_apply ON holds (apply);
    CREATE INDEX holds_of_ip ON holds (ip) WHERE ip IS NOT NULL;
    CREATE INDEX holds_of_mac ON holds (mac) WHERE mac IS NOT NULL;
    CREATE INDEX holds_of_owner ON holds (owner) WHERE owner IS NOT NULL;
    CREATE INDEX IF NOT EXISTS vms_of_owner ON vms (json_extract(body, '$.owner'));
", super::roster::TABLE, super::roster::CANDIDATE, "
    ALTER TABLE holds ADD COLUMN bytes INTEGER;
", "
    ALTER TABLE disks ADD COLUMN instance TEXT;
", super::chain::TABLES];

/// Brings the tables to `VERSION`, each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection, from: u32) -> rusqlite::Result<()> {
    for (version, sql) in (0..).zip(MIGRATIONS).skip(from as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", version + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}
