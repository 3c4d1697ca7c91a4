//! PINs: argon2id with a pepper, which is kept outside the bank file.
//!
//! There are only ten thousand PINs of four digits, so a hash that leaks is soon a PIN known, whatever it
//! costs to compute. Hence the pepper: a key that argon2 mixes in (its "secret" input, RFC 9106 section 3.1) and
//! that lies in a file of its own. Whoever has the bank file alone can try no PIN at all.

use std::cell::RefCell;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::{Output, PasswordHash};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::files::write_beside;
use crate::limits::{MAX_PEPPER_FILE_BYTES, MAX_PIN_DIGITS, MIN_PIN_DIGITS};
use crate::{secret_file, weak_pin};

/// A PIN of 4 to 12 digits (ISO 9564-1). It is overwritten when dropped, and shows itself to nobody.
///
/// Its digits stay where they are when it is moved, so that moves leave no copies behind.
#[derive(Clone)]
pub struct Pin {
    digits: Box<[u8; MAX_PIN_DIGITS]>,
    len: usize,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.digits.as_mut_slice().zeroize();
    }
}

/// A text is no PIN. The text is not repeated: it may be a PIN with a slip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a PIN has 4 to 12 digits and nothing else")]
pub struct InvalidPin;

impl Pin {
    /// The PIN with these digits.
    ///
    /// # Errors
    /// [`InvalidPin`] unless there are 4 to 12 of them, in ASCII.
    pub fn new(digits: &[u8]) -> Result<Pin, InvalidPin> {
        if !(MIN_PIN_DIGITS..=MAX_PIN_DIGITS).contains(&digits.len())
            || !digits.iter().all(u8::is_ascii_digit)
        {
            return Err(InvalidPin);
        }
        let mut pin = Pin {
            digits: Box::new([0; MAX_PIN_DIGITS]),
            len: digits.len(),
        };
        pin.digits[..digits.len()].copy_from_slice(digits);
        Ok(pin)
    }

    /// Whether it is among those that are guessed first: a repetition, a run, a year, or one that many choose.
    pub fn is_weak(&self) -> bool {
        weak_pin::is_weak(self.as_bytes())
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.len]
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(****)")
    }
}

/// How much work a PIN's hash is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinProfile {
    /// 19 MiB, two passes, one lane: the first choice of OWASP's Password Storage Cheat Sheet.
    Standard,
    /// 8 KiB, one pass: for test banks of many accounts, and for nothing else.
    Fast,
}

impl PinProfile {
    fn params(self) -> Params {
        let (memory_kib, passes, lanes) = match self {
            PinProfile::Standard => (19 * 1024, 2, 1),
            PinProfile::Fast => (8, 1, 1),
        };
        Params::new(memory_kib, passes, lanes, None).expect("both profiles are within argon2's ranges")
    }

    /// The name that the bank file and the command line know it by.
    pub const fn name(self) -> &'static str {
        match self {
            PinProfile::Standard => "standard",
            PinProfile::Fast => "fast",
        }
    }

    /// The profile with that name.
    pub fn from_name(name: &str) -> Option<PinProfile> {
        [PinProfile::Standard, PinProfile::Fast]
            .into_iter()
            .find(|profile| profile.name() == name)
    }
}

/// The peppers of a bank: keys by their id. New hashes are made with the newest.
pub struct Peppers(Vec<Pepper>);

#[derive(Zeroize, ZeroizeOnDrop)]
struct Pepper {
    id: u32,
    /// Where it stays when the pepper is moved, so that moves leave no copies behind.
    key: Box<[u8; Pepper::BYTES]>,
}

impl Pepper {
    const BYTES: usize = 32;
}

/// What can be wrong with PIN hashing or the pepper file.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file could not be read or written.
    #[error("the pepper file {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is no such file.
    #[error("the pepper file {} is missing: restore it from its backup, without it no PIN can be checked", .0.display())]
    Missing(PathBuf),
    /// The file is not a pepper file.
    #[error("the pepper file {} is damaged at line {line}: restore it from its backup, without it no PIN can be checked", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Others may read the file.
    #[error("the pepper file {} may be read or written by others: run \"chmod 600\" on it", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
    },
    /// The file has no room for another pepper.
    #[error("the pepper file {} would have more than {MAX_PEPPER_FILE_BYTES} bytes: \"atm-server rotate-pepper --forget-unused\" removes keys that no card needs", .0.display())]
    TooMany(PathBuf),
    /// A hash was made with a pepper that the file does not hold.
    #[error(
        "the pepper file is not this bank's: its pepper {0} is missing or another; restore the bank's own pepper file"
    )]
    MissingPepper(u32),
    /// A stored hash is not one of argon2.
    #[error("a stored PIN hash is damaged: {0}")]
    Hash(argon2::password_hash::Error),
    /// The machine gives no randomness.
    #[error("the operating system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The machine gives no threads to compute hashes on.
    #[error("the operating system gives no threads for the hashes of PINs: {0}")]
    Threads(ThreadPoolBuildError),
}

/// What is stored as a hash is none of ours.
const FOREIGN: PinError = PinError::Hash(argon2::password_hash::Error::EncodingInvalid);

impl Peppers {
    const HEADING: &'static str = "atm-bank peppers 1";
    const PROVEN_TEXT: &'static [u8] = b"atm-bank pepper";

    /// Reads the file, which must be readable by its owner alone.
    ///
    /// Its first line is `atm-bank peppers 1`; each other line is a pepper: its id, a space, and 64
    /// hexadecimal digits.
    ///
    /// # Errors
    /// [`PinError`] names the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Peppers, PinError> {
        let io = |source| PinError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => PinError::Missing(path.to_owned()),
            _ => io(error),
        })?;
        if secret_file::is_exposed(&file).map_err(io)? {
            return Err(PinError::Exposed {
                path: path.to_owned(),
            });
        }
        // With room for all of it, so that it is not moved and leaves no keys behind; and for one byte more, so that a file
        // which is too long is noticed, and not read as one without its newest keys.
        let most = MAX_PEPPER_FILE_BYTES + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(most as usize));
        file.take(most).read_to_end(&mut bytes).map_err(io)?;
        let damaged = |line| PinError::Damaged {
            path: path.to_owned(),
            line,
        };
        let lines_of = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
        if bytes.len() as u64 == most {
            return Err(damaged(lines_of(&bytes) + 1));
        }
        let text =
            str::from_utf8(&bytes).map_err(|error| damaged(lines_of(&bytes[..error.valid_up_to()]) + 1))?;
        let mut lines = text.lines().zip(1..);
        if lines
            .next()
            .is_none_or(|(heading, _)| heading != Peppers::HEADING)
        {
            return Err(damaged(1));
        }
        let mut peppers: Vec<Pepper> = Vec::new();
        for (line, number) in lines {
            let pepper = parse_pepper(line).ok_or(damaged(number))?;
            if peppers.iter().any(|other| other.id == pepper.id) {
                return Err(damaged(number));
            }
            peppers.push(pepper);
        }
        if peppers.is_empty() {
            return Err(damaged(2));
        }
        Ok(Peppers(peppers))
    }

    /// Reads the file or, where there is none, makes one with a new pepper, for its owner alone to read.
    ///
    /// # Errors
    /// As [`Peppers::read`].
    pub fn read_or_create(path: &Path) -> Result<Peppers, PinError> {
        match Peppers::read(path) {
            Err(PinError::Missing(_)) => {
                Peppers::create(path)?;
                Peppers::read(path)
            }
            other => other,
        }
    }

    fn create(path: &Path) -> Result<(), PinError> {
        // Linked, so that no other's is replaced.
        Peppers::random()?.write(path, |beside| fs::hard_link(beside, path))
    }

    /// Writes these in the place of those that the file has. It stays its owner's, whoever does this.
    ///
    /// # Errors
    /// [`PinError`]: then the file is what it was, or has the new ones all the same if only its directory was not synced.
    pub(crate) fn replace(&self, path: &Path) -> Result<(), PinError> {
        let path = &path.canonicalize().map_err(|source| PinError::Io {
            path: path.to_owned(),
            source,
        })?;
        self.write(path, |beside| {
            chown(beside, Some(fs::metadata(path)?.uid()), None)?;
            fs::rename(beside, path)
        })
    }

    /// Writes a file beside `path` and has it put in place, so that a crash leaves no half of it.
    fn write(&self, path: &Path, put_in_place: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), PinError> {
        // With its final size from the start, so that no copy of the keys is left behind by growing.
        let longest = Peppers::HEADING.len() + 1 + self.0.len() * (10 + 1 + 2 * Pepper::BYTES + 1);
        let mut text = Zeroizing::new(String::with_capacity(longest));
        text.push_str(Peppers::HEADING);
        for Pepper { id, key } in &self.0 {
            text.push_str(&format!("\n{id} "));
            for byte in key.iter() {
                for digit in [byte >> 4, byte & 15] {
                    text.push(char::from_digit(u32::from(digit), 16).expect("a nibble is a digit"));
                }
            }
        }
        text.push('\n');
        if text.len() as u64 > MAX_PEPPER_FILE_BYTES {
            return Err(PinError::TooMany(path.to_owned()));
        }
        write_beside(
            path,
            |beside| secret_file::create(beside, text.as_bytes()),
            put_in_place,
        )
        .map_err(|source| PinError::Io {
            path: path.to_owned(),
            source,
        })
    }

    /// A new pepper that is in no file: for banks that live as long as a test.
    ///
    /// # Errors
    /// [`PinError::Random`].
    pub fn random() -> Result<Peppers, PinError> {
        let mut peppers = Peppers(Vec::new());
        peppers.add_random()?;
        Ok(peppers)
    }

    /// Adds a new pepper, which is then the newest.
    ///
    /// # Errors
    /// [`PinError::Random`].
    pub(crate) fn add_random(&mut self) -> Result<(), PinError> {
        let mut pepper = Pepper {
            id: self.ids().max().unwrap_or(0) + 1,
            key: Box::new([0; Pepper::BYTES]),
        };
        getrandom::fill(&mut *pepper.key).map_err(PinError::Random)?;
        self.0.push(pepper);
        Ok(())
    }

    /// Drops the peppers with these ids.
    pub(crate) fn forget(&mut self, ids: &[u32]) {
        self.0.retain(|pepper| !ids.contains(&pepper.id));
    }

    /// The ids of the peppers, that of the newest last.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|pepper| pepper.id)
    }

    /// The id of the pepper that new hashes are made with.
    pub fn newest(&self) -> u32 {
        self.0.last().expect("there is at least one pepper").id
    }

    fn argon2(&self, pepper_id: u32, params: Params) -> Result<Argon2<'_>, PinError> {
        let pepper = self
            .0
            .iter()
            .find(|pepper| pepper.id == pepper_id)
            .ok_or(PinError::MissingPepper(pepper_id))?;
        Argon2::new_with_secret(&*pepper.key, Algorithm::Argon2id, Version::V0x13, params)
            .map_err(|_| PinError::MissingPepper(pepper_id))
    }

    /// The PIN's hash with a new salt and the newest pepper, as a PHC string.
    ///
    /// # Errors
    /// [`PinError::Random`] or [`PinError::Hash`] if the machine cannot do it.
    pub fn hash(&self, pin: &Pin, profile: PinProfile) -> Result<String, PinError> {
        self.hash_bytes(pin.as_bytes(), profile)
    }

    /// The newest pepper's id, and a text by which [`Peppers::check`] knows that pepper again. A pepper has too
    /// many values to be tried, so the text gives nothing away.
    pub(crate) fn proof(&self) -> Result<(u32, String), PinError> {
        Ok((
            self.newest(),
            self.hash_bytes(Peppers::PROVEN_TEXT, PinProfile::Fast)?,
        ))
    }

    /// Whether a hash would be made otherwise today: with another pepper, or at another cost.
    ///
    /// # Errors
    /// [`PinError::Hash`] if it is no hash.
    pub(crate) fn is_outdated(
        &self,
        hash: &str,
        pepper_id: u32,
        profile: PinProfile,
    ) -> Result<bool, PinError> {
        let cost = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        let parsed = PasswordHash::new(hash).map_err(|_| FOREIGN)?;
        let params = Params::try_from(&parsed).map_err(PinError::Hash)?;
        Ok(pepper_id != self.newest() || cost(&params) != cost(&profile.params()))
    }

    /// That these peppers hold the one that made `proof` under that id. Serving a bank with another bank's
    /// pepper file would find every PIN wrong, and block every card.
    pub(crate) fn check(&self, pepper_id: u32, proof: &str) -> Result<(), PinError> {
        if self.verify_bytes(Peppers::PROVEN_TEXT, proof, pepper_id)? {
            Ok(())
        } else {
            Err(PinError::MissingPepper(pepper_id))
        }
    }

    fn hash_bytes(&self, bytes: &[u8], profile: PinProfile) -> Result<String, PinError> {
        let mut salt = [0u8; 16];
        getrandom::fill(&mut salt).map_err(PinError::Random)?;
        let argon2 = self.argon2(self.newest(), profile.params())?;
        let hash: PasswordHash = argon2
            .hash_password_with_salt(bytes, &salt)
            .map_err(PinError::Hash)?;
        Ok(hash.to_string())
    }

    /// Whether the hash is this PIN's, at the cost that the hash names.
    ///
    /// # Errors
    /// [`PinError`] if the hash or its pepper is not there to compare with; a wrong PIN is no error.
    pub fn verify(&self, pin: &Pin, hash: &str, pepper_id: u32) -> Result<bool, PinError> {
        self.verify_bytes(pin.as_bytes(), hash, pepper_id)
    }

    fn verify_bytes(&self, bytes: &[u8], hash: &str, pepper_id: u32) -> Result<bool, PinError> {
        let parsed = PasswordHash::new(hash).map_err(|_| FOREIGN)?;
        let (Some(salt), Some(expected)) = (parsed.salt, parsed.hash) else {
            return Err(FOREIGN);
        };
        if parsed.algorithm != ARGON2ID_IDENT || parsed.version != Some(Version::V0x13.into()) {
            return Err(FOREIGN);
        }
        let params = Params::try_from(&parsed).map_err(PinError::Hash)?;
        let blocks = params.block_count();
        let argon2 = self.argon2(pepper_id, params)?;
        let mut computed = Zeroizing::new([0; Output::MAX_LENGTH]);
        let computed = &mut computed[..expected.len()];
        MEMORY
            .with_borrow_mut(|memory| {
                memory.resize(memory.len().max(blocks), Block::new());
                argon2.hash_password_into_with_memory(bytes, &salt, computed, &mut memory[..blocks])
            })
            .map_err(|error| PinError::Hash(error.into()))?;
        // Outputs are compared in a time that does not depend on where they differ.
        Ok(Output::new(computed).is_ok_and(|computed| computed == expected))
    }
}

/// Threads that compute hashes of PINs and nothing else, one for each core. They give way to all others: a hash keeps a core busy for
/// tens of milliseconds, and at equal priority whatever wakes meanwhile would wait some of them for its turn. Since they
/// give way, they must not do what others wait for: no lock is taken on them.
pub(crate) struct PinThreads(ThreadPool);

impl PinThreads {
    /// Starts them.
    ///
    /// # Errors
    /// [`PinError::Threads`] if the operating system gives none.
    pub(crate) fn start() -> Result<PinThreads, PinError> {
        ThreadPoolBuilder::new()
            .thread_name(|n| format!("pin-{n}"))
            .start_handler(|_| give_way())
            .build()
            .map(PinThreads)
            .map_err(PinError::Threads)
    }

    /// Computes on one of the threads, and waits for it.
    pub(crate) fn run<R: Send>(&self, compute: impl FnOnce() -> R + Send) -> R {
        self.0.install(compute)
    }
}

/// Lets all other threads go before this one.
fn give_way() {
    // On Linux this is said of the calling thread alone. Elsewhere it would be of the process, which gains nothing by it.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(19) {
        tracing::warn!(%error, "hashes of PINs are computed with the priority of all else");
    }
}

thread_local! {
    /// What argon2 works in, 19 MiB by the standard profile. A thread keeps it from one check to the next: to get it from the
    /// system anew, page by page, takes a tenth of the time of a check.
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

impl fmt::Debug for Peppers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peppers({} keys)", self.0.len())
    }
}

fn parse_pepper(line: &str) -> Option<Pepper> {
    let (id, hex) = line.split_once(' ')?;
    let mut pepper = Pepper {
        id: id.parse().ok()?,
        key: Box::new([0; Pepper::BYTES]),
    };
    secret_file::fill_from_hex(&mut *pepper.key, hex)?;
    Some(pepper)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pin(digits: &str) -> Pin {
        Pin::new(digits.as_bytes()).unwrap()
    }

    #[test]
    fn a_pin_is_4_to_12_digits() {
        for good in ["0000", "123456789012"] {
            assert!(Pin::new(good.as_bytes()).is_ok());
        }
        for bad in ["", "123", "1234567890123", "12a4", "12 4", "١٢٣٤", "-123"] {
            assert!(Pin::new(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", pin("2468")), "Pin(****)");
        assert_eq!(format!("{:?}", Peppers::random().unwrap()), "Peppers(1 keys)");
    }

    #[test]
    fn a_hash_is_its_pins_with_its_pepper_only() {
        let peppers = Peppers::random().unwrap();
        for profile in [PinProfile::Fast, PinProfile::Standard] {
            let hash = peppers.hash(&pin("2468"), profile).unwrap();
            assert!(peppers.verify(&pin("2468"), &hash, 1).unwrap());
            assert!(!peppers.verify(&pin("2469"), &hash, 1).unwrap());
            assert!(!Peppers::random().unwrap().verify(&pin("2468"), &hash, 1).unwrap());
            assert!(matches!(
                peppers.verify(&pin("2468"), &hash, 2),
                Err(PinError::MissingPepper(2))
            ));
            assert_ne!(
                hash,
                peppers.hash(&pin("2468"), profile).unwrap(),
                "each hash has its own salt"
            );
        }
        assert!(peppers.verify(&pin("2468"), "no hash", 1).is_err());
    }

    #[test]
    fn the_standard_profile_is_owasps_first_choice() {
        let hash = Peppers::random()
            .unwrap()
            .hash(&pin("2468"), PinProfile::Standard)
            .unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    }

    #[test]
    fn a_pepper_file_is_made_once_and_for_its_owner_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bank.pepper");
        let hash = Peppers::read_or_create(&path)
            .unwrap()
            .hash(&pin("2468"), PinProfile::Fast)
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        assert!(
            Peppers::read_or_create(&path)
                .unwrap()
                .verify(&pin("2468"), &hash, 1)
                .unwrap()
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Peppers::read(&path), Err(PinError::Exposed { .. })));
    }

    #[test]
    fn a_damaged_pepper_file_is_named_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bank.pepper");
        let key = "0".repeat(64);
        let whole = format!("{}\n1 {key}\n", Peppers::HEADING);
        // Cut off after as many bytes as are taken, it would be a whole file without its newest keys.
        let width = MAX_PEPPER_FILE_BYTES as usize - whole.len() - key.len() - 2;
        let long = format!("{whole}{:0>width$} {key}\n3 {key}\n", 2);
        let cases: [(Vec<u8>, usize); 9] = [
            (b"".into(), 1),
            (b"something else\n".into(), 1),
            (format!("{}\n", Peppers::HEADING).into(), 2),
            (format!("{whole}2 abc\n").into(), 3),
            (format!("{}\nx {key}\n", Peppers::HEADING).into(), 2),
            (format!("{}\n1 {}\n", Peppers::HEADING, "zz".repeat(32)).into(), 2),
            ([whole.as_bytes(), b"\xff"].concat(), 3),
            (long.into(), 4),
            (format!("{whole}1 {}\n", "1".repeat(64)).into(), 3),
        ];
        for (text, line) in cases {
            fs::write(&path, &text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            match Peppers::read(&path) {
                Err(PinError::Damaged { line: at, .. }) => assert_eq!(at, line, "{text:?}"),
                other => panic!("{text:?} gave {other:?}"),
            }
        }
    }
}
