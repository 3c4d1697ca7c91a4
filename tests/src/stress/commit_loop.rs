//! The bare SQLite commit loop of `bench`: what one client can have at most who waits for every commit.

use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::TestBank;

/// Rows as the journal has them, each committed by itself in a database of its own on the same disk.
pub(super) struct CommitLoop {
    connection: Connection,
}

impl CommitLoop {
    pub(super) fn new(bank: &TestBank) -> rusqlite::Result<CommitLoop> {
        let table: String = Connection::open(bank.path())?.query_row(
            "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'journal'",
            [],
            |row| row.get(0),
        )?;
        let connection = Connection::open(bank.directory().join("commits.db"))?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        connection.execute_batch(&table)?;
        Ok(CommitLoop { connection })
    }

    pub(super) fn per_second(&self, duration: Duration) -> rusqlite::Result<f64> {
        let first: i64 =
            self.connection
                .query_row("SELECT coalesce(max(lsn), 0) + 1 FROM journal", [], |row| {
                    row.get(0)
                })?;
        let mut begin = self.connection.prepare("BEGIN IMMEDIATE")?;
        let mut commit = self.connection.prepare("COMMIT")?;
        let mut insert = self.connection.prepare(
            "INSERT INTO journal VALUES (?1, ?2, 20778, 2, 0, ?3, 77777, 1, 'STRESS', 5000, 105000, ?4, NULL, NULL, NULL, 1, NULL, NULL)",
        )?;
        let started = Instant::now();
        let mut lsn = first;
        while started.elapsed() < duration {
            let id = lsn.to_be_bytes().repeat(2);
            begin.execute([])?;
            insert.execute(params![lsn, 1_795_219_200_000 + lsn, id, lsn - 1])?;
            commit.execute([])?;
            lsn += 1;
        }
        let per_second = (lsn - first) as f64 / started.elapsed().as_secs_f64();
        self.connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(per_second)
    }
}
