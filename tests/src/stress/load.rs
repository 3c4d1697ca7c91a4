//! A closed loop: each connection asks, waits for the answers, and asks again.

use std::collections::HashMap;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bank_core::TxnId;
use bank_core::limits::MAX_REPLY_BYTES;
use bank_core::protocol::{
    ErrorCode, FrameError, Greeting, Hello, MAGIC, Proof, Reply, ReplyBody, Request, RequestBody, Secret,
    VERSION, decode, encode, split,
};
use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

/// What is asked for, by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Work, u32)>);

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A deposit of a small sum.
    Deposit,
    /// A withdrawal of a small sum.
    Withdraw,
    /// A transfer of a small sum to another account of the load.
    Transfer,
    /// The balance.
    Balance,
}

impl Mix {
    /// One kind of request only.
    pub fn only(work: Work) -> Mix {
        Mix(vec![(work, 1)])
    }

    /// Deposits and withdrawals, half and half.
    pub fn cash() -> Mix {
        Mix(vec![(Work::Deposit, 1), (Work::Withdraw, 1)])
    }

    fn pick(&self, random: &mut StdRng) -> Work {
        let total = self.0.iter().map(|(_, weight)| weight).sum();
        let mut left = random.random_range(0..total);
        for &(work, weight) in &self.0 {
            if left < weight {
                return work;
            }
            left -= weight;
        }
        unreachable!("the weights add up to their total")
    }
}

impl FromStr for Mix {
    type Err = String;

    /// Reads `deposit=50,withdraw=50`; a name without a weight has weight 1.
    fn from_str(text: &str) -> Result<Mix, String> {
        let parse = |part: &str| {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let work = match name {
                "deposit" => Work::Deposit,
                "withdraw" => Work::Withdraw,
                "transfer" => Work::Transfer,
                "balance" => Work::Balance,
                _ => {
                    return Err(format!(
                        "\"{name}\" is none of deposit, withdraw, transfer, balance"
                    ));
                }
            };
            let weight = weight
                .parse()
                .ok()
                .filter(|weight| (1..=1_000_000).contains(weight));
            Ok((
                work,
                weight.ok_or_else(|| format!("\"{part}\": a weight is a whole number from 1 on"))?,
            ))
        };
        text.split(',').map(parse).collect::<Result<_, _>>().map(Mix)
    }
}

/// Which accounts the connections use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Each connection has an account of its own, chosen at random; connections beyond the accounts share.
    Uniform,
    /// All connections use one account.
    Hot,
}

/// What load to make.
#[derive(Clone, Debug)]
pub struct Load {
    /// Connections at once.
    pub connections: usize,
    /// Requests that a connection sends before it waits for their answers.
    pub pipeline: usize,
    /// How long.
    pub duration: Duration,
    /// What is asked for.
    pub mix: Mix,
    /// Which accounts are used.
    pub spread: Spread,
    /// The bank has accounts 1 to this, as `atm-server generate` makes them. 0: there is no bank behind the
    /// server, only an echo.
    pub accounts: u64,
    /// For the choices made at random.
    pub seed: u64,
}

impl Load {
    /// Deposits and withdrawals by so many connections, one outstanding each, over accounts chosen at random. What is
    /// to be otherwise is said by struct update.
    pub fn new(connections: usize, accounts: u64, duration: Duration) -> Load {
        Load {
            connections,
            pipeline: 1,
            duration,
            mix: Mix::cash(),
            spread: Spread::Uniform,
            accounts,
            seed: 0,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Measured {
    /// Answers.
    pub answers: u64,
    /// Answers that declined, or refused an id that was overtaken by too many others on its way.
    pub declined: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// From sending a request to having read its answer, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Accounts whose balance is not what it was plus what was approved: (account, expected, found).
    pub not_conserved: Vec<(u64, i64, i64)>,
}

impl Measured {
    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    /// A percentile of the latency, in microseconds.
    pub fn latency_us(&self, percentile: f64) -> f64 {
        self.latency.value_at_percentile(percentile) as f64 / 1000.0
    }
}

/// Why a load could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A connection broke or could not be made.
    #[error("a connection to the server: {0}")]
    Io(#[from] io::Error),
    /// The server does not speak the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The server refused something.
    #[error(
        "{doing}: {message} (the load needs a bank of \"atm-server generate\" with at least --cards accounts)"
    )]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// What the server said.
        message: String,
    },
    /// An answer was not one to what was asked.
    #[error("the server answered something that was not asked: {0}")]
    Unexpected(String),
}

/// What one connection did.
struct Done {
    answers: u64,
    declined: u64,
    latency: Histogram<u64>,
    /// What was approved, by account.
    moved: HashMap<u64, i64>,
    started: Instant,
    ended: Instant,
}

/// Makes the load, and counts answers into `progress` while it lasts.
///
/// Balances are read before the first request and after the last answer: if no other client uses these
/// accounts meanwhile, each must have changed by exactly what was approved.
///
/// # Errors
/// [`LoadError`].
pub async fn make(server: &str, load: &Load, progress: Arc<AtomicU64>) -> Result<Measured, LoadError> {
    let mut random = StdRng::seed_from_u64(load.seed);
    let accounts: Arc<Vec<u64>> = Arc::new(
        (0..load.connections)
            .map(|_| match load.spread {
                _ if load.accounts == 0 => 0,
                Spread::Uniform => random.random_range(1..=load.accounts),
                Spread::Hot => 1,
            })
            .collect(),
    );
    let mut connections = Vec::new();
    for &account in accounts.iter() {
        connections.push(Connection::open(server, account).await?);
    }
    let mut before = HashMap::new();
    if load.accounts > 0 {
        for (connection, &account) in connections.iter_mut().zip(accounts.iter()) {
            if let std::collections::hash_map::Entry::Vacant(vacant) = before.entry(account) {
                vacant.insert(connection.balance().await?);
            }
        }
    }
    let together = Arc::new(Barrier::new(load.connections));
    let tasks: Vec<_> = connections
        .into_iter()
        .zip(accounts.iter())
        .enumerate()
        .map(|(n, (connection, &account))| {
            let (load, accounts, progress) = (load.clone(), Arc::clone(&accounts), Arc::clone(&progress));
            let random = StdRng::seed_from_u64(load.seed.wrapping_add(1 + n as u64));
            let together = Arc::clone(&together);
            tokio::spawn(async move {
                together.wait().await;
                connection
                    .work(&load, account, &accounts, random, &progress)
                    .await
            })
        })
        .collect();
    let mut measured = Measured {
        answers: 0,
        declined: 0,
        elapsed: Duration::ZERO,
        latency: new_histogram(),
        not_conserved: Vec::new(),
    };
    let (mut started, mut ended) = (None, None);
    let mut moved: HashMap<u64, i64> = HashMap::new();
    let mut idle = HashMap::new();
    for (task, &account) in tasks.into_iter().zip(accounts.iter()) {
        let (done, connection) = task.await.expect("a connection's task does not panic")?;
        measured.answers += done.answers;
        measured.declined += done.declined;
        measured
            .latency
            .add(&done.latency)
            .expect("all histograms have one range");
        done.moved
            .into_iter()
            .for_each(|(account, sum)| *moved.entry(account).or_default() += sum);
        started = started.into_iter().chain([done.started]).min();
        ended = ended.into_iter().chain([done.ended]).max();
        idle.insert(account, connection);
    }
    measured.elapsed = started
        .zip(ended)
        .map_or(Duration::ZERO, |(started, ended)| ended - started);
    for (account, before) in before {
        let expected = before + moved.get(&account).copied().unwrap_or(0);
        let found = idle
            .get_mut(&account)
            .expect("every account has its connection")
            .balance()
            .await?;
        if found != expected {
            measured.not_conserved.push((account, expected, found));
        }
    }
    Ok(measured)
}

fn new_histogram() -> Histogram<u64> {
    const LONGEST: Duration = Duration::from_mins(1);
    Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, 3).expect("a minute in nanoseconds is a range")
}

/// One connection of the load.
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    taken: usize,
    out: Vec<u8>,
}

impl Connection {
    async fn open(server: &str, account: u64) -> Result<Connection, LoadError> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut connection = Connection {
            stream,
            received: Vec::with_capacity(4096),
            taken: 0,
            out: Vec::new(),
        };
        encode(
            &Hello {
                magic: MAGIC,
                version: VERSION,
                terminal: "STRESS",
                proof: Proof::None,
            },
            &mut connection.out,
        );
        connection.send().await?;
        match decode(connection.next_body().await?)? {
            Greeting::Welcome { .. } => {}
            Greeting::Refused { message, .. } => {
                return Err(LoadError::Refused {
                    doing: "connecting",
                    message: message.to_owned(),
                });
            }
        }
        if account > 0 {
            let (card, pin) = (account.to_string(), format!("{:04}", account % 10_000));
            let body = RequestBody::Login {
                card: &card,
                pin: Secret(&pin),
            };
            encode(&Request { id: 1, body }, &mut connection.out);
            connection.send().await?;
            match decode::<Reply<'_>>(connection.next_body().await?)?.body {
                ReplyBody::LoggedIn { .. } => {}
                other => return Err(refused("logging in", &other)),
            }
        }
        Ok(connection)
    }

    async fn balance(&mut self) -> Result<i64, LoadError> {
        encode(
            &Request {
                id: 1,
                body: RequestBody::Balance,
            },
            &mut self.out,
        );
        self.send().await?;
        match decode::<Reply<'_>>(self.next_body().await?)?.body {
            ReplyBody::Balance { balance, .. } => Ok(balance),
            other => Err(refused("reading a balance", &other)),
        }
    }

    async fn work(
        mut self,
        load: &Load,
        account: u64,
        accounts: &[u64],
        mut random: StdRng,
        progress: &AtomicU64,
    ) -> Result<(Done, Connection), LoadError> {
        let started = Instant::now();
        let mut done = Done {
            answers: 0,
            declined: 0,
            latency: new_histogram(),
            moved: HashMap::new(),
            started,
            ended: started,
        };
        let mut payees = vec![0; load.pipeline];
        while done.ended - started < load.duration {
            for (n, payee) in payees.iter_mut().enumerate() {
                *payee = self.ask(request_id(n), load.mix.pick(&mut random), accounts, &mut random);
            }
            let sent = Instant::now();
            self.send().await?;
            for (n, &payee) in payees.iter().enumerate() {
                let reply: Reply<'_> = decode(self.next_body().await?)?;
                if reply.id != request_id(n) {
                    return Err(LoadError::Unexpected(format!("{reply:?}")));
                }
                match reply.body {
                    ReplyBody::Approved(receipt) => {
                        *done.moved.entry(account).or_default() += receipt.amount;
                        if payee != 0 {
                            *done.moved.entry(payee).or_default() -= receipt.amount;
                        }
                    }
                    ReplyBody::Declined { .. } | ReplyBody::StaleId { .. } => done.declined += 1,
                    ReplyBody::Balance { .. } => {}
                    other => return Err(refused("working", &other)),
                }
                done.ended = Instant::now();
                done.latency
                    .saturating_record((done.ended - sent).as_nanos() as u64);
            }
            done.answers += load.pipeline as u64;
            progress.fetch_add(load.pipeline as u64, Ordering::Relaxed);
        }
        Ok((done, self))
    }

    /// Adds a request to what is to be sent. Gives the payee, if it has one.
    fn ask(&mut self, id: u32, work: Work, accounts: &[u64], random: &mut StdRng) -> u64 {
        let amount = random.random_range(1..=100);
        let txn_id = TxnId::generate().to_bytes();
        let mut payee = 0;
        let body = match work {
            Work::Deposit => RequestBody::Deposit { txn_id, amount },
            Work::Withdraw => RequestBody::Withdraw { txn_id, amount },
            Work::Balance => RequestBody::Balance,
            Work::Transfer => {
                payee = accounts[random.random_range(0..accounts.len())];
                RequestBody::Transfer {
                    txn_id,
                    to: payee,
                    amount,
                }
            }
        };
        encode(&Request { id, body }, &mut self.out);
        payee
    }

    async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Waits for a whole frame and gives its body.
    async fn next_body(&mut self) -> Result<&[u8], LoadError> {
        let used = loop {
            if let Some((_, used)) = split(&self.received[self.taken..], MAX_REPLY_BYTES)? {
                break used;
            }
            self.received.drain(..self.taken);
            self.taken = 0;
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        let frame = self.taken..self.taken + used;
        self.taken = frame.end;
        Ok(&self.received[frame][bank_core::limits::FRAME_HEADER_BYTES..])
    }
}

/// Ids of one byte, so that the echo server need not understand them.
fn request_id(n: usize) -> u32 {
    1 + (n % 100) as u32
}

fn refused(doing: &'static str, body: &ReplyBody<'_>) -> LoadError {
    match body {
        ReplyBody::Error { code, message } => {
            let name = ErrorCode::from_number(*code).map_or("an unknown code", ErrorCode::name);
            LoadError::Refused {
                doing,
                message: format!("{message} ({name})"),
            }
        }
        other => LoadError::Unexpected(format!("{other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_read_and_picked_by_weight() {
        let mix: Mix = "deposit=1,balance=3".parse().unwrap();
        let mut random = StdRng::seed_from_u64(1);
        let balances = (0..4000)
            .filter(|_| mix.pick(&mut random) == Work::Balance)
            .count();
        assert!((2900..3100).contains(&balances), "{balances} of 4000");
        assert_eq!("transfer".parse(), Ok(Mix::only(Work::Transfer)));
        for bad in ["", "fly", "deposit=0", "deposit=-1", "deposit=x", "deposit,,"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad:?}");
        }
    }
}
