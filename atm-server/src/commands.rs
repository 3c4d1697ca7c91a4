//! What each command does.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use bank_core::bank_file::{self, CardSecurity, ExistingNames, NewAccount, NewCard, Rotation, StatementLine};
use bank_core::limits::MAX_LIST_BYTES;
use bank_core::loading::{AccountList, ListError};
use bank_core::row::{Contra, Outcome};
use bank_core::{Account, Bank, Currency, JournalError, Moment, Peppers, PinProfile, TerminalSecret, memory};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

use crate::admin::socket::AdminSocket;
use crate::admin::{self, AdminRequest};
use crate::args::{
    AddTerminalArgs, AdminArgs, AdminCommand, Args, CertificateArgs, Command, GenerateArgs, LoadArgs,
    RotatePepperArgs, ServeArgs, StatementArgs,
};
use crate::blocking_work::BlockingWork;
use crate::certificates::{Authority, CertifiedFiles, check_names};
use crate::config::{BankPaths, ServeConfig};
use crate::progress;
use crate::{server, shutdown};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As it should.
    Done = 0,
    /// It did not do it; the reason was written to standard error, or to standard output by `verify`.
    Failed = 1,
    /// A commit to the bank file failed while serving.
    Poisoned = 3,
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> ExitCode {
        ExitCode::from(ended as u8)
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command and tells a person what went wrong, if anything did.
pub fn run(args: Args) -> Ended {
    log_to_stderr();
    if let Err(error) = memory::hide() {
        tracing::warn!(%error, "the memory, with PINs and keys, could not be hidden from core dumps");
    }
    let result = match args.command {
        Command::Load(args) => load(args),
        Command::Generate(args) => generate(args),
        Command::Serve(args) => return serve(args),
        Command::Verify(args) => verify(&args.bank),
        Command::Statement(args) => statement(&args),
        Command::AddTerminal(args) => add_terminal(&args),
        Command::Admin(args) => administer(args),
        Command::Certificate(args) => certificate(&args),
        Command::RotatePepper(args) => rotate_pepper(args),
    };
    result.unwrap_or_else(|error| {
        // A reader that has seen enough, such as `head`, is no failure.
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        {
            return Ended::Done;
        }
        failed(&*error)
    })
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Ended {
    let _ = writeln!(io::stderr(), "atm-server: {error}");
    Ended::Failed
}

/// Tells a result. It is done whether or not anybody is left to read that.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Standard error, for a log that may be lost: a full disk or a reader that has gone must not end the bank.
struct LossyStderr;

impl Write for LossyStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("ATM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_writer(|| LossyStderr)
        .with_env_filter(filter);
    // Whoever embeds the commands may have set up a log already.
    let _ = log
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}

fn add_terminal(args: &AddTerminalArgs) -> Result<Ended, Error> {
    let AddTerminalArgs {
        terminal,
        bank,
        secret_file,
        replace,
    } = args;
    let secret = TerminalSecret::create(secret_file)?;
    let added = bank_file::add_terminal(&bank.bank, *terminal, secret.hash(), Moment::now().time, *replace);
    if let Err(error) = added {
        // It opens nothing, so nobody is to take it for one that does.
        let _ = std::fs::remove_file(secret_file);
        return Err(error.into());
    }
    say(format_args!(
        "terminal {terminal} may come in with the secret in {}",
        secret_file.display()
    ));
    Ok(Ended::Done)
}

fn administer(args: AdminArgs) -> Result<Ended, Error> {
    let request = match args.command {
        AdminCommand::UnblockCard { card } => AdminRequest::UnblockCard { card },
        AdminCommand::Shutdown => AdminRequest::Shutdown {},
    };
    let reply = admin::ask(&args.admin_socket, &request)?;
    if args.json {
        say(format_args!("{}", serde_json::to_string(&reply)?));
    } else if reply.done {
        say(format_args!("{}", reply.message));
    } else {
        return Err(reply.message.into());
    }
    Ok(if reply.done { Ended::Done } else { Ended::Failed })
}

fn certificate(args: &CertificateArgs) -> Result<Ended, Error> {
    let CertificateArgs {
        dir,
        server,
        terminal,
        days,
        replace,
    } = args;
    check_names(server, terminal)?;
    if *replace && !dir.join("ca.key").exists() {
        return Err(format!(
            "there is no authority in {}, so there is nothing to replace: look at --dir, or leave --replace out to make one",
            dir.display()
        )
        .into());
    }
    let (authority, is_new) = Authority::open_or_create(dir, Moment::now().date)?;
    let (ca, ca_key) = (dir.join("ca.pem"), dir.join("ca.key"));
    let (ca, ca_key) = (ca.display(), ca_key.display());
    if is_new {
        say(format_args!(
            "Made a new authority.\n  {ca}  everybody may have it: every terminal needs it (atm-cli --tls-ca), and the server, if \
             terminals\n  {:width$}  are to have certificates (atm-server serve --tls-client-ca)\n  {ca_key}  names servers and terminals: whoever has it can pass for the bank. Keep it offline,\n  {:width$}  with a backup; neither the server nor any terminal needs it. It is good for ten years",
            "",
            "",
            width = ca.to_string().len(),
        ));
    } else if server.is_empty() && terminal.is_empty() {
        return Err(format!(
            "the authority {ca} is there already: say what it is to certify, --server NAME or --terminal ID"
        )
        .into());
    }
    if !server.is_empty() {
        let CertifiedFiles { certificate, key } = authority.certify_server(server, *days, *replace)?;
        let (certificate, key) = (certificate.display(), key.display());
        say(format_args!(
            "Certified the server as {}, for {days} days. On its machine, and {key} there alone:\n  atm-server serve --tls-cert {certificate} --tls-key {key} --tls-client-ca {ca} --listen ...",
            server.join(", ")
        ));
    }
    for &id in terminal {
        let CertifiedFiles { certificate, key } = authority.certify_terminal(id, *days, *replace)?;
        let (certificate, key) = (certificate.display(), key.display());
        say(format_args!(
            "Certified terminal {id}, for {days} days. On its machine, and {key} there alone:\n  atm-cli --terminal {id} --tls-ca {ca} --tls-cert {certificate} --tls-key {key} --server ..."
        ));
    }
    Ok(Ended::Done)
}

fn rotate_pepper(args: RotatePepperArgs) -> Result<Ended, Error> {
    let paths = BankPaths::from(args.bank);
    let rotation = if args.forget_unused {
        Rotation::ForgetUnused
    } else {
        Rotation::AddKey
    };
    let profile = args.pin_profile.map(PinProfile::from);
    let rotated = bank_file::rotate_pepper(&paths.bank, &paths.pepper, rotation, profile)?;
    let (newest, file) = (rotated.newest, paths.pepper.display());
    if rotation == Rotation::AddKey {
        let origin = if rotated.finished {
            "left by a rotation that was cut short"
        } else {
            "new"
        };
        say(format_args!(
            "PINs are hashed with pepper {newest} from now on, which is {origin}: back up {file}"
        ));
    } else if rotated.forgotten.is_empty() {
        say(format_args!(
            "no pepper was forgotten: pepper {newest} is the newest, and cards depend on every other"
        ));
    }
    if let Some(profile) = profile {
        let warning = match profile {
            PinProfile::Standard => "",
            PinProfile::Fast => {
                ", which is for test banks only: whoever has bank and pepper finds every PIN at once"
            }
        };
        say(format_args!(
            "what a PIN's hash costs from now on: {}{warning}",
            profile.name()
        ));
    }
    for id in rotated.forgotten {
        say(format_args!("pepper {id} was forgotten"));
    }
    for (id, cards) in rotated.older {
        say(format_args!("cards that still depend on pepper {id}: {cards}"));
    }
    Ok(Ended::Done)
}

fn load(args: LoadArgs) -> Result<Ended, Error> {
    let paths = BankPaths::from(args.bank);
    let exists = paths.bank.exists();
    if exists && !args.append && !args.replace && !args.dry_run {
        return Err(bank_file::BankFileError::Exists(paths.bank).into());
    }
    let csv = read_list(&args.list)?;
    let list = AccountList::from_csv(&csv, |accounts, cards| {
        if args.append {
            bank_file::existing_names(&paths.bank, accounts.iter().copied(), cards.iter())
        } else {
            Ok(ExistingNames::default())
        }
    });
    drop(csv);
    let list = match list {
        Err(ListError::BadRows(rows)) => {
            for row in &rows {
                let _ = writeln!(
                    io::stderr(),
                    "{}:{}: {}",
                    args.list.display(),
                    row.line,
                    row.reason
                );
            }
            return Err(ListError::BadRows(rows).into());
        }
        other => other?,
    };
    warn_of_weak_pins(&args.list, &list.weak_pin_lines);
    let (accounts, cards) = (list.accounts.len(), list.cards.len());
    if args.dry_run {
        say(format_args!(
            "{} is good: {accounts} accounts, {cards} cards; nothing was written",
            args.list.display()
        ));
        return Ok(Ended::Done);
    }
    if args.append {
        let peppers = Peppers::read(&paths.pepper)?;
        let profile = match args.pin_profile {
            Some(profile) => profile.into(),
            None => bank_file::read_pin_profile_of(&paths.bank)?,
        };
        let (accounts, cards) = hash_pins(list, &peppers, profile)?;
        with_write_bar(&accounts, &cards, |written| {
            bank_file::append_to_bank(&paths.bank, &peppers, Moment::now(), &accounts, &cards, written)
        })?;
    } else {
        create(
            &paths,
            args.replace,
            list,
            args.pin_profile.map_or(PinProfile::Standard, PinProfile::from),
        )?;
    }
    say(format_args!(
        "loaded {accounts} accounts and {cards} cards into {}",
        paths.bank.display()
    ));
    Ok(Ended::Done)
}

/// Says in which lines PINs are guessed first, but neither which PINs these are nor why: whoever reads the warning need not
/// be told where to begin.
fn warn_of_weak_pins(list: &Path, lines: &[u64]) {
    const NAMED: usize = 10;
    if lines.is_empty() {
        return;
    }
    let named: Vec<_> = lines.iter().take(NAMED).map(u64::to_string).collect();
    let more = match lines.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let _ = writeln!(
        io::stderr(),
        "atm-server: warning: {}: PINs that are too easy to guess in lines {}{more}. They are good for loading; ask their \
         holders to change them.",
        list.display(),
        named.join(", "),
    );
}

fn read_list(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let length = file.metadata()?.len();
    // With its final size from the start, so that no copy of the PINs is left behind by growing.
    let mut csv = Zeroizing::new(Vec::with_capacity(
        usize::try_from(length.min(MAX_LIST_BYTES))? + 1,
    ));
    file.take(MAX_LIST_BYTES + 1)
        .read_to_end(&mut csv)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    if csv.len() as u64 > MAX_LIST_BYTES {
        return Err(format!(
            "{} is too long: a list has at most {MAX_LIST_BYTES} bytes",
            path.display()
        )
        .into());
    }
    Ok(csv)
}

fn generate(args: GenerateArgs) -> Result<Ended, Error> {
    let paths = BankPaths::from(args.bank);
    if paths.bank.exists() && !args.replace {
        return Err(format!(
            "the bank file {} exists: --replace makes a new one in its place",
            paths.bank.display()
        )
        .into());
    }
    let currency = Currency::from_code(&args.currency)?;
    let list = AccountList::generate(args.accounts, currency, currency.parse(&args.balance)?);
    create(&paths, args.replace, list, args.pin_profile.into())?;
    say(format_args!(
        "generated {} accounts in {}",
        args.accounts,
        paths.bank.display()
    ));
    Ok(Ended::Done)
}

fn create(paths: &BankPaths, replace: bool, list: AccountList, profile: PinProfile) -> Result<(), Error> {
    let peppers = Peppers::read_or_create(&paths.pepper)?;
    let (accounts, cards) = hash_pins(list, &peppers, profile)?;
    let security = CardSecurity {
        profile,
        peppers: &peppers,
    };
    with_write_bar(&accounts, &cards, |written| {
        bank_file::create_bank(
            &paths.bank,
            replace,
            &security,
            Moment::now(),
            &accounts,
            &cards,
            written,
        )
    })
}

fn hash_pins(
    list: AccountList,
    peppers: &Peppers,
    profile: PinProfile,
) -> Result<(Vec<NewAccount>, Vec<NewCard>), Error> {
    let bar = progress::bar("PINs", list.cards.len() as u64);
    let hashed = list.hash_pins(peppers, profile, &|done| bar.set_position(done))?;
    bar.finish_and_clear();
    Ok(hashed)
}

fn with_write_bar(
    accounts: &[NewAccount],
    cards: &[NewCard],
    write: impl FnOnce(&dyn Fn(u64)) -> Result<(), bank_file::BankFileError>,
) -> Result<(), Error> {
    let bar = progress::bar("writing", (accounts.len() + cards.len()) as u64);
    write(&|written| bar.set_position(written))?;
    bar.finish_and_clear();
    Ok(())
}

fn serve(args: ServeArgs) -> Ended {
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

fn verify(bank: &Path) -> Result<Ended, Error> {
    let proof = bank_file::verify(bank)?;
    // The verdict is the exit code, also for those who do not read on.
    for problem in &proof.problems {
        say(format_args!("{problem}"));
    }
    if proof.problem_count > proof.problems.len() as u64 {
        say(format_args!(
            "... and {} more",
            proof.problem_count - proof.problems.len() as u64
        ));
    }
    say(format_args!("{proof}"));
    Ok(if proof.holds() { Ended::Done } else { Ended::Failed })
}

fn statement(args: &StatementArgs) -> Result<Ended, Error> {
    let found = bank_file::read_statement(&args.bank.bank, args.account, args.lines)?;
    let Some((account, lines)) = found else {
        return Err(format!("the bank has no account {}", args.account).into());
    };
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:>19}  {:>8}  {:<10}  {:>16}  {:>16}  {:<12}  {:<8}",
        "time (UTC)", "row", "kind", "amount", "balance", "other side", "terminal"
    )?;
    for line in lines.iter().rev() {
        write_line(&mut out, &account, line)?;
    }
    writeln!(
        out,
        "account {}: balance {} {}",
        account.id,
        account.currency.format(account.balance),
        account.currency
    )?;
    Ok(Ended::Done)
}

fn write_line(out: &mut impl Write, account: &Account, line: &StatementLine) -> io::Result<()> {
    let row = &line.row;
    let other = match line.side.contra {
        Contra::System(system) => system.name().to_owned(),
        Contra::Account(other) => other.to_string(),
    };
    let terminal = row
        .terminal
        .map(|terminal| terminal.to_string())
        .unwrap_or_default();
    let declined = match row.outcome {
        Outcome::Approved => String::new(),
        Outcome::Declined(decline) => format!("  declined: {}", decline.name()),
    };
    let (amount, balance) = (
        account.currency.format(line.side.amount),
        account.currency.format(line.side.balance),
    );
    let text = format!(
        "{:>19}  {:>8}  {:<10}  {amount:>16}  {balance:>16}  {other:<12}  {terminal:<8}{declined}",
        row.moment.time.to_string(),
        row.lsn,
        row.kind.name(),
    );
    writeln!(out, "{}", text.trim_end())
}
