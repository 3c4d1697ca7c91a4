//! How far a sequence of entries is durable, and waiting until it is far enough: as a future that needs no
//! particular runtime, or by blocking the thread.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crate::bank_file::BankFileError;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread::{self, Thread};

/// Why an entry of the journal will never be known to be durable.
#[derive(Clone, Debug, thiserror::Error)]
pub enum JournalError {
    /// A commit failed, and with it everything since. It is never retried: nobody knows what the disk holds
    /// until the bank file is opened again.
    #[error("a commit to the bank file failed, so nothing more can be answered: {0}")]
    Failed(Arc<BankFileError>),
    /// The journal was closed.
    #[error("the bank is shutting down")]
    Closed,
}

/// The mark up to which a sequence (1, 2, 3 …) is durable. The journal's thread moves it; anybody waits.
#[derive(Debug)]
pub(crate) struct DurableMark {
    durable: AtomicU64,
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    /// Who waits. Nearly all of them wait for the commit that is under way or for the next one, so an order of theirs
    /// would cost more than going through them at each commit.
    waiting: Vec<Waiter>,
    next_ticket: u64,
    end: Option<JournalError>,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    /// Tells apart those who wait for the same entry.
    ticket: u64,
    waker: Waker,
}

impl Waiters {
    fn find(&self, ticket: u64) -> Option<usize> {
        self.waiting.iter().position(|waiter| waiter.ticket == ticket)
    }
}

impl DurableMark {
    pub(crate) fn new(durable: u64) -> Arc<DurableMark> {
        Arc::new(DurableMark {
            durable: AtomicU64::new(durable),
            waiters: Mutex::default(),
        })
    }

    pub(crate) fn get(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Everything up to `number` is durable: wakes who waited for no more.
    pub(crate) fn advance(&self, number: u64) {
        if number <= self.get() {
            return;
        }
        let ready: Vec<Waiter> = {
            let mut waiters = self.waiters.lock();
            // Stored under the lock, so that a waiter that looked before it registered is not overlooked.
            self.durable.store(number, Ordering::Release);
            waiters
                .waiting
                .extract_if(.., |waiter| waiter.number <= number)
                .collect()
        };
        ready.into_iter().for_each(|waiter| waiter.waker.wake());
    }

    /// The mark will not move any more. The first end is the one that is told.
    pub(crate) fn end(&self, error: &JournalError) {
        let waiting = {
            let mut waiters = self.waiters.lock();
            waiters.end.get_or_insert_with(|| error.clone());
            std::mem::take(&mut waiters.waiting)
        };
        waiting.into_iter().for_each(|waiter| waiter.waker.wake());
    }

    pub(crate) fn wait(self: &Arc<DurableMark>, number: u64) -> Durable {
        Durable {
            mark: Arc::clone(self),
            number,
            ticket: None,
        }
    }
}

/// Waits until an entry is durable; made by [`crate::journal::Journal::durable`].
///
/// The entry's fate does not depend on this future: dropping it forgets the wait and nothing else.
#[derive(Debug)]
#[must_use = "nothing may be revealed before this was waited for"]
pub struct Durable {
    mark: Arc<DurableMark>,
    number: u64,
    ticket: Option<u64>,
}

impl Future for Durable {
    type Output = Result<(), JournalError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.mark.get() >= self.number {
            return Poll::Ready(Ok(()));
        }
        let mark = Arc::clone(&self.mark);
        let mut waiters = mark.waiters.lock();
        if mark.get() >= self.number {
            return Poll::Ready(Ok(()));
        }
        if let Some(end) = &waiters.end {
            return Poll::Ready(Err(end.clone()));
        }
        let known = self.ticket.and_then(|ticket| waiters.find(ticket));
        if let Some(known) = known {
            waiters.waiting[known].waker.clone_from(context.waker());
        } else {
            waiters.next_ticket += 1;
            let waiter = Waiter {
                number: self.number,
                ticket: waiters.next_ticket,
                waker: context.waker().clone(),
            };
            self.ticket = Some(waiter.ticket);
            waiters.waiting.push(waiter);
        }
        Poll::Pending
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        // Only a wait that was given up half-way still has a waker there.
        if let Some(ticket) = self.ticket
            && self.mark.get() < self.number
        {
            let mut waiters = self.mark.waiters.lock();
            if let Some(known) = waiters.find(ticket) {
                waiters.waiting.swap_remove(known);
            }
        }
    }
}

impl Durable {
    /// The blocking twin of awaiting it.
    ///
    /// # Errors
    /// As the future's output.
    pub fn wait(self) -> Result<(), JournalError> {
        block_on(self)
    }
}

/// Runs a future that only waits for the journal, on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn poll(durable: &mut Durable, count: &Arc<Count>) -> Poll<Result<(), JournalError>> {
        Pin::new(durable).poll(&mut Context::from_waker(&Waker::from(Arc::clone(count))))
    }

    #[test]
    fn a_wait_ends_when_its_entry_is_durable_and_not_before() {
        let (mark, count) = (DurableMark::new(0), Arc::new(Count::default()));
        let mut second = mark.wait(2);
        assert!(poll(&mut second, &count).is_pending());
        mark.advance(1);
        assert_eq!(
            count.0.load(Ordering::SeqCst),
            0,
            "entry 1 does not wake who waits for 2"
        );
        assert!(poll(&mut second, &count).is_pending());
        mark.advance(5);
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert!(matches!(poll(&mut second, &count), Poll::Ready(Ok(()))));
    }

    #[test]
    fn polling_again_and_giving_up_leave_no_wakers_behind() {
        let (mark, count) = (DurableMark::new(0), Arc::new(Count::default()));
        let mut waits: Vec<_> = (1..=3).map(|number| mark.wait(number)).collect();
        for wait in &mut waits {
            assert!(poll(wait, &count).is_pending());
            assert!(poll(wait, &count).is_pending());
        }
        assert_eq!(mark.waiters.lock().waiting.len(), 3);
        drop(waits);
        assert_eq!(mark.waiters.lock().waiting.len(), 0);
    }

    #[test]
    fn after_the_end_what_is_durable_is_answered_and_the_rest_fails() {
        let mark = DurableMark::new(3);
        mark.end(&JournalError::Closed);
        assert!(mark.wait(3).wait().is_ok());
        assert!(matches!(mark.wait(4).wait(), Err(JournalError::Closed)));
    }

    #[test]
    fn a_blocked_thread_is_woken() {
        let mark = DurableMark::new(0);
        let waiting = mark.wait(1);
        let thread = thread::spawn(move || waiting.wait());
        mark.advance(1);
        assert!(thread.join().unwrap().is_ok());
    }
}
