//! Files that hold keys: for their owner alone, and written in hexadecimal digits.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::files::sync_directory_of;

/// Makes a file for its owner alone, and makes its contents durable.
///
/// # Errors
/// If there is a file of that name, or as the operating system says.
pub fn create(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    if written.is_err() {
        // A part of it is of no use, and in the way of the next try.
        let _ = fs::remove_file(path);
    }
    written.and_then(|()| sync_directory_of(path))
}

/// Whether others than its owner may read or write a file.
///
/// # Errors
/// If the operating system does not tell.
pub fn is_exposed(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.permissions().mode() & 0o077 != 0)
}

/// Fills a key from hexadecimal digits, two to a byte. `None`, and what is in the key is of no use, unless there are
/// exactly as many as it takes.
pub fn fill_from_hex(key: &mut [u8], digits: &str) -> Option<()> {
    if digits.len() != 2 * key.len() {
        return None;
    }
    for (byte, digits) in key.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = (value(digits[0])? << 4 | value(digits[1])?) as u8;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_two_digits_a_byte_and_nothing_else() {
        let read = |digits| {
            let mut key = [0; 3];
            fill_from_hex(&mut key, digits).map(|()| key)
        };
        assert_eq!(read("00feDC"), Some([0, 0xfe, 0xdc]));
        for bad in [
            "", "00fe", "00fedc0", "00fedc00", "00fe+c", "00fe c", "00feg0", "éé00",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
