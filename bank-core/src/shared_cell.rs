//! A value that many may read at once and one may change alone: the readers/writer cell of the textbook.

use crate::sync::RwLock;

/// A value shared by threads. Readers share it, a writer has it alone, and a waiting writer is not starved
/// by readers that keep coming (`parking_lot`'s lock makes new readers queue behind it).
///
/// The value is reached through closures and not through guards, so that a lock can be held neither across
/// an `await` nor longer than the closure that needs it. The value itself is plain and knows no lock.
///
/// ```
/// use bank_core::SharedCell;
/// let counter = SharedCell::new(0);
/// counter.write(|count| *count += 1);
/// assert_eq!(counter.read(|count| *count), 1);
/// ```
#[derive(Debug, Default)]
pub struct SharedCell<T>(RwLock<T>);

impl<T> SharedCell<T> {
    /// A cell that holds `value`.
    pub const fn new(value: T) -> SharedCell<T> {
        SharedCell(RwLock::new(value))
    }

    /// Lets `look` see the value, together with other readers.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.read())
    }

    /// Lets `change` have the value alone.
    pub fn write<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.write())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Barrier};
    use std::thread;

    #[test]
    fn no_update_is_lost() {
        let cell = Arc::new(SharedCell::new(0));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let cell = Arc::clone(&cell);
                thread::spawn(move || (0..1000).for_each(|_| cell.write(|n| *n += 1)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(cell.read(|n| *n), 8000);
    }

    #[test]
    fn readers_share() {
        // Both readers wait for each other while they read: were one alone, neither would come out.
        let cell = Arc::new(SharedCell::new(7));
        let both = Arc::new(Barrier::new(2));
        let other = {
            let (cell, both) = (Arc::clone(&cell), Arc::clone(&both));
            thread::spawn(move || cell.read(|n| (both.wait(), *n).1))
        };
        assert_eq!(cell.read(|n| (both.wait(), *n).1), 7);
        assert_eq!(other.join().unwrap(), 7);
    }

    #[test]
    fn a_waiting_writer_gets_in_although_readers_keep_coming() {
        let cell = Arc::new(SharedCell::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (cell, stop) = (Arc::clone(&cell), Arc::clone(&stop));
                thread::spawn(
                    move || while !stop.load(Ordering::Relaxed) && !cell.read(|written| *written) {},
                )
            })
            .collect();
        cell.write(|written| *written = true);
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    }
}
