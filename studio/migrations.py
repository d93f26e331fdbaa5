"""The schema of the store, as numbered steps that are never edited once released, only added to.

`PRAGMA user_version` counts the steps a store has taken. Each step runs in one transaction together with its number,
so a store is always of exactly one version. This module knows tables, and nothing of what the rows mean.
"""

from __future__ import annotations

# Every queue decision reads three counters of the owner; triggers keep them, so that no statement can forget to.
_COUNTS = """
    waiting = waiting + {waiting},
    paused = paused + {paused},
    running = running + {running}
"""


def _counts(plus: str, minus: str) -> str:
    """The assignments that move one job's weight from state `minus` to state `plus` ("" for none)."""

    def change(state: str) -> str:
        terms = [f"({row}.state = '{state}')" for row in (plus,) if row]
        terms += [f"- ({row}.state = '{state}')" for row in (minus,) if row]
        return " ".join(terms)

    return _COUNTS.format(waiting=change("queued"), paused=change("paused"), running=change("running"))


_JOBS = (
    """
    CREATE TABLE job (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        token TEXT,
        engine TEXT NOT NULL,
        params TEXT NOT NULL,
        model_key TEXT NOT NULL DEFAULT '',
        priority INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')),
        wish TEXT NOT NULL DEFAULT '' CHECK (wish IN ('', 'cancel', 'pause')),
        wish_time REAL,
        attempts INTEGER NOT NULL DEFAULT 0,
        worker TEXT,
        lease_until REAL,
        created REAL NOT NULL,
        started REAL,
        ended REAL,
        error TEXT,
        progress TEXT,
        UNIQUE (owner, token)
    )
    """,
    "CREATE INDEX job_of_owner ON job (owner, seq)",
    "CREATE INDEX job_leases ON job (lease_until) WHERE state = 'running'",
    """
    CREATE TABLE event (
        job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        seq INTEGER NOT NULL,
        time REAL NOT NULL,
        kind TEXT NOT NULL,
        payload TEXT NOT NULL,
        PRIMARY KEY (job, seq)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE owner (
        number INTEGER PRIMARY KEY,
        owner TEXT NOT NULL UNIQUE,
        last_served INTEGER NOT NULL DEFAULT 0,
        waiting INTEGER NOT NULL DEFAULT 0,
        paused INTEGER NOT NULL DEFAULT 0,
        running INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX owner_waiting ON owner (last_served) WHERE waiting > 0",
    "CREATE INDEX owner_served ON owner (last_served)",
    f"""
    CREATE TRIGGER job_added AFTER INSERT ON job BEGIN
        INSERT INTO owner (owner) VALUES (new.owner) ON CONFLICT DO NOTHING;
        UPDATE owner SET {_counts("new", "")} WHERE owner = new.owner;
    END
    """,
    f"""
    CREATE TRIGGER job_moved AFTER UPDATE OF state ON job WHEN old.state <> new.state BEGIN
        UPDATE owner SET {_counts("new", "old")} WHERE owner = new.owner;
    END
    """,
    f"""
    CREATE TRIGGER job_removed AFTER DELETE ON job BEGIN
        UPDATE owner SET {_counts("", "old")} WHERE owner = old.owner;
    END
    """,
)

_AGEING_AND_RESULTS = (
    # `rank` is the time of queueing less 600 s for each step of priority: the smaller, the sooner (studio.claims).
    "ALTER TABLE job ADD COLUMN rank REAL NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE job ADD COLUMN device TEXT",
    "ALTER TABLE job ADD COLUMN plan TEXT",
    "UPDATE job SET rank = created - 600.0 * priority",
    "CREATE INDEX job_order ON job (owner, rank, seq) WHERE state = 'queued'",
    "CREATE INDEX job_window ON job (owner, priority, rank, seq, model_key) WHERE state = 'queued'",
    "CREATE TABLE queue (one INTEGER PRIMARY KEY CHECK (one = 1), paused INTEGER NOT NULL)",
    "INSERT INTO queue VALUES (1, 0)",
    """
    CREATE TABLE worker (
        id TEXT PRIMARY KEY,
        device TEXT NOT NULL,
        facts TEXT NOT NULL,
        warm TEXT NOT NULL,
        pid INTEGER NOT NULL,
        seen REAL NOT NULL
    )
    """,
    """
    CREATE TABLE timing (
        number INTEGER PRIMARY KEY,
        engine TEXT NOT NULL,
        device_kind TEXT NOT NULL,
        work REAL NOT NULL,
        seconds REAL NOT NULL,
        time REAL NOT NULL
    )
    """,
    "CREATE INDEX timing_of_engine ON timing (engine, device_kind, number)",
    """
    CREATE TABLE blob (
        sha TEXT PRIMARY KEY,
        bytes INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        touched REAL NOT NULL
    )
    """,
    """
    CREATE TABLE upload (
        sha TEXT NOT NULL REFERENCES blob (sha),
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        created REAL NOT NULL,
        PRIMARY KEY (sha, owner)
    )
    """,
    """
    CREATE TABLE output (
        number INTEGER PRIMARY KEY,
        job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        kind TEXT NOT NULL,
        sha TEXT NOT NULL REFERENCES blob (sha),
        attributes TEXT NOT NULL,
        UNIQUE (job, name)
    )
    """,
    "CREATE INDEX output_of_sha ON output (sha)",
    """
    CREATE TABLE metric (
        job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        content TEXT NOT NULL,
        PRIMARY KEY (job, name)
    )
    """,
    """
    CREATE TABLE share (
        token TEXT PRIMARY KEY,
        job TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
        owner TEXT NOT NULL,
        created REAL NOT NULL,
        revoked REAL
    )
    """,
    "CREATE INDEX share_of_job ON share (job)",
)

_DOOR = (
    """
    CREATE TABLE account (
        name TEXT PRIMARY KEY,
        owner TEXT NOT NULL UNIQUE,
        password TEXT NOT NULL,
        created REAL NOT NULL
    )
    """,
    """
    CREATE TABLE session (
        digest TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        name TEXT NOT NULL,
        created REAL NOT NULL,
        used REAL NOT NULL
    )
    """,
    "CREATE INDEX session_of_owner ON session (owner)",
    # Jobs change hands when somebody logs in; the counters of both follow.
    f"""
    CREATE TRIGGER job_given AFTER UPDATE OF owner ON job WHEN old.owner <> new.owner BEGIN
        INSERT INTO owner (owner) VALUES (new.owner) ON CONFLICT DO NOTHING;
        UPDATE owner SET {_counts("", "old")} WHERE owner = old.owner;
        UPDATE owner SET {_counts("new", "")} WHERE owner = new.owner;
    END
    """,
    # How jobs have ended, kept for ever: jobs themselves are deleted when their time is over.
    """
    CREATE TABLE tally (
        engine TEXT NOT NULL,
        state TEXT NOT NULL,
        jobs INTEGER NOT NULL,
        seconds REAL NOT NULL,
        PRIMARY KEY (engine, state)
    ) WITHOUT ROWID
    """,
    """
    INSERT INTO tally SELECT engine, state, COUNT(*), SUM(MAX(0, COALESCE(ended - started, 0))) FROM job
    WHERE state IN ('succeeded', 'failed', 'cancelled') GROUP BY engine, state
    """,
    """
    CREATE TRIGGER job_tallied AFTER UPDATE OF state ON job
    WHEN new.state IN ('succeeded', 'failed', 'cancelled') AND old.state <> new.state BEGIN
        INSERT INTO tally VALUES (new.engine, new.state, 1, MAX(0, COALESCE(new.ended - new.started, 0)))
        ON CONFLICT DO UPDATE SET jobs = jobs + 1, seconds = seconds + excluded.seconds;
    END
    """,
)

_STOP_AND_KEEP = (
    # With wish 'cancel': stop, and keep what there is. With state 'succeeded': that is how the job ended.
    "ALTER TABLE job ADD COLUMN keep INTEGER NOT NULL DEFAULT 0",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _JOBS,  # 0001
    _AGEING_AND_RESULTS,  # 0002
    _DOOR,  # 0003
    _STOP_AND_KEEP,  # 0004
)
