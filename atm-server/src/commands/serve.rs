//! Serving a bank.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use bank_core::{Bank, JournalError, Peppers, bank_file};

use super::{Ended, Error, failed, say};
use crate::admin::socket::AdminSocket;
use crate::args::ServeArgs;
use crate::blocking_work::BlockingWork;
use crate::config::ServeConfig;
use crate::{server, shutdown};

pub(super) fn serve(args: ServeArgs) -> Ended {
    let served = ServeConfig::try_from(args)
        .map_err(Error::from)
        .and_then(|config| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .worker_threads(config.workers)
                .max_blocking_threads(BlockingWork::threads() + 2)
                .build()?;
            let served = runtime.block_on(serve_bank(config));
            // A search that is under way changes nothing any more, and nobody waits for it.
            runtime.shutdown_background();
            served
        });
    match served {
        Ok(()) => Ended::Done,
        Err(error) if matches!(error.downcast_ref(), Some(JournalError::Failed(_))) => {
            failed(&*error);
            Ended::Poisoned
        }
        Err(error) => failed(&*error),
    }
}

async fn serve_bank(config: ServeConfig) -> Result<(), Error> {
    let asked_to_stop = shutdown::requested()?;
    if !config.paths.bank.exists() {
        return Err(bank_file::BankFileError::Missing(config.paths.bank).into());
    }
    let peppers = Peppers::read(&config.paths.pepper)?;
    // The bank is whole before a port is bound: who can connect is served.
    let path = config.paths.bank.clone();
    let bank = tokio::task::spawn_blocking(move || Bank::open(&path, peppers)).await??;
    let bank = Arc::new(bank.allowing_weak_pins(config.allow_weak_pins));
    let listener = server::listen(config.listen).map_err(|error| {
        format!(
            "cannot listen on {}: {error}; choose another --listen",
            config.listen
        )
    })?;
    let admin = config
        .admin_socket
        .as_deref()
        .map(AdminSocket::bind)
        .transpose()?;
    tracing::info!(bank = %config.paths.bank.display(), accounts = bank.account_count(), tls = config.service.tls.is_some(), lsn = %bank.journal().durable_lsn(), "opened");
    say(format_args!("listening on {}", listener.local_addr()?));
    if io::stdin().is_terminal() {
        let _ = writeln!(io::stderr(), "Press Enter to stop.");
    }
    server::run(listener, bank, config.service, admin, asked_to_stop).await?;
    tracing::info!("closed in order");
    Ok(())
}
