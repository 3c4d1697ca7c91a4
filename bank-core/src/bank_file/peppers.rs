//! The peppers in the bank file: their proofs, by which another bank's pepper file is noticed, and their rotation.
//!
//! A new key is in the pepper file before its proof is in the bank file, and a key is forgotten the other way round. So
//! whatever a crash leaves, the pepper file has every key whose proof the bank file has. A newest key without its proof
//! is harmless, and is proven when the bank is next opened for writing.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, params};

use super::BankFileError;
use super::open::{connect_alone, make_durable};
use crate::pin::{Peppers, PinProfile};

/// What is to be done about the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// Add a new key, with which hashes are made from now on.
    AddKey,
    /// Forget the keys on which no card depends, but never the newest.
    ForgetUnused,
}

/// What was done about the keys.
#[derive(Debug)]
pub struct Rotated {
    /// The key that hashes are made with.
    pub newest: u32,
    /// Whether an earlier rotation, which was cut short, had left it in the pepper file. Then no other was added.
    pub finished: bool,
    /// The keys that were forgotten.
    pub forgotten: Vec<u32>,
    /// The older keys that are left, and how many cards depend on each.
    pub older: Vec<(u32, u64)>,
}

/// Changes the keys of a bank that nobody serves. With a `profile`, new hashes cost that from now on.
///
/// # Errors
/// [`BankFileError`]. A rotation that was cut short is finished by the next.
pub fn rotate_pepper(
    path: &Path,
    pepper_file: &Path,
    rotation: Rotation,
    profile: Option<PinProfile>,
) -> Result<Rotated, BankFileError> {
    let sqlite = BankFileError::sqlite("rotating the peppers");
    let (path, _lock, connection) = connect_alone(path)?;
    // Read with the bank locked: of two who rotate at once the second must know the first's key.
    let mut peppers = Peppers::read(pepper_file)?;
    let finished = prove_peppers(&connection, &peppers)?;
    let cards = cards_by_pepper(&connection).map_err(&sqlite)?;
    let mut forgotten = Vec::new();
    match rotation {
        Rotation::AddKey if finished => {}
        Rotation::AddKey => {
            peppers.add_random()?;
            peppers.replace(pepper_file)?;
            prove_peppers(&connection, &peppers)?;
        }
        Rotation::ForgetUnused => {
            let newest = peppers.newest();
            forgotten = peppers
                .ids()
                .filter(|id| *id != newest && !cards.contains_key(id))
                .collect();
            if !forgotten.is_empty() {
                for id in &forgotten {
                    connection
                        .execute("DELETE FROM peppers WHERE pepper_id = ?1", [id])
                        .map_err(&sqlite)?;
                }
                make_durable(&connection, &path)?;
                peppers.forget(&forgotten);
                peppers.replace(pepper_file)?;
            }
        }
    }
    if let Some(profile) = profile {
        connection
            .execute("UPDATE bank SET pin_profile = ?1", [profile.name()])
            .map_err(&sqlite)?;
    }
    make_durable(&connection, &path)?;
    let newest = peppers.newest();
    let older = peppers.ids().filter(|id| *id != newest);
    Ok(Rotated {
        newest,
        finished,
        forgotten,
        older: older
            .map(|id| (id, cards.get(&id).copied().unwrap_or(0)))
            .collect(),
    })
}

fn cards_by_pepper(connection: &Connection) -> rusqlite::Result<BTreeMap<u32, u64>> {
    let mut select = connection.prepare("SELECT pepper_id, count(*) FROM cards GROUP BY pepper_id")?;
    let found = select.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?;
    found.collect()
}

/// That the peppers are those that the cards' PINs were hashed with. Gives whether the newest is new to the bank.
pub(super) fn check_peppers(connection: &Connection, peppers: &Peppers) -> Result<bool, BankFileError> {
    let sqlite = BankFileError::sqlite("reading the peppers' proofs");
    let mut select = connection
        .prepare("SELECT pepper_id, proof FROM peppers")
        .map_err(&sqlite)?;
    let mut found = select.query([]).map_err(&sqlite)?;
    let mut is_new = true;
    while let Some(columns) = found.next().map_err(&sqlite)? {
        let (id, proof): (u32, String) = (columns.get(0).map_err(&sqlite)?, columns.get(1).map_err(&sqlite)?);
        peppers.check(id, &proof)?;
        is_new &= id != peppers.newest();
    }
    Ok(is_new)
}

/// The same, and the newest, if it is new to the bank, is proven from now
/// on, which is what is given: hashes are about to be made with it. Of older ones that have no proof none is wanted, since
/// somebody may be about to forget them.
pub(super) fn prove_peppers(connection: &Connection, peppers: &Peppers) -> Result<bool, BankFileError> {
    let is_new = check_peppers(connection, peppers)?;
    if is_new {
        let (id, proof) = peppers.proof()?;
        connection
            .execute(
                "INSERT INTO peppers (pepper_id, proof) VALUES (?1, ?2)",
                params![id, proof],
            )
            .map_err(BankFileError::sqlite(
                "writing the proof of a pepper (it is in the pepper file, and will be used from the next opening on: back that up)",
            ))?;
    }
    Ok(is_new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bank::LoginError;
    use crate::ids::CardNumber;
    use crate::pin::{Pin, PinError};
    use crate::test_bank::Site;
    use crate::{Bank, bank_file};

    fn rotate(site: &Site, rotation: Rotation) -> Rotated {
        rotate_pepper(&site.path(), &site.pepper_path(), rotation, None).unwrap()
    }

    fn login(bank: &Bank, card: u64, pin: &str) -> Result<(), LoginError> {
        let card: CardNumber = card.to_string().parse().unwrap();
        bank.login(&card, &Pin::new(pin.as_bytes()).unwrap()).map(drop)
    }

    /// How many cards' hashes were made with that key.
    fn with_key(site: &Site, id: u32) -> i64 {
        site.query(&format!("SELECT count(*) FROM cards WHERE pepper_id = {id}"))
    }

    /// The ids of the keys that are proven, as the digits of a number.
    fn proofs(site: &Site) -> i64 {
        site.query("SELECT group_concat(pepper_id, '') + 0 FROM peppers")
    }

    #[test]
    fn each_card_is_brought_to_the_newest_key_at_its_next_good_login() {
        let site = Site::new();
        let rotated = rotate(&site, Rotation::AddKey);
        assert_eq!((rotated.newest, rotated.finished), (2, false));
        assert_eq!(rotated.older, [(1, 10)]);
        let bank = site.open();
        assert!(login(&bank, 1, "9999").is_err());
        assert_eq!(with_key(&site, 2), 0, "a wrong PIN is not hashed anew");
        login(&bank, 1, "0001").unwrap();
        assert_eq!(with_key(&site, 2), 1, "on disk before the answer");
        login(&bank, 1, "0001").unwrap();
        assert!(login(&bank, 1, "0002").is_err());
        drop(bank);
        let rotated = rotate(&site, Rotation::AddKey);
        assert_eq!(rotated.older, [(1, 9), (2, 1)]);
        let bank = site.open();
        for card in 1..=10 {
            login(&bank, card, &format!("{card:04}")).unwrap();
        }
        assert_eq!(with_key(&site, 3), 10);
        drop(bank);
        let forgot = rotate(&site, Rotation::ForgetUnused);
        assert_eq!(
            (forgot.newest, forgot.forgotten, forgot.older),
            (3, vec![1, 2], vec![])
        );
        assert_eq!(site.peppers().ids().collect::<Vec<_>>(), [3]);
        login(&site.open(), 1, "0001").unwrap();
        assert_eq!(rotate(&site, Rotation::AddKey).newest, 4);
    }

    #[test]
    fn cards_are_brought_to_the_banks_cost_at_their_next_good_login() {
        let site = Site::new();
        let standard = Some(PinProfile::Standard);
        rotate_pepper(
            &site.path(),
            &site.pepper_path(),
            Rotation::ForgetUnused,
            standard,
        )
        .unwrap();
        let bank = site.open();
        login(&bank, 1, "0001").unwrap();
        let costly = "SELECT count(*) FROM cards WHERE pin_hash LIKE '$argon2id$v=19$m=19456,t=2,p=1$%'";
        assert_eq!(site.query(costly), 1);
        login(&bank, 1, "0001").unwrap();
        drop(bank);
        login(&site.open(), 1, "0001").unwrap();
    }

    #[test]
    fn of_logins_at_once_that_all_find_an_old_hash_none_is_refused() {
        let site = Site::new();
        rotate(&site, Rotation::AddKey);
        let bank = site.open();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| login(&bank, 1, "0001").unwrap());
            }
        });
        drop(bank);
        assert_eq!(with_key(&site, 2), 1);
        login(&site.open(), 1, "0001").unwrap();
    }

    #[test]
    fn a_rotation_that_was_cut_short_is_harmless_and_finished_by_the_next_open_or_rotation() {
        // The key is in the pepper file, and no proof of it in the bank file.
        let cut_short = || {
            let site = Site::new();
            let mut peppers = site.peppers();
            peppers.add_random().unwrap();
            peppers.replace(&site.pepper_path()).unwrap();
            assert_eq!(proofs(&site), 1);
            site
        };
        let site = cut_short();
        let bank = site.open();
        assert_eq!(proofs(&site), 12);
        login(&bank, 1, "0001").unwrap();
        assert_eq!(with_key(&site, 2), 1);

        let site = cut_short();
        let rotated = rotate(&site, Rotation::AddKey);
        assert_eq!((rotated.newest, rotated.finished), (2, true));
        assert_eq!(proofs(&site), 12);
        login(&site.open(), 1, "0001").unwrap();
    }

    #[test]
    fn a_forgetting_that_was_cut_short_is_harmless_and_finished_by_the_next() {
        let site = Site::new();
        rotate(&site, Rotation::AddKey);
        rotate(&site, Rotation::AddKey);
        // The proof is gone from the bank file, and the key still in the pepper file.
        let file = Connection::open(site.path()).unwrap();
        file.execute("DELETE FROM peppers WHERE pepper_id = 2", [])
            .unwrap();
        drop(file);
        login(&site.open(), 1, "0001").unwrap();
        assert_eq!(proofs(&site), 13);
        assert_eq!(rotate(&site, Rotation::ForgetUnused).forgotten, [2]);
        assert_eq!(site.peppers().ids().collect::<Vec<_>>(), [1, 3]);
        login(&site.open(), 2, "0002").unwrap();
    }

    #[test]
    fn the_newest_key_and_those_in_use_are_not_forgotten() {
        let site = Site::new();
        assert!(rotate(&site, Rotation::ForgetUnused).forgotten.is_empty());
        rotate(&site, Rotation::AddKey);
        let kept = rotate(&site, Rotation::ForgetUnused);
        assert_eq!((kept.forgotten, kept.older), (vec![], vec![(1, 10)]));
        login(&site.open(), 1, "0001").unwrap();
    }

    #[test]
    fn a_pepper_file_from_before_the_rotation_is_noticed() {
        let site = Site::new();
        let before = site.peppers();
        rotate(&site, Rotation::AddKey);
        let opened = Bank::open(&site.path(), before).map(drop);
        let Err(BankFileError::Pin(error)) = opened else {
            panic!("{opened:?}")
        };
        assert!(matches!(*error, PinError::MissingPepper(2)));
        let lock = bank_file::BankLock::take(&site.path()).unwrap();
        assert!(matches!(
            rotate_pepper(&site.path(), &site.pepper_path(), Rotation::AddKey, None),
            Err(BankFileError::InUse(_))
        ));
        drop(lock);
    }
}
