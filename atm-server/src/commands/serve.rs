//! Serving a bank.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use bank_core::limits::ADMIN_CONNECTIONS;
use bank_core::{Bank, JournalError, Peppers, bank_file};

use super::{Ended, Error, failed, say};
use crate::admin::socket::AdminSocket;
use crate::args::ServeArgs;
use crate::blocking_work::BlockingWork;
use crate::config::{self, ConfigError, ServeConfig};
use crate::settings::Settings;
use crate::watch::WatchListener;
use crate::{server, service_manager, shutdown};

pub(super) fn serve(args: ServeArgs, settings: &Settings) -> Ended {
    if args.print_config {
        return print_config(&args, settings).unwrap_or_else(|error| ended(&*error));
    }
    let served = ServeConfig::try_from(args)
        .map_err(Error::from)
        .and_then(|config| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .worker_threads(config.workers)
                .max_blocking_threads(BlockingWork::threads() + ADMIN_CONNECTIONS + 3)
                .build()?;
            let served = runtime.block_on(serve_bank(config));
            // A search that is under way changes nothing any more, and nobody waits for it.
            runtime.shutdown_background();
            served
        });
    match served {
        Ok(()) => Ended::Done,
        Err(error) => ended(&*error),
    }
}

fn ended(error: &(dyn std::error::Error + 'static)) -> Ended {
    let failed = failed(error);
    match (error.downcast_ref(), error.downcast_ref::<ConfigError>()) {
        (Some(JournalError::Failed(_)), _) => Ended::Poisoned,
        (_, Some(error)) if error.is_wrong_usage() => Ended::Usage,
        _ => failed,
    }
}

fn print_config(args: &ServeArgs, settings: &Settings) -> Result<Ended, Error> {
    config::check(args)?;
    say(format_args!("{}", settings.to_toml()?));
    Ok(Ended::Done)
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
    let watch = config
        .metrics_listen
        .map(server::listen)
        .transpose()
        .map_err(|error| format!("cannot listen on --metrics-listen: {error}; choose another address"))?;
    let admin = config
        .admin_socket
        .as_deref()
        .map(AdminSocket::bind)
        .transpose()?;
    tracing::info!(bank = %config.paths.bank.display(), accounts = bank.account_count(), tls = config.service.tls.is_some(), lsn = %bank.journal().durable_lsn(), "opened");
    let address = listener.local_addr()?;
    say(format_args!("listening on {address}"));
    let watch = match watch {
        Some(listener) => {
            say(format_args!("metrics on http://{}/", listener.local_addr()?));
            Some(WatchListener {
                listener,
                hosts: config.metrics_hosts,
            })
        }
        None => None,
    };
    service_manager::ready(&format!("serving {} accounts on {address}", bank.account_count()));
    if io::stdin().is_terminal() {
        let _ = writeln!(io::stderr(), "Press Enter to stop.");
    }
    server::run(listener, bank, config.service, admin, watch, asked_to_stop).await?;
    tracing::info!("closed in order");
    Ok(())
}
