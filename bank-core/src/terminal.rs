//! A terminal: an ATM that the bank knows, and how it proves that it is that one.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use blake2::{Blake2s256, Digest};
use zeroize::Zeroizing;

use crate::ids::TerminalId;
use crate::limits::TERMINAL_SECRET_BYTES;
use crate::secret_file;
use crate::time::Timestamp;

/// A terminal as the bank file knows it. Its cash is a system account of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its id.
    pub id: TerminalId,
    /// When the bank first saw it.
    pub registered: Timestamp,
    /// Of the secret that it was given; [`SecretHash::OF_NONE`] if it came with a certificate. None if it has neither.
    pub secret_hash: Option<SecretHash>,
    /// Since when it is to come in no more.
    pub retired: Option<Timestamp>,
}

/// What the bank file keeps of a terminal's secret (BLAKE2s-256, RFC 7693). A secret is a random key and no
/// password, so nobody can guess it from its hash however fast that is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecretHash(pub [u8; 32]);

impl SecretHash {
    /// The hash that these hexadecimal digits write, if there are as many as it has.
    pub fn from_hex(digits: &str) -> Option<SecretHash> {
        let mut hash = [0; 32];
        let is_hex = digits.len() == 2 * hash.len() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_hex {
            return None;
        }
        for (place, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).ok()?;
        }
        Some(SecretHash(hash))
    }

    /// The hash in hexadecimal digits.
    pub fn to_hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The key by which a terminal proves itself. It is overwritten when dropped, and shows itself to nobody.
#[derive(Clone)]
pub struct TerminalSecret(Zeroizing<Box<[u8]>>);

impl fmt::Debug for TerminalSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TerminalSecret(****)")
    }
}

/// What can be wrong with a secret's file.
#[derive(Debug, thiserror::Error)]
pub enum TerminalSecretError {
    /// The file could not be read or written.
    #[error("the terminal's secret file {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the terminal's secret file {} may be read or written by others: run \"chmod 600\" on it", .0.display())]
    Exposed(PathBuf),
    /// The file holds no secret.
    #[error("the terminal's secret file {} is damaged: its first line should be 64 hexadecimal digits, as \"atm-server add-terminal\" wrote it", .0.display())]
    Damaged(PathBuf),
    /// The machine gives no randomness.
    #[error("the operating system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl TerminalSecret {
    /// Makes a secret and writes it to a new file, for its owner alone.
    ///
    /// # Errors
    /// [`TerminalSecretError::Io`], also if the file exists; [`TerminalSecretError::Random`].
    pub fn create(path: &Path) -> Result<TerminalSecret, TerminalSecretError> {
        let io = |source| TerminalSecretError::Io {
            path: path.to_owned(),
            source,
        };
        let mut secret = TerminalSecret(Zeroizing::new(Box::from([0; TERMINAL_SECRET_BYTES])));
        getrandom::fill(&mut secret.0).map_err(TerminalSecretError::Random)?;
        let mut line = Zeroizing::new(String::with_capacity(2 * TERMINAL_SECRET_BYTES + 1));
        for byte in secret.0.iter() {
            write!(line, "{byte:02x}").expect("a string takes all");
        }
        line.push('\n');
        secret_file::create(path, line.as_bytes()).map_err(io)?;
        Ok(secret)
    }

    /// Reads a file that [`TerminalSecret::create`] made.
    ///
    /// # Errors
    /// [`TerminalSecretError`].
    pub fn read(path: &Path) -> Result<TerminalSecret, TerminalSecretError> {
        let io = |source| TerminalSecretError::Io {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(io)?;
        if secret_file::is_exposed(&file).map_err(io)? {
            return Err(TerminalSecretError::Exposed(path.to_owned()));
        }
        // One byte more than a whole file has, so that a longer one is noticed.
        let most = 2 * TERMINAL_SECRET_BYTES + 2;
        let mut line = Zeroizing::new(String::with_capacity(most));
        let damaged = || TerminalSecretError::Damaged(path.to_owned());
        file.take(most as u64)
            .read_to_string(&mut line)
            .map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => damaged(),
                _ => io(error),
            })?;
        let mut secret = TerminalSecret(Zeroizing::new(Box::from([0; TERMINAL_SECRET_BYTES])));
        secret_file::fill_from_hex(&mut secret.0, line.trim_end_matches(['\r', '\n'])).ok_or_else(damaged)?;
        Ok(secret)
    }

    /// The key itself, for the wire and nothing else.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What the bank keeps of it.
    pub fn hash(&self) -> SecretHash {
        SecretHash::of(self.as_bytes())
    }
}

impl SecretHash {
    /// No secret is known that has this hash, nor can one be found: that of a terminal that proves itself by its
    /// certificate.
    pub const OF_NONE: SecretHash = SecretHash([0; 32]);

    /// Of what a terminal says is its secret.
    pub fn of(secret: &[u8]) -> SecretHash {
        SecretHash(Blake2s256::digest(secret).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_read_as_it_was_written_and_shows_itself_to_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        let made = TerminalSecret::create(&path).unwrap();
        let read = TerminalSecret::read(&path).unwrap();
        assert_eq!(made.as_bytes(), read.as_bytes());
        assert_eq!(made.hash(), SecretHash::of(read.as_bytes()));
        assert_eq!(format!("{made:?}"), "TerminalSecret(****)");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            TerminalSecret::create(&path).is_err(),
            "an existing file is not overwritten"
        );
    }

    #[test]
    fn a_file_that_is_no_secret_or_is_exposed_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        TerminalSecret::create(&path).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let check = |contents: &[u8]| {
            fs::write(&path, contents).unwrap();
            assert!(
                matches!(TerminalSecret::read(&path), Err(TerminalSecretError::Damaged(_))),
                "{contents:?}"
            );
        };
        check(b"");
        check(&whole.as_bytes()[..63]);
        check(format!("{}0\n", whole.trim()).as_bytes());
        check(whole.replace(|c: char| c.is_ascii_digit(), "x").as_bytes());
        check(&[0xff; 64]);
        fs::write(&path, &whole).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            TerminalSecret::read(&path),
            Err(TerminalSecretError::Exposed(_))
        ));
    }
}
