//! The demonstration: the sample bank, a server and this terminal, in one process and a temporary directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atm_server::server::Service;
use bank_core::bank_file::{self, CardSecurity, ExistingNames};
use bank_core::limits::DEMO_CONNECTIONS;
use bank_core::loading::AccountList;
use bank_core::{Bank, Moment, Peppers, PinProfile, TerminalId};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::args::MenuArgs;
use crate::client::ClientConfig;
use crate::one_shot::Ended;
use crate::prompt;
use crate::supervisor::SupervisorCode;
use crate::terminal::{self, TerminalConfig};

/// The bank of `data/accounts.csv`.
const SAMPLE: &str = include_str!("../../data/accounts.csv");

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Opens the sample bank, serves it, and runs the menu on it.
pub fn run(id: TerminalId) -> Ended {
    match demonstrate(id) {
        Ok(ended) => ended,
        Err(error) => {
            eprintln!("atm-cli: the demonstration could not be set up: {error}");
            Ended::Failed
        }
    }
}

fn demonstrate(id: TerminalId) -> Result<Ended, Error> {
    let directory = tempfile::Builder::new().prefix("atm-demo").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    leave_nothing_behind(&runtime, directory.path().to_owned())?;
    let served = serve(&runtime, &directory.path().join("bank.db"))?;
    let terminal = MenuArgs {
        journal: Some(directory.path().join("terminal.journal")),
        cassettes: Some("50x200,20x500,10x500".to_owned()),
        ..MenuArgs::default()
    };
    let config = terminal.config(ClientConfig::new(&served.address, id))?;
    // Made here, so that it can be shown.
    SupervisorCode::read_or_create(&config.supervisor_code)?;
    let code = std::fs::read_to_string(&config.supervisor_code)?;
    let config = TerminalConfig {
        posted: Some(introduction(&served.address, code.trim())),
        ..config
    };
    let ended = terminal::run(config, prompt::for_stdin().as_mut());
    let _ = served.stop.send("the demonstration is over");
    runtime.block_on(served.server)??;
    Ok(ended)
}

/// Also when a signal ends the process: at a prompt Ctrl-C is a key like any other, and between prompts it is not.
fn leave_nothing_behind(runtime: &Runtime, directory: PathBuf) -> io::Result<()> {
    let _inside = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    runtime.spawn(async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hang_up.recv() => {} }
        let _ = std::fs::remove_dir_all(directory);
        std::process::exit(130);
    });
    Ok(())
}

struct Served {
    address: String,
    stop: oneshot::Sender<&'static str>,
    server: JoinHandle<Result<(), bank_core::JournalError>>,
}

fn serve(runtime: &Runtime, path: &Path) -> Result<Served, Error> {
    let peppers = Peppers::random()?;
    let list = AccountList::from_csv(SAMPLE.as_bytes(), |_, _| Ok(ExistingNames::default()))?;
    let (accounts, cards) = list.hash_pins(&peppers, PinProfile::Standard, &|_| ())?;
    let security = CardSecurity {
        profile: PinProfile::Standard,
        peppers: &peppers,
    };
    bank_file::create_bank(path, false, &security, Moment::now(), &accounts, &cards, &|_| ())?;
    let bank = Arc::new(Bank::open(path, peppers)?);
    let listener = runtime.block_on(async { atm_server::server::listen(([127, 0, 0, 1], 0).into()) })?;
    let address = listener.local_addr()?.to_string();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async { stopped.await.unwrap_or("the demonstration has ended") };
    let service = Service::on_loopback(DEMO_CONNECTIONS);
    let server = runtime.spawn(atm_server::server::run(
        listener, bank, service, None, None, shutdown,
    ));
    Ok(Served {
        address,
        stop,
        server,
    })
}

fn introduction(address: &str, code: &str) -> String {
    let mut text = format!("A sample bank is open: {address}\nIts cards and their PINs:\n");
    for row in SAMPLE.lines().skip(1) {
        let fields: Vec<_> = row.split(',').collect();
        if let [_, holder, pin, account, currency, ..] = fields[..] {
            let currency = if currency.is_empty() { "(shared)" } else { currency };
            text += &format!("  {holder:<8} {pin}   account {account} {currency}\n");
        }
    }
    text + &format!("  supervisor's code after *: {code}\n")
}
