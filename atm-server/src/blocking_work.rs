//! What must wait for a core or a disk is done here: PIN checks, statements, and what looks for old transactions, on
//! threads that may wait, and never so many that money waits for them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use bank_core::bank::StatementError;
use bank_core::bank_file::StatementLine;
use bank_core::limits::{PIN_QUEUE, SEARCHES_AT_ONCE, STATEMENTS_AT_ONCE};
use bank_core::{
    AccountHandle, Balance, Bank, CardNumber, JournalError, Login, LoginError, Pin, SettlingError,
};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::pacing::Pacing;

/// Runs the bank's blocking work for the async tasks, in bounded numbers.
pub(crate) struct BlockingWork {
    bank: Arc<Bank>,
    pin_checks: Semaphore,
    logins: AtomicUsize,
    pacing: Pacing,
    statements: Semaphore,
    searches: Semaphore,
}

/// Why no PIN was looked at.
pub(crate) enum NotChecked {
    /// There are more logins than can wait.
    TooManyLogins,
    /// There were too many failures with that card or from that address: the wait until the next try.
    TooManyFailures(Duration),
}

impl BlockingWork {
    /// PIN checks at once: one for each core, since a check keeps one busy.
    fn pin_checks() -> usize {
        available_parallelism().map_or(1, usize::from)
    }

    /// The threads that this keeps busy at most.
    pub(crate) fn threads() -> usize {
        BlockingWork::pin_checks() + STATEMENTS_AT_ONCE + SEARCHES_AT_ONCE
    }

    pub(crate) fn new(bank: Arc<Bank>) -> BlockingWork {
        BlockingWork {
            bank,
            pin_checks: Semaphore::new(BlockingWork::pin_checks()),
            logins: AtomicUsize::new(0),
            pacing: Pacing::new(),
            statements: Semaphore::new(STATEMENTS_AT_ONCE),
            searches: Semaphore::new(SEARCHES_AT_ONCE),
        }
    }

    pub(crate) async fn login(
        &self,
        card: CardNumber,
        pin: Pin,
        address: IpAddr,
    ) -> Result<Result<Login, LoginError>, NotChecked> {
        let number = card.clone();
        self.check_pin(&number, address, move |bank| bank.login(&card, &pin))
            .await
    }

    pub(crate) async fn change_pin(
        &self,
        login: Login,
        old: Option<Pin>,
        new: Pin,
        address: IpAddr,
    ) -> Result<Result<(), LoginError>, NotChecked> {
        let number = login.card.clone();
        self.check_pin(&number, address, move |bank| {
            bank.change_pin(&login, old.as_ref(), &new)
        })
        .await
    }

    /// Checks a card's PIN in its turn, unless there were too many failures, and counts one more.
    async fn check_pin<R: Send + 'static>(
        &self,
        card: &CardNumber,
        address: IpAddr,
        check: impl FnOnce(&Bank) -> Result<R, LoginError> + Send + 'static,
    ) -> Result<Result<R, LoginError>, NotChecked> {
        let _waiting = self.queue_up()?;
        let _turn = self
            .pin_checks
            .acquire()
            .await
            .expect("these semaphores are never closed");
        // Only now, since many may have failed while this one was waiting.
        let wait = self.pacing.wait(card, address);
        if !wait.is_zero() {
            return Err(NotChecked::TooManyFailures(wait));
        }
        let bank = Arc::clone(&self.bank);
        // The runtime gives up a thread's work only when the server ends.
        let checked = spawn_blocking(move || check(&bank))
            .await
            .unwrap_or(Err(LoginError::Journal(JournalError::Closed)));
        if matches!(checked, Err(LoginError::Refused)) {
            self.pacing.failed(card, address);
        }
        Ok(checked)
    }

    pub(crate) async fn statement(
        &self,
        account: AccountHandle,
        lines: usize,
    ) -> Result<(Balance, Vec<StatementLine>), StatementError> {
        self.read(&self.statements, move |bank| bank.statement(&account, lines))
            .await
    }

    /// What may have to search the journal for an old transaction.
    pub(crate) async fn search<R: Send + 'static>(
        &self,
        search: impl FnOnce(&Bank) -> Result<R, SettlingError> + Send + 'static,
    ) -> Result<R, SettlingError> {
        self.read(&self.searches, search).await
    }

    async fn read<R: Send + 'static, E: From<JournalError> + Send + 'static>(
        &self,
        turns: &Semaphore,
        read: impl FnOnce(&Bank) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E> {
        let _turn = turns.acquire().await.expect("these semaphores are never closed");
        let bank = Arc::clone(&self.bank);
        // The runtime gives up a thread's work only when the server ends.
        spawn_blocking(move || read(&bank))
            .await
            .unwrap_or(Err(JournalError::Closed.into()))
    }

    /// Logins and changes of PINs that are being looked at, or wait for it.
    pub(crate) fn logins_under_way(&self) -> usize {
        self.logins.load(Ordering::Relaxed)
    }

    fn queue_up(&self) -> Result<impl Drop + '_, NotChecked> {
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let place = Leave(&self.logins);
        if self.logins.fetch_add(1, Ordering::AcqRel) >= BlockingWork::pin_checks() + PIN_QUEUE {
            return Err(NotChecked::TooManyLogins);
        }
        Ok(place)
    }
}
