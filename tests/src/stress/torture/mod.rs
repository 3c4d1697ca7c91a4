//! `atm-stress torture`: real servers and real terminals, killed and cut off at random moments, and then a verdict on
//! every single transaction.
//!
//! A round starts a server and terminals, lets customers use them over a cable that breaks, kills now this and now that
//! with kill -9, and starts it again. Then everything is mended, terminals and clients end what is in doubt, the
//! supervisors count notes and close the day, the server is ended one way or another, and the bank file is compared with
//! all that anybody was told and with the notes that have left. The next round goes on with the same bank.

mod atm;
mod check;
mod proxy;
mod screen;
mod wire;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::{Server, TestBank, stderr};
use atm::{Atm, AtmFigures};
use check::Host;
use proxy::Proxy;
use wire::{Asked, Statement, Wire};

/// Accounts that everybody shares, so that they are hot.
const ACCOUNTS: u64 = 6;

/// Terminals with notes.
const ATMS: usize = 3;

/// Rounds after which everything that is checked has surely happened.
const ROUNDS_THAT_MEAN_SOMETHING: u32 = 3;

/// How long a round goes on killing.
const MISCHIEF: Duration = Duration::from_millis(2500);

/// How long a client's request may take while things break.
const SHORT_PATIENCE: Duration = Duration::from_millis(800);

/// And when they are mended.
const PATIENCE: Duration = Duration::from_secs(20);

/// Arguments of `torture`.
#[derive(Debug, clap::Args)]
pub struct TortureArgs {
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rounds: u32,
    /// For the choices made at random; how threads and processes interleave is chance all the same
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Clients beside the terminals
    #[arg(long, value_name = "C", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub connections: u32,
    /// Write the figures to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What all rounds came to.
#[derive(Default)]
struct Figures {
    rounds: u32,
    server_kills: u64,
    terminal_kills: u64,
    cuts: u64,
    rows: u64,
    acknowledged: u64,
    receipts: u64,
    repeats: u64,
    reversals: u64,
    fences: u64,
    advices: u64,
    settled: u64,
    decided: u64,
}

/// Tortures, and tells how it went: a line a round on standard error, the figures on standard output. True if nothing was
/// lost and nothing was done twice.
///
/// # Errors
/// If the programs cannot be started, or the figures cannot be written.
pub fn run(args: &TortureArgs) -> Result<bool, Box<dyn Error>> {
    let mut site = Site::new(args)?;
    let started = Instant::now();
    let mut problems = Vec::new();
    for round in 1..=args.rounds {
        let begun = Instant::now();
        problems = site.round(round);
        eprintln!(
            "round {round:>4}  {:>4.1} s  {:>8} rows  {:>4} kills",
            begun.elapsed().as_secs_f64(),
            site.figures.rows,
            site.figures.server_kills + site.figures.terminal_kills
        );
        if !problems.is_empty() {
            break;
        }
    }
    print!("{}", table(&site.figures, started.elapsed()));
    if let Some(path) = &args.json {
        let figures = to_json(args, &site.figures, started.elapsed(), problems.is_empty());
        fs::write(path, figures.to_string() + "\n")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if problems.is_empty() {
        fs::remove_dir_all(&site.directory)?;
        println!("nothing was lost, and nothing was done twice");
        return Ok(true);
    }
    for problem in problems.iter().take(20) {
        println!("{problem}");
    }
    println!(
        "{} problems in round {}, seed {}; the bank and the terminals' journals are kept in {}",
        problems.len(),
        site.figures.rounds,
        args.seed,
        site.directory.display()
    );
    Ok(false)
}

fn table(figures: &Figures, elapsed: Duration) -> String {
    let rows: [(&str, u64); 13] = [
        ("rounds", figures.rounds.into()),
        ("servers killed", figures.server_kills),
        ("terminals killed", figures.terminal_kills),
        ("connections cut", figures.cuts),
        ("journal rows", figures.rows),
        ("acknowledged to clients", figures.acknowledged),
        ("receipts printed by terminals", figures.receipts),
        ("repeats sent", figures.repeats),
        ("in doubt and settled", figures.settled),
        ("reversals", figures.reversals),
        ("fences", figures.fences),
        ("advices", figures.advices),
        ("dispenses cut short and decided", figures.decided),
    ];
    let mut table: String = rows
        .iter()
        .map(|(name, count)| format!("{count:>10}  {name}\n"))
        .collect();
    table.push_str(&format!("{:>10.0}  seconds\n", elapsed.as_secs_f64()));
    table
}

fn to_json(args: &TortureArgs, figures: &Figures, elapsed: Duration, ok: bool) -> serde_json::Value {
    json!({
        "ok": ok, "seed": args.seed, "rounds": figures.rounds, "seconds": elapsed.as_secs_f64(),
        "server_kills": figures.server_kills, "terminal_kills": figures.terminal_kills, "cuts": figures.cuts,
        "transactions": figures.rows, "acknowledged": figures.acknowledged, "receipts": figures.receipts, "repeats": figures.repeats,
        "in_doubt_settled": figures.settled, "reversals": figures.reversals, "fences": figures.fences,
        "advices": figures.advices, "dispenses_decided": figures.decided,
    })
}

/// A bank, its terminals and its clients, for all rounds.
struct Site {
    /// Removed only when all is well.
    directory: PathBuf,
    bank: TestBank,
    proxy: Proxy,
    atms: Vec<Atm>,
    asked: Vec<Asked>,
    random: StdRng,
    connections: usize,
    figures: Figures,
}

impl Site {
    fn new(args: &TortureArgs) -> Result<Site, Box<dyn Error>> {
        let directory = tempfile::Builder::new().prefix("atm-torture").tempdir()?.keep();
        let bank = TestBank::at(&directory);
        let command = |arguments: &[&str]| {
            let output = bank.server_command(arguments);
            if output.status.success() {
                Ok(())
            } else {
                Err(stderr(&output))
            }
        };
        command(&["generate", "--accounts", &ACCOUNTS.to_string()])?;
        let atms: Vec<_> = (1..=ATMS).map(|number| Atm::new(&directory, number)).collect();
        for atm in &atms {
            let secret = atm.secret();
            let secret = secret
                .to_str()
                .ok_or("the temporary directory's name is no text")?;
            command(&["add-terminal", atm.id.as_str(), "--secret-file", secret])?;
        }
        Ok(Site {
            bank,
            proxy: Proxy::start(args.seed),
            atms,
            asked: Vec::new(),
            random: StdRng::seed_from_u64(args.seed),
            connections: args.connections as usize,
            figures: Figures::default(),
            directory,
        })
    }

    /// One round. Gives what is wrong.
    fn round(&mut self, round: u32) -> Vec<String> {
        self.figures.rounds = round;
        self.proxy.misbehave(true);
        let seed: u64 = self.random.random();
        let stop = AtomicBool::new(false);
        let server = Mutex::new(Some(self.start_server()));
        let (address, atms) = (self.proxy.address().to_owned(), &self.atms);
        let mut random = StdRng::seed_from_u64(seed);
        let (mut atm_figures, mut asked, mut statements) = (AtmFigures::default(), Vec::new(), Vec::new());
        let mut problems = Vec::new();
        let (mut kills, mut repeats, mut settled) = ((0, 0), 0, 0);
        thread::scope(|scope| {
            // Should this thread panic, the others must not go on for ever.
            let _stop = StopOnDrop(&stop);
            let serving: Vec<_> = (1u64..)
                .zip(atms)
                .map(|(n, atm)| {
                    let (address, stop) = (&address, &stop);
                    scope.spawn(move || atm.serve(address, seed ^ n, stop))
                })
                .collect();
            let asking: Vec<_> = (1..=self.connections)
                .map(|n| {
                    let (address, stop) = (&address, &stop);
                    scope.spawn(move || {
                        let mut wire = Wire::new(address, n, seed ^ (n as u64) << 32, SHORT_PATIENCE);
                        wire.ask_until(stop);
                        (wire.asked, wire.repeats)
                    })
                })
                .collect();
            kills = self.do_mischief(&server, &mut random, &mut problems);
            // Everything is mended, and everybody comes to an end.
            self.proxy.misbehave(false);
            self.proxy.cut_all();
            stop.store(true, Ordering::Release);
            for (n, wire) in (1..).zip(asking) {
                let (asked_before, repeated) = wire.join().expect("a client does not panic");
                let mut wire = Wire::new(&address, n, seed, PATIENCE);
                wire.asked = asked_before;
                wire.end_doubt();
                if n == 1 {
                    statements = wire.statements();
                }
                repeats += repeated;
                settled += wire.settled;
                asked.append(&mut wire.asked);
            }
            for atm in serving {
                atm_figures.add(&atm.join().expect("a terminal's customer does not panic"));
            }
        });
        for atm in &self.atms {
            // A last power cut, in whatever it has left unfinished.
            let mut figures = AtmFigures::default();
            if let Err(problem) = atm.close_the_day(&address, &mut figures) {
                problems.push(problem);
            }
            atm_figures.add(&figures);
        }
        let server = server.into_inner().expect("no holder panics");
        let server = server.expect("the server was started again");
        if random.random() {
            server.kill();
        } else {
            let (status, log) = server.stop();
            if !status.success() {
                problems.push(format!("the server ended with {status}: {log}"));
            }
        }
        self.figures.server_kills += kills.0;
        self.figures.terminal_kills += kills.1;
        self.figures.cuts = self.proxy.cuts();
        self.figures.repeats += repeats + atm_figures.repeats;
        self.figures.settled += settled + atm_figures.settled;
        self.figures.decided += atm_figures.decided;
        self.asked.append(&mut asked);
        problems.append(&mut atm_figures.problems);
        problems.extend(self.verdict(&statements, &atm_figures));
        problems
    }

    /// Kills and cuts for a while. The server is there again at the end. Gives how many servers and terminals it has
    /// killed.
    fn do_mischief(
        &self,
        server: &Mutex<Option<Server>>,
        random: &mut StdRng,
        problems: &mut Vec<String>,
    ) -> (u64, u64) {
        let mut kills = (0, 0);
        let end = Instant::now() + MISCHIEF;
        while Instant::now() < end {
            pause(random.random_range(Duration::from_millis(40)..Duration::from_millis(350)));
            let what = random.random_range(0..10);
            if what < 5 {
                let atm = &self.atms[random.random_range(0..self.atms.len())];
                // Where it hurts most: in the middle of dispensing, if that comes soon.
                let (until, still) = (Instant::now() + Duration::from_millis(150), atm.tray_bytes());
                while what < 3 && Instant::now() < until && atm.tray_bytes() == still {
                    pause(Duration::from_micros(200));
                }
                kills.1 += u64::from(atm.victim.kill());
            }
            if (4..9).contains(&what) {
                let killed = server.lock().expect("no holder panics").take();
                if let Some(mut killed) = killed {
                    if killed.has_ended() {
                        let (status, log) = killed.wait();
                        problems.push(format!("a server ended by itself with {status}: {log}"));
                    } else {
                        killed.kill();
                        kills.0 += 1;
                    }
                }
                pause(random.random_range(Duration::ZERO..Duration::from_millis(150)));
                *server.lock().expect("no holder panics") = Some(self.start_server());
            }
            if what == 9 {
                self.proxy.cut_all();
            }
        }
        kills
    }

    fn start_server(&self) -> Server {
        let server = self.bank.serve_quietly();
        self.proxy.lead_to(server.address());
        server
    }

    /// Compares the bank file with all that anybody was told since the first round, and with the notes.
    fn verdict(&mut self, statements: &[Statement], atms: &AtmFigures) -> Vec<String> {
        let host = Host::read(&self.bank.path());
        let mut problems = host.problems().to_vec();
        for asked in &self.asked {
            problems.extend(host.check(asked));
        }
        for atm in &self.atms {
            problems.extend(atm.check(&host));
        }
        problems.extend(
            statements
                .iter()
                .filter_map(|statement| host.check_statement(statement)),
        );
        let printed = atms.receipts.iter();
        problems.extend(printed.filter_map(|(terminal, receipt)| host.check_receipt(*terminal, receipt)));
        if statements.len() as u64 != ACCOUNTS {
            problems.push(format!("{} of {ACCOUNTS} statements came", statements.len()));
        }
        self.figures.rows = host.rows;
        (self.figures.fences, self.figures.reversals, self.figures.advices) = host.settlements();
        self.figures.acknowledged = self
            .asked
            .iter()
            .flat_map(|asked| &asked.told)
            .filter(|told| !matches!(told, wire::Told::InDoubt | wire::Told::NotDone))
            .count() as u64;
        self.figures.receipts += atms.receipts.len() as u64;
        let Figures {
            rounds,
            server_kills,
            terminal_kills,
            cuts,
            acknowledged,
            receipts,
            ..
        } = self.figures;
        // Of what did not happen nothing can be said.
        if rounds >= ROUNDS_THAT_MEAN_SOMETHING
            && [server_kills, terminal_kills, cuts, acknowledged, receipts].contains(&0)
        {
            problems.push("this was no torture: nothing was killed, cut, acknowledged or printed".to_owned());
        }
        problems
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A generated bank's PINs.
fn pin_of(account: u64) -> String {
    format!("{account:04}")
}

/// The clock is what mischief goes by.
#[allow(clippy::disallowed_methods)]
fn pause(pause: Duration) {
    thread::sleep(pause);
}
