//! A load on a server, and what it took.
//!
//! In a closed loop each connection asks, waits for the answers, and asks again: it tells how much a server can do, but a server
//! that stalls is asked less. In an open loop requests are due at times that do not depend on the server (`arrivals`), and
//! a connection goes on sending while answers are outstanding. Latency counts from when a request was due, so whatever
//! makes it late is in its latency: the server, the connection, and also this generator. How late
//! requests were sent is therefore recorded, too: it is the most by which the generator can have spoilt a latency.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bank_core::TxnId;
use bank_core::limits::{FRAME_HEADER_BYTES, MAX_REPLY_BYTES};
use bank_core::protocol::{
    ErrorCode, FrameError, Greeting, Hello, MAGIC, Proof, Reply, ReplyBody, Request, RequestBody, Secret,
    VERSION, decode, encode, split,
};
use hdrhistogram::Histogram;
use rand::distr::Distribution;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use rand_distr::Zipf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, timeout_at};

use super::arrivals::{Arrivals, Timer};
use super::recorder::{Recorded, Recorder};

/// How many requests a connection of an open loop may have unanswered. What is due beyond waits; its latency does not.
pub const MOST_OUTSTANDING: usize = 1024;

/// How long after its end a load waits for the last answers.
const PATIENCE: Duration = Duration::from_mins(1);

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

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (work, weight)) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{}={weight}", format!("{work:?}").to_lowercase())?;
        }
        Ok(())
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

/// Which accounts the connections use. A connection picks its account once, since it is logged in to one card. A
/// transfer goes to the account of another connection, picked anew each time, and so to accounts of the same law.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Each connection picks from all accounts alike.
    Uniform,
    /// Each connection picks by Zipf's law with this exponent, which is not below 0: account `k` has a weight of
    /// `1 / k^exponent`.
    Zipf(f64),
    /// All connections use account 1. Their transfers have nobody to go to, and are declined.
    Hot,
}

impl Spread {
    /// An account for each connection, of the accounts 1 to `accounts`.
    fn pick(self, connections: usize, accounts: u64, random: &mut StdRng) -> Vec<u64> {
        let pick = |_| match self {
            _ if accounts == 0 => 0,
            Spread::Uniform => random.random_range(1..=accounts),
            Spread::Zipf(exponent) => Zipf::new(accounts as f64, exponent)
                .expect("an exponent is not below 0")
                .sample(random) as u64,
            Spread::Hot => 1,
        };
        (0..connections).map(pick).collect()
    }
}

/// Whom transfers pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payees {
    /// The accounts of other connections, so that they are picked by the same law.
    Sessions,
    /// Any of the bank's accounts, chosen at random: the way to reach all of them, since a session keeps its own.
    All,
}

/// What load to make.
#[derive(Clone, Debug)]
pub struct Load {
    /// Connections at once.
    pub connections: usize,
    /// Requests that a connection of a closed loop sends before it waits for their answers.
    pub pipeline: usize,
    /// Requests a second over all connections, in an open loop. None: a closed loop.
    pub rate: Option<f64>,
    /// How long the load is made before anything counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub duration: Duration,
    /// What is asked for.
    pub mix: Mix,
    /// Which accounts are used.
    pub spread: Spread,
    /// Whom transfers pay.
    pub payees: Payees,
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
            rate: None,
            warm_up: Duration::ZERO,
            duration,
            mix: Mix::cash(),
            spread: Spread::Uniform,
            payees: Payees::Sessions,
            accounts,
            seed: 0,
        }
    }
}

/// What came of it. What was asked in the warm-up counts in nothing but the conservation of money.
#[derive(Debug)]
pub struct Measured {
    /// Answers.
    pub answers: u64,
    /// Answers that declined, or refused an id that was overtaken by too many others on its way.
    pub declined: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// In a closed loop from sending a request to having read its answer, in an open loop from when the request was
    /// due; in nanoseconds.
    pub latency: Histogram<u64>,
    /// How it went over time, in steps of a second, or shorter ones if all of it was short.
    pub steps: Vec<Step>,
    /// What an open loop tells besides.
    pub open: Option<Open>,
    /// Accounts whose balance is not what it was plus what was approved: (account, expected, found).
    pub not_conserved: Vec<(u64, i64, i64)>,
}

/// What an open loop tells besides.
#[derive(Debug)]
pub struct Open {
    /// Requests a second that were due in the time that counts.
    pub offered: f64,
    /// Requests that were due in that time and not sent by its end, since [`MOST_OUTSTANDING`] of their connection were
    /// unanswered. No latency counts for them.
    pub unsent: u64,
    /// From when a request was due to its sending, in nanoseconds.
    pub lateness: Histogram<u64>,
}

/// A stretch of a load.
#[derive(Clone, Debug)]
pub struct Step {
    /// Where it began, counted from the load's beginning, warm-up included.
    pub from: Duration,
    /// Where it ended.
    pub to: Duration,
    /// Whether it began in the warm-up, so that it tells no latencies.
    pub warming_up: bool,
    /// All answers that came in it.
    pub answers: u64,
    /// Percentiles of the latency in it, in microseconds.
    pub p50_us: f64,
    /// See `p50_us`.
    pub p99_us: f64,
    /// See `p50_us`.
    pub p999_us: f64,
}

impl Measured {
    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        self.answers as f64 / self.elapsed.max(Duration::from_nanos(1)).as_secs_f64()
    }

    /// Itself, if the money is all there.
    ///
    /// # Errors
    /// [`LoadError::NotConserved`].
    pub fn conserved(self) -> Result<Measured, LoadError> {
        if self.not_conserved.is_empty() {
            Ok(self)
        } else {
            Err(LoadError::NotConserved(self.not_conserved))
        }
    }

    /// A percentile of the latency, in microseconds.
    pub fn latency_us(&self, percentile: f64) -> f64 {
        us(&self.latency, percentile)
    }
}

impl Step {
    /// Answers a second.
    pub fn per_second(&self) -> f64 {
        self.answers as f64 / (self.to - self.from).as_secs_f64()
    }
}

/// A percentile of a histogram of nanoseconds, in microseconds.
pub(super) fn us(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1000.0
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
    /// Money was lost, or came from elsewhere.
    #[error("money is not conserved (account, expected, found): {0:?}")]
    NotConserved(Vec<(u64, i64, i64)>),
    /// Some answers never came.
    #[error(
        "some requests are not answered {} seconds after the load's end; look at the server's log",
        PATIENCE.as_secs()
    )]
    Unanswered,
    /// An answer was not one to what was asked.
    #[error("the server answered something that was not asked: {0}")]
    Unexpected(String),
}

/// What one connection did.
struct Done {
    declined: u64,
    /// What was approved on its own account.
    own: i64,
    /// What was approved, by payee.
    paid: HashMap<u64, i64>,
    unsent: u64,
    started: Instant,
    /// When the last answer came.
    ended: Instant,
}

impl Done {
    fn new(started: Instant) -> Done {
        Done {
            declined: 0,
            own: 0,
            paid: HashMap::new(),
            unsent: 0,
            started,
            ended: started,
        }
    }

    /// Takes the answer to the request `id` into account.
    fn take(&mut self, body: &[u8], id: u32, payee: u64, counts: bool) -> Result<(), LoadError> {
        let reply: Reply<'_> = decode(body)?;
        if reply.id != id {
            return Err(LoadError::Unexpected(format!("{reply:?}")));
        }
        match reply.body {
            ReplyBody::Approved(receipt) => {
                self.own += receipt.amount;
                if payee != 0 {
                    *self.paid.entry(payee).or_default() -= receipt.amount;
                }
            }
            ReplyBody::Declined { .. } | ReplyBody::StaleId { .. } => self.declined += u64::from(counts),
            ReplyBody::Balance { .. } => {}
            other => return Err(refused("working", &other)),
        }
        Ok(())
    }
}

/// Makes the load.
///
/// Balances are read before the first request and after the last answer: if no other client uses these
/// accounts meanwhile, each must have changed by exactly what was approved.
///
/// # Errors
/// [`LoadError`].
pub async fn make(server: &str, load: &Load) -> Result<Measured, LoadError> {
    watch(server, load, |_, _| {}).await
}

/// Makes the load as [`make`] does, and shows each step when it is over, with its latencies in nanoseconds. In
/// the warm-up there are none.
///
/// # Errors
/// [`LoadError`].
pub async fn watch(
    server: &str,
    load: &Load,
    mut on_step: impl FnMut(&Step, &Histogram<u64>),
) -> Result<Measured, LoadError> {
    let mut random = StdRng::seed_from_u64(load.seed);
    let accounts = Arc::new(load.spread.pick(load.connections, load.accounts, &mut random));
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
    let recorder = Arc::new(Recorder::new());
    let together = Arc::new(Barrier::new(load.connections + 1));
    let mut tasks = JoinSet::new();
    for (n, mut connection) in connections.into_iter().enumerate() {
        let (load, accounts, recorder) = (load.clone(), Arc::clone(&accounts), Arc::clone(&recorder));
        let together = Arc::clone(&together);
        tasks.spawn(async move {
            let seed = load.seed.wrapping_add(1 + n as u64);
            let mut work = Working {
                account: accounts[n],
                accounts: &accounts,
                random: StdRng::seed_from_u64(seed),
                recorder: &recorder,
                load: &load,
            };
            together.wait().await;
            let done = match load.rate {
                None => connection.work(&mut work).await?,
                Some(rate) => {
                    // Other random numbers than those for the choices, so that these do not shift the arrivals.
                    let arrivals = Arrivals::new(rate / load.connections as f64, !seed);
                    connection.work_as_due(&mut work, arrivals).await?
                }
            };
            Ok::<_, LoadError>((work.account, done, connection))
        });
    }

    together.wait().await;
    let started = Instant::now();
    let deadline = started + load.warm_up + load.duration + PATIENCE;
    let mut steps = Steps::new(load, &recorder, started);
    let mut tick = interval_at((started + steps.length).into(), steps.length);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut all: Vec<Done> = Vec::new();
    let mut idle = HashMap::new();
    let mut moved: HashMap<u64, i64> = HashMap::new();
    loop {
        tokio::select! {
            joined = timeout_at(deadline.into(), tasks.join_next()) => {
                let Some(joined) = joined.map_err(|_| LoadError::Unanswered)? else {
                    break;
                };
                let (account, done, connection) = joined.expect("a connection's task does not panic")?;
                *moved.entry(account).or_default() += done.own;
                for (&payee, &sum) in &done.paid {
                    *moved.entry(payee).or_default() += sum;
                }
                idle.insert(account, connection);
                all.push(done);
            }
            _ = tick.tick() => steps.step(&mut on_step),
        }
    }
    steps.step(&mut on_step);
    let Steps { sum, steps, .. } = steps;

    let mut not_conserved = Vec::new();
    for (account, before) in before {
        let expected = before + moved.get(&account).copied().unwrap_or(0);
        let found = idle
            .get_mut(&account)
            .expect("every account has its connection")
            .balance()
            .await?;
        if found != expected {
            not_conserved.push((account, expected, found));
        }
    }
    let first = all.iter().map(|done| done.started + load.warm_up).min();
    let last = all.iter().map(|done| done.ended).max();
    let unsent = all.iter().map(|done| done.unsent).sum();
    Ok(Measured {
        answers: sum.latency.len(),
        declined: all.iter().map(|done| done.declined).sum(),
        elapsed: first.zip(last).map_or(Duration::ZERO, |(first, last)| {
            last.saturating_duration_since(first)
        }),
        open: load.rate.map(|_| Open {
            offered: (sum.lateness.len() + unsent) as f64 / load.duration.as_secs_f64(),
            unsent,
            lateness: sum.lateness,
        }),
        latency: sum.latency,
        steps,
        not_conserved,
    })
}

/// Looks at what is recorded, step by step.
struct Steps<'a> {
    recorder: &'a Recorder,
    started: Instant,
    warm_up: Duration,
    length: Duration,
    /// What is recorded in a step, the sum of all of them, and one for exchange.
    step: Recorded,
    sum: Recorded,
    spare: Recorded,
    last: Duration,
    steps: Vec<Step>,
}

impl<'a> Steps<'a> {
    fn new(load: &Load, recorder: &'a Recorder, started: Instant) -> Steps<'a> {
        /// A short load is looked at more often, so that there is something to see.
        const AT_LEAST: u32 = 50;
        const SHORTEST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(1);
        Steps {
            recorder,
            started,
            warm_up: load.warm_up,
            length: (load.duration / AT_LEAST).clamp(SHORTEST, LONGEST),
            step: Recorded::new(),
            sum: Recorded::new(),
            spare: Recorded::new(),
            last: Duration::ZERO,
            steps: Vec::new(),
        }
    }

    fn step(&mut self, on_step: &mut impl FnMut(&Step, &Histogram<u64>)) {
        let (from, to) = (self.last, self.started.elapsed());
        self.step.clear();
        self.recorder.take(&mut self.step, &mut self.spare);
        self.sum.add(&self.step);
        let latency = &self.step.latency;
        let step = Step {
            warming_up: from < self.warm_up,
            from,
            to,
            answers: self.step.answers(),
            p50_us: us(latency, 50.0),
            p99_us: us(latency, 99.0),
            p999_us: us(latency, 99.9),
        };
        on_step(&step, latency);
        // The end of the last one may leave a stretch too short for a rate.
        if !step.warming_up && (to - from >= self.length / 2 || self.steps.is_empty()) {
            self.steps.push(step);
        }
        self.last = to;
    }
}

/// What a connection works with.
struct Working<'a> {
    /// The account that it is logged in to.
    account: u64,
    /// Those of all connections.
    accounts: &'a [u64],
    random: StdRng,
    recorder: &'a Recorder,
    load: &'a Load,
}

impl Working<'_> {
    /// Picks a request and adds it to what is to be sent. Gives the payee, if it has one whose balance is looked at in the
    /// end, and else 0.
    fn ask(&mut self, id: u32, out: &mut Vec<u8>) -> u64 {
        let work = self.load.mix.pick(&mut self.random);
        let amount = self.random.random_range(1..=100);
        let txn_id = TxnId::generate().to_bytes();
        let mut payee = 0;
        let body = match work {
            Work::Deposit => RequestBody::Deposit { txn_id, amount },
            Work::Withdraw => RequestBody::Withdraw { txn_id, amount },
            Work::Balance => RequestBody::Balance,
            Work::Transfer => {
                let to = self.payee();
                payee = to;
                if self.load.payees == Payees::All && !self.accounts.contains(&to) {
                    payee = 0;
                }
                RequestBody::Transfer { txn_id, to, amount }
            }
        };
        encode(&Request { id, body }, out);
        payee
    }

    /// The account of another connection, unless (nearly) all have the same; or any account.
    fn payee(&mut self) -> u64 {
        if self.load.payees == Payees::All {
            return self.random.random_range(1..=self.load.accounts);
        }
        const TRIES: usize = 16;
        (0..TRIES)
            .map(|_| self.accounts[self.random.random_range(0..self.accounts.len())])
            .find(|&payee| payee != self.account)
            .unwrap_or(self.account)
    }

    fn answered(&self, latency: Duration, counts: bool) {
        self.recorder.record(|place| {
            if counts {
                place.latency.saturating_record(latency.as_nanos() as u64);
            } else {
                place.uncounted += 1;
            }
        });
    }
}

/// One connection of the load, or of an attacker who speaks the protocol.
pub(super) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    taken: usize,
    out: Vec<u8>,
}

impl Connection {
    async fn open(server: &str, account: u64) -> Result<Connection, LoadError> {
        let mut connection = Connection::introduce(TcpStream::connect(server).await?).await?;
        if account > 0 {
            let (card, pin) = (account.to_string(), format!("{:04}", account % 10_000));
            connection.log_in(&card, &pin).await?;
        }
        Ok(connection)
    }

    /// Introduces itself as a terminal.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) async fn introduce(stream: TcpStream) -> Result<Connection, LoadError> {
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
            Greeting::Welcome { .. } => Ok(connection),
            Greeting::Refused { message, .. } => Err(LoadError::Refused {
                doing: "connecting",
                message: message.to_owned(),
            }),
        }
    }

    /// Shows a card and its PIN.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) async fn log_in(&mut self, card: &str, pin: &str) -> Result<(), LoadError> {
        let pin = Secret(pin);
        match decode::<Reply<'_>>(self.ask(RequestBody::Login { card, pin }).await?)?.body {
            ReplyBody::LoggedIn { .. } => Ok(()),
            other => Err(refused("logging in", &other)),
        }
    }

    /// Asks, and gives the answer's body.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(super) async fn ask(&mut self, body: RequestBody<'_>) -> Result<&[u8], LoadError> {
        encode(&Request { id: 1, body }, &mut self.out);
        self.send().await?;
        self.next_body().await
    }

    /// The stream, for who wants to speak no protocol from here on.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    async fn balance(&mut self) -> Result<i64, LoadError> {
        match decode::<Reply<'_>>(self.ask(RequestBody::Balance).await?)?.body {
            ReplyBody::Balance { balance, .. } => Ok(balance),
            other => Err(refused("reading a balance", &other)),
        }
    }

    /// A closed loop.
    async fn work(&mut self, work: &mut Working<'_>) -> Result<Done, LoadError> {
        let mut done = Done::new(Instant::now());
        let load = work.load;
        let mut payees = vec![0; load.pipeline];
        while done.ended - done.started < load.warm_up + load.duration {
            for (n, payee) in payees.iter_mut().enumerate() {
                *payee = work.ask(request_id(n), &mut self.out);
            }
            let sent = Instant::now();
            let counts = sent - done.started >= load.warm_up;
            self.send().await?;
            for (n, &payee) in payees.iter().enumerate() {
                done.take(self.next_body().await?, request_id(n), payee, counts)?;
                done.ended = Instant::now();
                work.answered(done.ended - sent, counts);
            }
        }
        Ok(done)
    }

    /// An open loop.
    async fn work_as_due(
        &mut self,
        work: &mut Working<'_>,
        mut arrivals: Arrivals,
    ) -> Result<Done, LoadError> {
        let mut done = Done::new(Instant::now());
        let started = done.started;
        let warm_up = work.load.warm_up;
        let end = warm_up + work.load.duration;
        let mut timer = Timer::new()?;
        // When it was due, its id, its payee. Answers come in the order of requests.
        let mut outstanding: VecDeque<(Duration, u32, u64)> = VecDeque::new();
        let mut asked = 0;
        let mut over = false;
        loop {
            let now = started.elapsed();
            while !over && arrivals.next() < end.min(now) && outstanding.len() < MOST_OUTSTANDING {
                let (due, id) = (arrivals.next(), request_id(asked));
                let payee = work.ask(id, &mut self.out);
                if due >= warm_up {
                    let late = (now - due).as_nanos() as u64;
                    work.recorder
                        .record(|place| place.lateness.saturating_record(late));
                }
                outstanding.push_back((due, id, payee));
                asked += 1;
                arrivals.advance();
            }
            // What was due and still had room was sent just now, so what is left is what the bound kept back.
            over = now >= end;
            if over && outstanding.is_empty() {
                break;
            }
            let full = outstanding.len() == MOST_OUTSTANDING;
            let wake = if full { end } else { arrivals.next().min(end) };
            let (mut reader, mut writer) = self.stream.split();
            tokio::select! {
                biased;
                written = writer.write(&self.out), if !self.out.is_empty() => {
                    self.out.drain(..written?);
                }
                read = reader.read_buf(&mut self.received) => {
                    if read? == 0 {
                        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                    }
                    done.ended = Instant::now();
                    while let Some(body) = self.received_frame()? {
                        let (due, id, payee) = outstanding
                            .pop_front()
                            .ok_or_else(|| LoadError::Unexpected("an answer to nothing".to_owned()))?;
                        done.take(&self.received[body], id, payee, due >= warm_up)?;
                        work.answered(done.ended - (started + due), due >= warm_up);
                    }
                }
                woken = timer.wait_until(started + wake), if !over => woken?,
            }
        }
        while arrivals.next() < end {
            done.unsent += u64::from(arrivals.next() >= warm_up);
            arrivals.advance();
        }
        Ok(done)
    }

    async fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Waits for a whole frame and gives its body.
    async fn next_body(&mut self) -> Result<&[u8], LoadError> {
        let body = loop {
            if let Some(body) = self.received_frame()? {
                break body;
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        };
        Ok(&self.received[body])
    }

    /// Where in `received` the body of the next frame is. None: it is not there as a whole, and there is room for more.
    fn received_frame(&mut self) -> Result<Option<Range<usize>>, FrameError> {
        if let Some((_, used)) = split(&self.received[self.taken..], MAX_REPLY_BYTES)? {
            let frame = self.taken..self.taken + used;
            self.taken = frame.end;
            return Ok(Some(frame.start + FRAME_HEADER_BYTES..frame.end));
        }
        self.received.drain(..self.taken);
        self.taken = 0;
        Ok(None)
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
        assert_eq!(mix.to_string(), "deposit=1,balance=3");
    }

    #[test]
    fn accounts_are_picked_by_their_law() {
        let share_of_first = |spread: Spread| {
            let picked = spread.pick(10_000, 100, &mut StdRng::seed_from_u64(1));
            assert!(picked.iter().all(|account| (1..=100).contains(account)));
            picked.iter().filter(|&&account| account == 1).count()
        };
        // By Zipf's law with exponent 1 the first of 100 has 1 of 5.187 parts.
        assert!((1800..2060).contains(&share_of_first(Spread::Zipf(1.0))));
        assert!((60..140).contains(&share_of_first(Spread::Zipf(0.0))));
        assert!((60..140).contains(&share_of_first(Spread::Uniform)));
        assert_eq!(share_of_first(Spread::Hot), 10_000);
    }
}
