//! What a file needs beside its bytes: a lock that keeps a second program away, a name that is durable, and to be there whole
//! or not at all.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// An advisory lock on a file that exists for nothing else, and stays when the lock is gone.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Takes the lock, or says at once that somebody has it. The file is made if it is not there.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody has it, otherwise what the operating system said.
    pub fn take(path: &Path) -> Result<FileLock, TryLockError> {
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(TryLockError::Error)?;
        file.try_lock()?;
        Ok(FileLock { file })
    }
}

impl Drop for FileLock {
    /// Merely closing the file would leave the lock with a child process that another thread is just starting:
    /// until it has become its own program, it has a copy of every open file.
    fn drop(&mut self) {
        // If even that fails, the lock goes when the last copy of the file is closed.
        _ = self.file.unlock();
    }
}

/// Makes the creation or renaming of `path` durable.
///
/// # Errors
/// What the operating system said of the directory.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Makes a file beside `path` by `create` and has it put in the place of `path`, durably. A crash leaves no half of it there.
///
/// # Errors
/// What either of the two said, or the operating system of the directory.
pub fn write_beside<E: From<io::Error>>(
    path: &Path,
    create: impl FnOnce(&Path) -> Result<(), E>,
    put_in_place: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let beside = path.with_added_extension(format!("{}.tmp", std::process::id()));
    // What an earlier process with this number has left when it was killed is nobody's, and may have keys in it.
    let _ = fs::remove_file(&beside);
    let written = create(&beside).and_then(|()| put_in_place(&beside));
    let _ = fs::remove_file(&beside);
    written.and_then(|()| Ok(sync_directory_of(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_lock_is_free_even_while_a_starting_child_still_has_a_copy_of_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bank.db.lock");
        let lock = FileLock::take(&path).unwrap();
        let copy = lock.file.try_clone().unwrap();
        assert!(matches!(FileLock::take(&path), Err(TryLockError::WouldBlock)));
        drop(lock);
        FileLock::take(&path).expect("the lock is free");
        drop(copy);
    }
}
