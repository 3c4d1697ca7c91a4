//! The command line as it is meant: checked once, here, so that nothing behind it needs to.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

use bank_core::limits::SPARE_OPEN_FILES;
use bank_core::{PinProfile, Registration, bank_file};

use crate::args::{PinProfileArg, SecretBankArgs, ServeArgs, TlsArgs};
use crate::server::Service;
use crate::tls::{Tls, TlsError, TlsFiles};

/// What the command line asks for cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Listening to the network without TLS.
    #[error(
        "--listen {0} without TLS would let the network read PINs: give --tls-cert and --tls-key (\"atm-server certificate\" \
         makes them), or listen on a loopback address such as 127.0.0.1:5100"
    )]
    NotPrivate(SocketAddr),
    /// Showing everybody what is for operators.
    #[error(
        "--metrics-listen {0} would show the page to everybody on the network: add --let-the-network-watch if they may see it, or \
         listen on a loopback address such as 127.0.0.1:9100"
    )]
    Public(SocketAddr),
    /// How to be watched, but not where.
    #[error("--metrics-host and --let-the-network-watch are of no use without --metrics-listen")]
    NothingToWatch,
    /// What is no name.
    #[error(
        "--metrics-host takes names such as bank.example.org, with commas between them, without a port and without http://"
    )]
    NoName,
    /// A file that TLS needs is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connections at all.
    #[error("--connections must be at least 1")]
    NoConnections,
    /// Half of what TLS needs.
    #[error("--tls-cert and --tls-key belong together: give both or neither")]
    HalfOfTls,
    /// Certificates of terminals, and nothing of the server's.
    #[error("--tls-client-ca is of no use without --tls-cert and --tls-key")]
    OnlyClientCa,
    /// TLS and the wish for none.
    #[error("with --tls-cert the network reads nothing: leave --dangerously-let-the-network-read-pins out")]
    NeedlesslyDangerous,
}

impl ConfigError {
    /// Whether the settings are wrong whatever the machine and its files are, so that trying again is of no use.
    pub fn is_wrong_usage(&self) -> bool {
        !matches!(self, ConfigError::Tls(_))
    }
}

/// A bank file and its pepper file.
#[derive(Clone, Debug)]
pub struct BankPaths {
    /// The bank file.
    pub bank: PathBuf,
    /// The pepper file.
    pub pepper: PathBuf,
}

impl From<SecretBankArgs> for BankPaths {
    fn from(args: SecretBankArgs) -> BankPaths {
        let pepper = args
            .pepper
            .unwrap_or_else(|| bank_file::beside(&args.bank.bank, "pepper"));
        BankPaths {
            bank: args.bank.bank,
            pepper,
        }
    }
}

impl From<PinProfileArg> for PinProfile {
    fn from(arg: PinProfileArg) -> PinProfile {
        match arg {
            PinProfileArg::Standard => PinProfile::Standard,
            PinProfileArg::Fast => PinProfile::Fast,
        }
    }
}

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// Which bank.
    pub paths: BankPaths,
    /// A loopback address, unless there is TLS or the operator wants it all the same.
    pub listen: SocketAddr,
    /// How terminals are served.
    pub service: Service,
    /// Where operators are heard, if anywhere.
    pub admin_socket: Option<PathBuf>,
    /// Where the server may be watched, if anywhere: a loopback address unless the operator wants it otherwise.
    pub metrics_listen: Option<SocketAddr>,
    /// By which names besides.
    pub metrics_hosts: Vec<String>,
    /// Threads that serve them, at least 1.
    pub workers: usize,
    /// Whether customers may choose PINs that are guessed first.
    pub allow_weak_pins: bool,
}

/// Whether the settings go together: what can be said of them without looking at any file.
///
/// # Errors
/// [`ConfigError`].
pub fn check(args: &ServeArgs) -> Result<(), ConfigError> {
    let tls = &args.tls;
    if tls.tls_cert.is_some() != tls.tls_key.is_some() {
        return Err(ConfigError::HalfOfTls);
    }
    if tls.tls_cert.is_none() && tls.tls_client_ca.is_some() {
        return Err(ConfigError::OnlyClientCa);
    }
    match (tls.tls_cert.is_some(), tls.dangerously_let_the_network_read_pins) {
        (true, true) => return Err(ConfigError::NeedlesslyDangerous),
        (false, false) if !args.listen.ip().is_loopback() => {
            return Err(ConfigError::NotPrivate(args.listen));
        }
        _ => {}
    }
    if args.connections == 0 {
        return Err(ConfigError::NoConnections);
    }
    let watch = &args.watch;
    match watch.metrics_listen {
        None if watch.metrics_host.is_some() || watch.let_the_network_watch => {
            Err(ConfigError::NothingToWatch)
        }
        _ if watch
            .metrics_host
            .iter()
            .flat_map(|names| names.split(','))
            .any(is_no_name) =>
        {
            Err(ConfigError::NoName)
        }
        Some(address) if !address.ip().is_loopback() && !watch.let_the_network_watch => {
            Err(ConfigError::Public(address))
        }
        _ => Ok(()),
    }
}

/// Whether no browser would call anything by this name alone.
fn is_no_name(name: &str) -> bool {
    name.trim().is_empty() || name.contains([':', '/'])
}

impl TryFrom<ServeArgs> for ServeConfig {
    type Error = ConfigError;

    fn try_from(args: ServeArgs) -> Result<ServeConfig, ConfigError> {
        check(&args)?;
        let TlsArgs {
            tls_cert,
            tls_key,
            tls_client_ca,
            dangerously_let_the_network_read_pins: _,
        } = &args.tls;
        let tls = match (tls_cert, tls_key) {
            (Some(cert), Some(key)) => Some(Tls::new(TlsFiles {
                cert,
                key,
                client_ca: tls_client_ca.as_deref(),
            })?),
            _ => None,
        };
        if tls.is_none() && !args.listen.ip().is_loopback() {
            tracing::warn!(listen = %args.listen, "everybody on the network can read PINs and change amounts");
        }
        let watch = args.watch;
        let connections = args.connections.min(raise_open_files(args.connections));
        Ok(ServeConfig {
            paths: args.bank.into(),
            listen: args.listen,
            admin_socket: args.admin_socket,
            metrics_listen: watch.metrics_listen,
            metrics_hosts: watch
                .metrics_host
                .iter()
                .flat_map(|names| names.split(','))
                .map(|name| name.trim().to_owned())
                .collect(),
            workers: args.workers.map_or_else(default_workers, NonZeroUsize::get),
            service: Service {
                connections,
                registration: if args.registered_terminals {
                    Registration::ByOperator
                } else {
                    Registration::BySelf
                },
                tls,
            },
            allow_weak_pins: args.allow_weak_pins,
        })
    }
}

/// Threads that serve connections unless the operator says otherwise: one for each core but one, which is left to the journal's
/// thread. It is as busy as they are, and whoever waits for a commit waits for it.
pub fn default_workers() -> usize {
    available_parallelism().map_or(1, |cores| cores.get().max(2) - 1)
}

/// Raises the limit of open files as far as is allowed and useful. Gives how many connections it has room for.
fn raise_open_files(connections: usize) -> usize {
    let wanted = connections as u64 + SPARE_OPEN_FILES;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(files) if files < wanted => {
            let connections = files.saturating_sub(SPARE_OPEN_FILES).max(1);
            tracing::warn!(
                files,
                connections,
                "the limit of open files leaves room for fewer connections"
            );
            usize::try_from(connections).unwrap_or(usize::MAX)
        }
        Ok(_) => connections,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files could not be raised");
            connections
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;

    fn parse(arguments: &[&str]) -> Result<ServeConfig, ConfigError> {
        let args = Args::try_parse_from([&["atm-server", "serve"], arguments].concat()).unwrap();
        let Command::Serve(args) = args.command else {
            panic!()
        };
        args.try_into()
    }

    #[test]
    fn the_pepper_lies_beside_the_bank_unless_it_is_said_where() {
        assert_eq!(
            parse(&["--bank", "a/b.db"]).unwrap().paths.pepper,
            PathBuf::from("a/b.db.pepper")
        );
        assert_eq!(
            parse(&["--pepper", "key"]).unwrap().paths.pepper,
            PathBuf::from("key")
        );
    }

    #[test]
    fn the_network_is_refused_without_tls() {
        for address in ["0.0.0.0:1", "192.0.2.1:5100", "[::]:5100"] {
            assert!(
                matches!(parse(&["--listen", address]), Err(ConfigError::NotPrivate(_))),
                "{address}"
            );
        }
        assert!(parse(&["--listen", "[::1]:0"]).is_ok());
        let frightening = "--dangerously-let-the-network-read-pins";
        assert!(parse(&["--listen", "0.0.0.0:1", frightening]).is_ok());
        let watched = ["--metrics-listen", "0.0.0.0:1"];
        assert!(matches!(parse(&watched), Err(ConfigError::Public(_))));
        assert!(parse(&[&watched[..], &["--let-the-network-watch"]].concat()).is_ok());
        assert!(parse(&["--metrics-listen", "[::1]:0"]).is_ok());
    }

    #[test]
    fn settings_that_do_not_go_together_are_refused() {
        let refused = |arguments: &[&str]| parse(arguments).unwrap_err();
        assert!(matches!(
            refused(&["--metrics-host", "bank.example"]),
            ConfigError::NothingToWatch
        ));
        for wrong in ["a,,b", "bank.example:9100", "http://bank.example", ""] {
            let watched = ["--metrics-listen", "127.0.0.1:0", "--metrics-host", wrong];
            assert!(matches!(refused(&watched), ConfigError::NoName), "{wrong:?}");
        }
        assert!(matches!(
            refused(&["--connections", "0"]),
            ConfigError::NoConnections
        ));
        for half in ["--tls-cert", "--tls-key"] {
            assert!(matches!(refused(&[half, "x"]), ConfigError::HalfOfTls), "{half}");
        }
        assert!(matches!(
            refused(&["--tls-client-ca", "x"]),
            ConfigError::OnlyClientCa
        ));
        let frightening = "--dangerously-let-the-network-read-pins";
        let both = ["--tls-cert", "x", "--tls-key", "x", frightening];
        assert!(matches!(refused(&both), ConfigError::NeedlesslyDangerous));
        let missing = refused(&both[..4]);
        assert!(matches!(missing, ConfigError::Tls(_)) && !missing.is_wrong_usage());
    }
}
