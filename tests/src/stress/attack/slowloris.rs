//! `attack slowloris`: what clients that are slow on purpose do to those who are not.
//!
//! An attacker holds a connection, and whatever the server keeps for it, by sending just enough that it is not given up, or by
//! reading nothing of what it asked for. What the server has against it is deadlines and bounds, so that is what is
//! looked at: who overstays is put out, and memory stays within what so many connections may have.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bank_core::TxnId;
use bank_core::limits::{
    HANDSHAKE_DEADLINE, MAX_REPLY_BYTES, MAX_STATEMENT_LINES, READ_BUFFER_BYTES, REQUEST_DEADLINE,
    SOCKET_SEND_BYTES, WRITE_BUFFER_BYTES, WRITE_DEADLINE,
};
use bank_core::protocol::{
    ErrorCode, Greeting, Hello, MAGIC, Proof, Reply, ReplyBody, Request, RequestBody, VERSION, decode,
    encode, split,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::load::{Connection, Load, LoadError, Measured, make};
use super::super::rounds::OverRounds;
use super::super::seconds;
use super::Failure;
use crate::{Server, TestBank, program};

/// The honest customers have the accounts up to this, and the attackers the one after it.
const HONEST_ACCOUNTS: u64 = 1000;

/// Between two bytes of a drip: a message of 20 bytes would take twice as long as it may.
const DRIP: Duration = Duration::from_secs(1);

/// How long the server is given to put out who has overstayed, however slow the machine is.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at the server's memory.
const LOOK: Duration = Duration::from_millis(250);

/// What the server may have of memory for one connection: its buffers, of which the one for replies may have grown to twice what
/// is written at once, and its task.
const MEMORY_OF_A_CONNECTION: u64 = (READ_BUFFER_BYTES + 2 * WRITE_BUFFER_BYTES + MAX_REPLY_BYTES) as u64;

/// What the server may have of memory besides: for the rows of the honest customers, the ids that their accounts keep, and what
/// the allocator does not give back.
const OTHER_MEMORY: u64 = 128 << 20;

/// Arguments of `attack slowloris`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Thousands of clients that hold connections, drip bytes, or never read, while honest customers work on",
    long_about = "Thousands of clients that hold connections, drip bytes, or never read, while honest customers work on.\n\nA quarter of the \
attackers connect and say nothing, a quarter drip a hello byte by byte, a quarter are introduced and drip a request, and a quarter \
are logged in, ask for statements without end and read none. Who is thrown out comes back. In each round deposits and withdrawals \
by the honest are measured first in calm, then under attack. In the end the attackers do not come back any more, and the \
server must have put out all of them, by its deadlines of 10 seconds.\n\nThe attack has succeeded if an honest request fails, if money \
is not conserved, if an attacker may stay, if the server's memory passes what it may keep for so many connections, or if the server \
does not stop in order; never by a time. Attackers, customers and server share this machine's cores."
)]
pub(super) struct SlowlorisArgs {
    /// Attackers
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(4..=15_000))]
    connections: u32,
    /// Honest sessions
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    honest: u32,
    /// How long each measurement lasts
    #[arg(long, value_name = "S", default_value = "12", value_parser = seconds)]
    duration: Duration,
    /// How often calm and attack are measured; medians are told
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

/// What an attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Silent,
    HelloDrip,
    RequestDrip,
    NeverReads,
}

const KINDS: [Kind; 4] = [Kind::Silent, Kind::HelloDrip, Kind::RequestDrip, Kind::NeverReads];

impl Kind {
    /// The deadline that it overstays.
    fn deadline(self) -> Duration {
        match self {
            Kind::Silent | Kind::HelloDrip => HANDSHAKE_DEADLINE,
            Kind::RequestDrip => REQUEST_DEADLINE,
            Kind::NeverReads => WRITE_DEADLINE,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Silent => "says nothing",
            Kind::HelloDrip => "drips a hello",
            Kind::RequestDrip => "drips a request",
            Kind::NeverReads => "never reads",
        })
    }
}

/// What became of the attackers of one kind.
#[derive(Clone, Copy, Default)]
struct Tally {
    /// How often one was let in.
    came: u64,
    /// How often the server ended it.
    put_out: u64,
    /// How often it said that it was for taking too long.
    told_why: u64,
    longest: Duration,
}

/// What all attackers share.
struct Shared {
    server: String,
    /// They come back when they are thrown out.
    raging: AtomicBool,
    tallies: Mutex<[Tally; 4]>,
}

impl Shared {
    fn tally(&self, kind: Kind, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tallies.lock().unwrap_or_else(PoisonError::into_inner)[kind as usize]);
    }
}

/// `attack slowloris`.
pub(super) fn run(args: &SlowlorisArgs) -> Result<Value, Failure> {
    if args.duration.is_zero() {
        return Err("--duration 0: there is nothing to measure in no time".into());
    }
    // Where the limit cannot be raised, opening the next connection says so.
    let _ = rlimit::increase_nofile_limit(u64::from(args.connections) + 2 * u64::from(args.honest) + 100);
    program("atm-server");
    let bank = TestBank::generate(HONEST_ACCOUNTS + 1);
    let server = bank.serve_quietly();
    let honest = Load {
        warm_up: args.duration / 10,
        ..Load::new(args.honest as usize, HONEST_ACCOUNTS, args.duration)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(fill_statement(server.address()))?;
    let memory = Memory::of(&server)?;
    let shared = Arc::new(Shared {
        server: server.address().to_owned(),
        raging: AtomicBool::new(true),
        tallies: Mutex::default(),
    });
    println!(
        "{} attackers, {} honest sessions, rounds of {} s",
        args.connections,
        args.honest,
        args.duration.as_secs_f64()
    );
    println!(
        "{:>5}  {:>8}  {:>22}  {:>8}  {:>22}",
        "round", "calm/s", "p50, p99, p99.9 us", "attack/s", "p50, p99, p99.9 us"
    );
    let mut rounds = Vec::new();
    for round in 1..=args.rounds {
        let calm = measure(&runtime, &server, &honest)?;
        // A runtime of their own, so that what they do is not in the way of those who measure, but for the cores.
        let theirs = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let attackers = attack(&theirs, args.connections, &shared)?;
        let attacked = memory.watched(|| measure(&runtime, &server, &honest))?;
        println!("{round:>5}  {}  {}", row(&calm), row(&attacked));
        rounds.push((calm, attacked));
        if round == args.rounds {
            shared.raging.store(false, Ordering::Relaxed);
            memory.watched(|| put_out(&theirs, attackers))?;
        }
        // Dropping the runtime hangs up those who are left.
    }
    let figures = tell(args, &rounds, &memory, &shared)?;
    let (status, log) = server.stop();
    if !status.success() || log.contains("panicked") {
        return Err(format!("the server did not stop in order ({status}): {log}").into());
    }
    let verified = bank.server_command(&["verify"]);
    if !verified.status.success() {
        return Err(format!("the books do not balance: {}", crate::stdout(&verified)).into());
    }
    println!("all honest requests were served, the money is all there, and the server stopped in order");
    Ok(figures)
}

fn measure(runtime: &Runtime, server: &Server, honest: &Load) -> Result<Measured, Failure> {
    Ok(runtime.block_on(make(server.address(), honest))?.conserved()?)
}

/// Gives the attackers' account as many rows as a statement shows, so that they ask for much with little.
async fn fill_statement(server: &str) -> Result<(), Failure> {
    let mut connection = log_in(server).await?;
    for _ in 0..MAX_STATEMENT_LINES {
        let txn_id = TxnId::generate().to_bytes();
        connection.ask(RequestBody::Deposit { txn_id, amount: 1 }).await?;
    }
    Ok(())
}

async fn log_in(server: &str) -> Result<Connection, LoadError> {
    let mut connection = Connection::introduce(TcpStream::connect(server).await?).await?;
    let card = HONEST_ACCOUNTS + 1;
    connection
        .log_in(&card.to_string(), &format!("{:04}", card % 10_000))
        .await?;
    Ok(connection)
}

/// Lets all of them in, and goes on when they are.
fn attack(theirs: &Runtime, connections: u32, shared: &Arc<Shared>) -> Result<JoinSet<()>, Failure> {
    let (entered, mut entries) = mpsc::unbounded_channel();
    let mut attackers = JoinSet::new();
    for n in 0..connections as usize {
        let (shared, entered) = (Arc::clone(shared), entered.clone());
        attackers.spawn_on(attacker(KINDS[n % KINDS.len()], shared, entered), theirs.handle());
    }
    theirs.block_on(async {
        for _ in 0..connections {
            match timeout(PATIENCE, entries.recv()).await {
                Ok(Some(())) => {}
                _ => {
                    return Err(format!(
                        "not all attackers could connect within {} s",
                        PATIENCE.as_secs()
                    ));
                }
            }
        }
        Ok(())
    })?;
    Ok(attackers)
}

/// Waits until the server has put out everybody.
fn put_out(theirs: &Runtime, mut attackers: JoinSet<()>) -> Result<(), Failure> {
    let all = attackers.len();
    let gone = theirs.block_on(async {
        let all_gone = async { while attackers.join_next().await.is_some() {} };
        timeout(PATIENCE, all_gone).await
    });
    gone.map_err(|_| {
        format!(
            "{} of {all} attackers are still connected {} s after the attack: no deadline has put them out",
            attackers.len(),
            PATIENCE.as_secs()
        )
        .into()
    })
}

/// Comes, stays as long as the server lets it, and comes back.
async fn attacker(kind: Kind, shared: Arc<Shared>, entered: mpsc::UnboundedSender<()>) {
    let mut entered = Some(entered);
    while shared.raging.load(Ordering::Relaxed) {
        // Who finds the server busy asks again, as an attacker would.
        let Ok(stream) = enter(kind, &shared.server).await else {
            sleep(DRIP / 10).await;
            continue;
        };
        shared.tally(kind, |tally| tally.came += 1);
        if let Some(entered) = entered.take() {
            let _ = entered.send(());
        }
        let began = Instant::now();
        let told = stay(kind, stream).await;
        shared.tally(kind, |tally| {
            tally.put_out += 1;
            tally.told_why += u64::from(told);
            tally.longest = tally.longest.max(began.elapsed());
        });
    }
}

/// Goes as far as it must before it becomes slow.
async fn enter(kind: Kind, server: &str) -> Result<TcpStream, LoadError> {
    Ok(match kind {
        Kind::Silent | Kind::HelloDrip => TcpStream::connect(server).await?,
        Kind::RequestDrip => Connection::introduce(TcpStream::connect(server).await?)
            .await?
            .into_stream(),
        Kind::NeverReads => log_in(server).await?.into_stream(),
    })
}

/// Is slow until the server ends it; whether it was told that it took too long.
async fn stay(kind: Kind, stream: TcpStream) -> bool {
    let (mut reader, mut writer) = stream.into_split();
    let mut message = Vec::new();
    match kind {
        Kind::Silent => {}
        Kind::HelloDrip => {
            let hello = Hello {
                magic: MAGIC,
                version: VERSION,
                terminal: "SLOW",
                proof: Proof::None,
            };
            encode(&hello, &mut message);
        }
        Kind::RequestDrip => {
            let txn_id = TxnId::generate().to_bytes();
            let body = RequestBody::Resolve { account: 1, txn_id };
            encode(&Request { id: 1, body }, &mut message);
        }
        Kind::NeverReads => {
            let body = RequestBody::Statement {
                lines: MAX_STATEMENT_LINES,
            };
            for _ in 0..100 {
                encode(&Request { id: 1, body }, &mut message);
            }
            while writer.write_all(&message).await.is_ok() {}
            return false;
        }
    }
    let drip = async {
        for &byte in &message {
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(DRIP).await;
        }
        std::future::pending().await
    };
    let mut said = Vec::new();
    tokio::select! {
        // A reset is an end, too.
        _ = reader.read_to_end(&mut said) => says_too_slow(&said),
        never = drip => never,
    }
}

/// Whether the server's last words are that it took too long.
fn says_too_slow(said: &[u8]) -> bool {
    let Ok(Some((body, _))) = split(said, MAX_REPLY_BYTES) else {
        return false;
    };
    let code = match (decode::<Greeting<'_>>(body), decode::<Reply<'_>>(body)) {
        (Ok(Greeting::Refused { code, .. }), _) => code,
        (
            _,
            Ok(Reply {
                body: ReplyBody::Error { code, .. },
                ..
            }),
        ) => code,
        _ => return false,
    };
    code == ErrorCode::TimedOut.number()
}

/// The server's memory, and what the kernel keeps of its replies.
struct Memory<'a> {
    server: &'a Server,
    before: u64,
    most: AtomicU64,
    most_unread: AtomicU64,
}

impl Memory<'_> {
    fn of(server: &Server) -> Result<Memory<'_>, Failure> {
        let before = server.memory()?;
        Ok(Memory {
            server,
            before,
            most: AtomicU64::new(before),
            most_unread: AtomicU64::new(0),
        })
    }

    /// Looks at it again and again while `work` is being done.
    fn watched<R>(&self, work: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
        std::thread::scope(|scope| {
            // Hung up when the work is done, however it ends.
            let (working, done) = std::sync::mpsc::channel::<()>();
            let watching = scope.spawn(move || -> Result<(), Failure> {
                loop {
                    self.most.fetch_max(self.server.memory()?, Ordering::Relaxed);
                    self.most_unread
                        .fetch_max(unread(self.server.address())?, Ordering::Relaxed);
                    if done.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
                        return Ok(());
                    }
                }
            });
            let worked = work();
            drop(working);
            watching.join().expect("it does not panic")?;
            worked
        })
    }
}

/// Bytes that the server has sent on its connections and its clients have not read: what of that the kernel keeps on the
/// server's side.
fn unread(server: &str) -> Result<u64, Failure> {
    let (_, port) = server
        .rsplit_once(':')
        .ok_or("the server's address has no port")?;
    let port = format!(":{:04X}", port.parse::<u16>()?);
    let mut sum = 0;
    // local_address is the second word of a line, tx_queue:rx_queue the fifth.
    for line in std::fs::read_to_string("/proc/net/tcp")?.lines() {
        let mut words = line.split_whitespace().skip(1);
        if let (Some(local), Some(queues)) = (words.next(), words.nth(2))
            && local.ends_with(&port)
            && let Some((sent, _)) = queues.split_once(':')
        {
            sum += u64::from_str_radix(sent, 16)?;
        }
    }
    Ok(sum)
}

const PERCENTILES: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("p99.9", 99.9)];

fn row(measured: &Measured) -> String {
    let latencies = PERCENTILES.map(|(_, percentile)| format!("{:.0}", measured.latency_us(percentile)));
    format!("{:>8.0}  {:>22}", measured.per_second(), latencies.join(", "))
}

/// Tells what came of it.
fn tell(
    args: &SlowlorisArgs,
    rounds: &[(Measured, Measured)],
    memory: &Memory<'_>,
    shared: &Shared,
) -> Result<Value, Failure> {
    let figure = |of: &dyn Fn(&Measured) -> f64| -> (Value, OverRounds) {
        let pairs: Vec<_> = rounds
            .iter()
            .map(|(calm, attacked)| (of(attacked), of(calm)))
            .collect();
        let ratio = OverRounds::of_ratios(&pairs);
        let figures = json!({
            "calm": OverRounds::of(pairs.iter().map(|pair| pair.1)).to_json(),
            "attack": OverRounds::of(pairs.iter().map(|pair| pair.0)).to_json(),
            "ratio": ratio.to_json(),
        });
        (figures, ratio)
    };
    let mut figures = json!({
        "connections": args.connections, "honest": args.honest, "rounds": args.rounds, "seconds": args.duration.as_secs_f64(),
    });
    let (per_second, ratio) = figure(&Measured::per_second);
    figures["per_second"] = per_second;
    println!("honest answers/s under attack \u{f7} calm: {ratio}");
    for (name, percentile) in PERCENTILES {
        let (latency, ratio) = figure(&|measured| measured.latency_us(percentile));
        figures[format!("{}_us", name.replace('.', ""))] = latency;
        println!("honest {name} under attack \u{f7} calm: {ratio}");
    }

    println!(
        "{:<15}  {:>6}  {:>7}  {:>8}  longest stay (deadline)",
        "attackers", "came", "put out", "told why"
    );
    let tallies = *shared.tallies.lock().unwrap_or_else(PoisonError::into_inner);
    for (kind, tally) in KINDS.into_iter().zip(tallies) {
        println!(
            "{kind:<15}  {:>6}  {:>7}  {:>8}  {:.1} s ({} s)",
            tally.came,
            tally.put_out,
            tally.told_why,
            tally.longest.as_secs_f64(),
            kind.deadline().as_secs()
        );
        figures[kind.to_string().replace(' ', "_")] = json!({
            "came": tally.came, "put_out": tally.put_out, "told_why": tally.told_why,
            "longest_stay_s": tally.longest.as_secs_f64(),
        });
    }
    let connections = u64::from(args.connections + args.honest);
    let (most, unread) = (
        memory.most.load(Ordering::Relaxed),
        memory.most_unread.load(Ordering::Relaxed),
    );
    let bound = memory.before + OTHER_MEMORY + connections * MEMORY_OF_A_CONNECTION;
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "the server's memory: {:.1} MiB before, {:.1} MiB at most (the bound is {:.0}); unread replies in the kernel: {:.1} MiB at most",
        mebibytes(memory.before),
        mebibytes(most),
        mebibytes(bound),
        mebibytes(unread)
    );
    let unread_bound = connections * 2 * SOCKET_SEND_BYTES as u64;
    figures["memory"] = json!({
        "before": memory.before, "most": most, "bound": bound, "most_unread": unread, "unread_bound": unread_bound,
    });
    if unread > unread_bound {
        return Err(format!(
            "the kernel kept {unread} bytes of unread replies, and for {connections} connections it may keep {unread_bound}"
        )
        .into());
    }
    if most > bound {
        return Err(
            format!("the server took {most} bytes of memory, and {bound} are what it may have").into(),
        );
    }
    Ok(figures)
}
