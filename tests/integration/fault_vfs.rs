//! What the shim promises, shown on databases written the way a journal is.

use atm_tests::fault_vfs::{Fault, FaultDisk};
use rusqlite::{Connection, ErrorCode, ffi};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const SEEDS: [Option<u64>; 4] = [None, Some(1), Some(2), Some(3)];

fn open(dir: &Path, journal: &str, synchronous: &str) -> rusqlite::Result<Connection> {
    let conn = Connection::open(dir.join("bank.db"))?;
    conn.busy_timeout(Duration::from_secs(20))?;
    conn.query_row(&format!("PRAGMA journal_mode={journal}"), [], |_| Ok(()))?;
    conn.execute_batch(&format!("PRAGMA synchronous={synchronous}"))?;
    Ok(conn)
}

/// A watched database with its tables, whose creation is synced.
fn database(synchronous: &str) -> (TempDir, FaultDisk, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultDisk::watch(dir.path());
    let conn = open(dir.path(), "WAL", "FULL").unwrap();
    create(&conn).unwrap();
    conn.execute_batch(&format!("PRAGMA synchronous={synchronous}"))
        .unwrap();
    (dir, disk, conn)
}

fn create(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN; CREATE TABLE a(id INTEGER PRIMARY KEY); CREATE TABLE b(id, data); COMMIT")
}

/// One commit of several pages in two tables, so that half of it shows.
fn commit(conn: &mut Connection, id: i64) -> rusqlite::Result<()> {
    let tx = conn.transaction()?;
    tx.execute("INSERT INTO a VALUES (?)", [id])?;
    tx.execute("INSERT INTO b VALUES (?, randomblob(8000))", [id])?;
    tx.commit()
}

fn image(disk: &FaultDisk, seed: Option<u64>) -> TempDir {
    let dest = tempfile::tempdir().unwrap();
    disk.write_crash_image(dest.path(), seed).unwrap();
    dest
}

/// What a restart finds: the ids, or why the database is no good.
fn recover(dir: &Path) -> Result<Vec<i64>, String> {
    let conn = Connection::open(dir.join("bank.db")).map_err(|e| e.to_string())?;
    let check: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(|e| e.to_string())?;
    if check != "ok" {
        return Err(check);
    }
    let ids = |table| {
        let Ok(mut query) = conn.prepare(&format!("SELECT id FROM {table} ORDER BY id")) else {
            return Vec::new(); // The table was never created.
        };
        query
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect::<Vec<i64>>()
    };
    if ids("a") != ids("b") {
        return Err("half a commit".to_owned());
    }
    Ok(ids("a"))
}

fn extended_code(error: &rusqlite::Error) -> i32 {
    error.sqlite_error().expect("an SQLite error").extended_code
}

/// The fixed workload. Answers the ids of the acknowledged commits, and goes on after errors as a bank might.
fn workload(dir: &Path, journal: &str, synchronous: &str) -> Vec<i64> {
    let mut acknowledged = Vec::new();
    let Ok(mut conn) = open(dir, journal, synchronous) else {
        return acknowledged;
    };
    if create(&conn).is_err() {
        return acknowledged;
    }
    for id in 1..=10 {
        if commit(&mut conn, id).is_ok() {
            acknowledged.push(id);
        }
        if id == 6 {
            conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
                .ok();
        }
    }
    acknowledged
}

/// Cuts the power at every step of the workload. Answers the number of steps and of images, and what was wrong.
fn cut_everywhere(journal: &str, synchronous: &str) -> (u64, usize, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultDisk::watch(dir.path());
    assert_eq!(
        workload(dir.path(), journal, synchronous),
        (1..=10).collect::<Vec<_>>()
    );
    let steps = disk.steps();
    let (mut images, mut wrong) = (0, Vec::new());
    for step in 1..=steps + 1 {
        let dir = tempfile::tempdir().unwrap();
        let disk = FaultDisk::watch(dir.path());
        disk.cut_power_at(step);
        let acknowledged = workload(dir.path(), journal, synchronous);
        for seed in SEEDS {
            images += 1;
            match recover(image(&disk, seed).path()) {
                Err(why) => wrong.push(format!("step {step} seed {seed:?}: {why}")),
                Ok(found) => {
                    let in_flight = acknowledged.len() as i64 + 1;
                    if !found.starts_with(&acknowledged) || found.last().is_some_and(|id| *id > in_flight) {
                        wrong.push(format!(
                            "step {step} seed {seed:?}: {found:?}, not {acknowledged:?}"
                        ));
                    }
                }
            }
        }
    }
    println!(
        "{journal} {synchronous}: {steps} steps, {images} images, {} wrong",
        wrong.len()
    );
    (steps, images, wrong)
}

#[test]
fn a_synced_commit_survives_and_an_unsynced_one_does_not() {
    let (_dir, disk, mut conn) = database("FULL");
    commit(&mut conn, 1).unwrap();
    assert_eq!(recover(image(&disk, None).path()), Ok(vec![1]));
    conn.execute_batch("PRAGMA synchronous=OFF").unwrap();
    commit(&mut conn, 2).unwrap();
    assert_eq!(recover(image(&disk, None).path()), Ok(vec![1]));
    conn.execute_batch("PRAGMA synchronous=FULL").unwrap();
    commit(&mut conn, 3).unwrap();
    assert_eq!(recover(image(&disk, None).path()), Ok(vec![1, 2, 3]));
}

#[test]
fn a_power_cut_anywhere_keeps_every_acknowledged_commit_of_a_wal() {
    let (steps, _, wrong) = cut_everywhere("WAL", "FULL");
    assert!(steps > 100, "{steps}");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_power_cut_anywhere_keeps_every_acknowledged_commit_of_a_rollback_journal() {
    assert_eq!(cut_everywhere("DELETE", "FULL").2, Vec::<String>::new());
}

#[test]
fn power_cuts_tell_the_weaker_settings() {
    let (_, _, normal) = cut_everywhere("WAL", "NORMAL");
    assert!(
        !normal.is_empty() && normal.iter().all(|why| why.contains(", not [")),
        "lost, never corrupt: {normal:?}"
    );
    let (_, _, off) = cut_everywhere("WAL", "OFF");
    assert!(off.iter().any(|why| !why.contains(", not [")), "corrupt: {off:?}");
}

#[test]
fn a_seed_always_chooses_the_same_subset() {
    let (_dir, disk, mut conn) = database("OFF");
    commit(&mut conn, 1).unwrap();
    let wal = |seed| std::fs::read(image(&disk, Some(seed)).path().join("bank.db-wal")).unwrap();
    assert_eq!(wal(1), wal(1));
    assert!((2..20).any(|seed| wal(seed) != wal(1)));
}

#[test]
fn every_step_of_a_commit_fails_once_on_demand() {
    let (_dir, disk, mut conn) = database("FULL");
    let mut kept = Vec::new();
    let mut codes = Vec::new();
    for fault in [Fault::IoError, Fault::Full] {
        for step in 1.. {
            let id = kept.len() as i64 * 2;
            let before = disk.steps();
            disk.fail_once_at(before + step, fault);
            let result = commit(&mut conn, id);
            if result.is_ok() {
                assert_eq!(disk.steps() - before, step - 1, "no step has failed");
                kept.push(id);
                break;
            }
            assert_eq!(
                disk.steps() - before,
                step,
                "a commit goes no further than its failing step"
            );
            codes.push(extended_code(&result.unwrap_err()));
            assert!(conn.is_autocommit());
            commit(&mut conn, id + 1).unwrap();
            kept.push(id + 1);
            let mut rows = conn.prepare("SELECT id FROM a ORDER BY id").unwrap();
            let rows: Vec<i64> = rows
                .query_map([], |row| row.get(0))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            assert_eq!(rows, kept);
            for seed in SEEDS {
                assert_eq!(recover(image(&disk, seed).path()).as_ref(), Ok(&kept));
            }
        }
    }
    println!("codes of the failing steps: {codes:?}");
    let count = |code| codes.iter().filter(|c| **c == code).count();
    let counts = [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_FULL, ffi::SQLITE_IOERR_FSYNC].map(count);
    assert!(
        counts.iter().all(|n| *n > 1) && counts.iter().sum::<usize>() == codes.len(),
        "{counts:?}"
    );
}

#[test]
fn a_commit_whose_sync_failed_is_in_doubt_after_a_crash() {
    let (dir, disk, mut conn) = database("FULL");
    commit(&mut conn, 1).unwrap();
    commit(&mut conn, 2).unwrap();
    let before = disk.steps();
    commit(&mut conn, 3).unwrap();
    disk.fail_once_at(disk.steps() + (disk.steps() - before), Fault::IoError);
    let error = commit(&mut conn, 4).expect_err("the sync fails");
    assert_eq!(extended_code(&error), ffi::SQLITE_IOERR_FSYNC);
    let visible = conn.query_row("SELECT max(id) FROM a", [], |row| row.get::<_, i64>(0));
    assert_eq!(visible, Ok(3));
    assert_eq!(recover(image(&disk, None).path()), Ok(vec![1, 2, 3]));
    let found: Vec<_> = (0..200)
        .map(|seed| recover(image(&disk, Some(seed)).path()).unwrap())
        .collect();
    let came_back = found.iter().filter(|ids| **ids == [1, 2, 3, 4]).count();
    println!("the failed commit came back in {came_back} of 200 images");
    assert!(came_back > 0 && found.contains(&vec![1, 2, 3]));
    // A process that merely dies leaves all it wrote to the kernel.
    let killed = tempfile::tempdir().unwrap();
    for name in ["bank.db", "bank.db-wal"] {
        std::fs::copy(dir.path().join(name), killed.path().join(name)).unwrap();
    }
    assert_eq!(recover(killed.path()), Ok(vec![1, 2, 3, 4]));
    // A clean close checkpoints no more than what the connection takes for committed.
    drop(conn);
    assert_eq!(recover(dir.path()), Ok(vec![1, 2, 3]));
}

#[test]
fn a_dead_disk_stays_dead_until_the_watch_ends() {
    let (dir, disk, mut conn) = database("FULL");
    commit(&mut conn, 1).unwrap();
    disk.fail_from(disk.steps() + 1, Fault::Full);
    for id in 2..5 {
        let error = commit(&mut conn, id).expect_err("the disk is full");
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DiskFull));
    }
    assert_eq!(
        conn.query_row("SELECT count(*) FROM a", [], |row| row.get::<_, i64>(0)),
        Ok(1)
    );
    drop(disk);
    commit(&mut conn, 5).unwrap();
    drop(conn);
    assert_eq!(recover(dir.path()), Ok(vec![1, 5]));
}

#[test]
fn unwatched_directories_have_an_ordinary_disk() {
    let (watched, plain) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let disk = FaultDisk::watch(watched.path());
    disk.fail_from(1, Fault::IoError);
    assert_eq!(
        workload(plain.path(), "WAL", "FULL"),
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(recover(plain.path()), Ok((1..=10).collect()));
    assert_eq!(disk.steps(), 0);
    assert_eq!(image(&disk, None).path().read_dir().unwrap().count(), 0);
    let memory = Connection::open_in_memory().unwrap();
    memory
        .execute_batch("PRAGMA temp_store=FILE; CREATE TEMP TABLE t AS VALUES (1)")
        .unwrap();
}

#[test]
fn what_a_file_holds_when_first_opened_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("sub");
    std::fs::create_dir(&sub).unwrap();
    let mut early = open(&sub, "WAL", "FULL").unwrap();
    create(&early).unwrap();
    commit(&mut early, 1).unwrap();
    let disk = FaultDisk::watch(dir.path());
    let late = open(&sub, "WAL", "FULL").unwrap();
    assert_eq!(
        late.query_row("SELECT count(*) FROM a", [], |row| row.get::<_, i64>(0)),
        Ok(1)
    );
    assert_eq!(recover(&image(&disk, None).path().join("sub")), Ok(vec![1]));
    assert!(!image(&disk, Some(1)).path().join("sub/bank.db-shm").exists());
    drop(late);
    commit(&mut early, 2).unwrap();
    drop(early);
    assert_eq!(recover(&sub), Ok(vec![1, 2]));
}

#[test]
fn connections_on_several_threads_share_one_disk() {
    let (dir, disk, conn) = database("FULL");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dir = dir.path();
            scope.spawn(move || {
                let conn = open(dir, "WAL", "FULL").unwrap();
                for n in 0..25 {
                    let id = thread * 25 + n;
                    conn.execute_batch(&format!(
                        "BEGIN IMMEDIATE; INSERT INTO a VALUES ({id}); INSERT INTO b VALUES ({id}, ''); COMMIT"
                    ))
                    .unwrap();
                }
            });
        }
        for seed in SEEDS {
            recover(image(&disk, seed).path()).unwrap();
        }
    });
    let all = (0..100).collect::<Vec<i64>>();
    assert_eq!(recover(image(&disk, None).path()).as_ref(), Ok(&all));
    drop(conn);
    // The last connection has moved everything into the database and deleted the WAL.
    let dest = image(&disk, None);
    assert!(!dest.path().join("bank.db-wal").exists());
    assert_eq!(recover(dest.path()), Ok(all));
}
