//! Files that hold keys and codes. They are read or called damaged; it is never the disk that is blamed for what they hold.

use std::cell::OnceCell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bank_core::pin::PinError;
use bank_core::terminal::TerminalSecretError;
use bank_core::{Peppers, TerminalSecret};
use tempfile::TempDir;

thread_local! {
    static PLACE: OnceCell<TempDir> = const { OnceCell::new() };
}

/// A file of that name with these bytes, for its owner alone, in a directory that lasts as long as the thread. It is in
/// memory where the machine has such a place, since inputs are many.
pub(super) fn file(name: &str, bytes: &[u8]) -> PathBuf {
    PLACE.with(|place| {
        let path = place.get_or_init(directory).path().join(name);
        fs::write(&path, bytes)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .expect("the temporary directory can be written to");
        path
    })
}

/// A temporary directory, in memory where the machine has such a place.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir());
    made.expect("a temporary directory")
}

/// The keys that PINs are hashed with.
pub fn pepper_file(bytes: &[u8]) {
    match Peppers::read(&file("pepper", bytes)) {
        Ok(peppers) => {
            let text = str::from_utf8(bytes).expect("keys are written in digits");
            let keys = text.lines().count() - 1;
            assert_eq!(format!("{peppers:?}"), format!("Peppers({keys} keys)"));
        }
        Err(PinError::Damaged { line, .. }) => {
            let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
            assert!((1..=lines + 2).contains(&line), "line {line}");
        }
        Err(error) => panic!("{error}"),
    }
}

/// The key by which a terminal proves itself.
pub fn terminal_secret(bytes: &[u8]) {
    match TerminalSecret::read(&file("secret", bytes)) {
        Ok(secret) => {
            let digits: String = secret
                .as_bytes()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert!(
                bytes.to_ascii_lowercase().starts_with(digits.as_bytes()),
                "not what the file says"
            );
        }
        Err(TerminalSecretError::Damaged(_)) => {}
        Err(error) => panic!("{error}"),
    }
}
