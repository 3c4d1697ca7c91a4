//! Locks, atomics and threads: those of `parking_lot` and of the standard library, or ones that a test schedules.
//!
//! A race shows itself only in a few of the orders in which threads may run, and the operating system picks
//! nearly always the same ones. With the feature `shuttle` whatever waits or is waited for here belongs to the
//! crate of that name, which runs one thread at a time and chooses at each lock, atomic and wait which is the next;
//! `interleavings.rs` tests the bank so. Without the feature this file is nothing but names.
//!
//! All of the bank that a customer's transaction passes through takes these things from here. What never waits
//! for another thread need not: `Arc`, `OnceLock`, and the shards of a `DashMap`, as long as nobody who has one
//! locked comes to a lock, an atomic or a wait. The semaphore of the journal's slots is not scheduled either, so
//! a test with the feature must not use up all slots.
//!
//! With the feature on, these things work only within a run of that crate: it is for tests, and never for serving.

#[cfg(not(feature = "shuttle"))]
pub(crate) use parking_lot::{Condvar, Mutex, RwLock};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::{sync::atomic, thread};

#[cfg(feature = "shuttle")]
pub(crate) use scheduled::{Condvar, Mutex, RwLock};
#[cfg(feature = "shuttle")]
pub(crate) use shuttle::{sync::atomic, thread};

/// The scheduled locks, as `parking_lot` has them: without poison, which is therefore passed over.
#[cfg(feature = "shuttle")]
mod scheduled {
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;

    use shuttle::sync;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) const fn new(value: T) -> Mutex<T> {
            Mutex(sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }

        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
    }

    /// Empty only within [`Condvar::wait`], which must give the guard away and gets it back.
    #[derive(Debug)]
    pub(crate) struct MutexGuard<'a, T>(Option<sync::MutexGuard<'a, T>>);

    const HELD: &str = "the lock is held outside of a wait";

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect(HELD)
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect(HELD)
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(sync::Condvar);

    impl Condvar {
        pub(crate) const fn new() -> Condvar {
            Condvar(sync::Condvar::new())
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.0.take().expect(HELD);
            guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T>(sync::RwLock<T>);

    impl<T> RwLock<T> {
        pub(crate) const fn new(value: T) -> RwLock<T> {
            RwLock(sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> sync::RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
