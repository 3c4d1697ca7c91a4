//! `attack enumeration`: who holds a card of this bank? Logins are refused for three reasons, which the answers do not tell; whether
//! the times of the answers do is what this finds out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use bank_core::protocol::{ErrorCode, Reply, ReplyBody, RequestBody, Secret, decode};
use clap::ValueEnum;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};
use rusqlite::{OpenFlags, params};
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use super::super::load::Connection;
use super::super::rounds::OverRounds;
use super::Failure;
use crate::{TestBank, program};

/// How often one card is tried, at most: a third wrong PIN would block it.
const TRIES_OF_A_CARD: u32 = 2;

/// Tries before those that count, until the server and this program are warm.
const WARM_UP: u32 = 10;

/// How far from one half an area under the curve is taken for the machine's noise, which also favours one kind a little: with
/// 0.65 a guess by one answer is right three times of five, and a card is blocked before there are many answers. A commit or a
/// hash that one kind needs and the other does not gives 0.9 or more, in the profile in which it is not drowned.
const NEAR_ONE_HALF: f64 = 0.15;

/// With few tries chance alone goes further; this many standard errors happen once in 16,000 runs.
const STANDARD_ERRORS: f64 = 4.0;

/// Arguments of `attack enumeration`.
#[derive(Debug, clap::Args)]
#[command(
    about = "Whether the time of a refused login tells an unknown card or a blocked one from a wrong PIN",
    long_about = "Whether the time of a refused login tells an unknown card or a blocked one from a wrong PIN.\n\nTries of three kinds are \
made in random order, each on a new connection from an address of its own (127.0.0.0/8): cards that do not exist, cards that do with \
a wrong PIN, blocked cards with their right PIN. The answers must be the same, byte for byte. AUC is the probability that a try of the one \
kind took longer than a try of the other (the statistic of Mann and Whitney): 0.50 tells nothing, 0 or 1 everything. The attack \
has succeeded if it is further from one half than 0.15 and than four standard errors."
)]
pub(super) struct EnumerationArgs {
    /// Tries of each kind
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tries: u32,
    /// What a PIN's hash costs: with fast ones a missing commit shows best, with standard ones a missing hash
    #[arg(long, value_enum, value_name = "PROFILE", default_value = "standard")]
    pin_profile: Profile,
    /// For the order of the tries
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Profile {
    /// As in a real bank
    Standard,
    /// As cheap as can be
    Fast,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Standard => "standard",
            Profile::Fast => "fast",
        })
    }
}

/// Why a login is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unknown,
    WrongPin,
    Blocked,
}

const KINDS: [Kind; 3] = [Kind::WrongPin, Kind::Unknown, Kind::Blocked];

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Unknown => "unknown card",
            Kind::WrongPin => "wrong PIN",
            Kind::Blocked => "blocked card",
        }
    }

    /// The card and the PIN of the n-th try. Of so many cards of each kind those with a wrong PIN come first, then the blocked
    /// ones, then those that do not exist.
    fn credentials(self, n: u32, cards: u32) -> (String, String) {
        let card = match self {
            Kind::WrongPin => 0,
            Kind::Blocked => cards,
            Kind::Unknown => 2 * cards,
        } + n / TRIES_OF_A_CARD
            + 1;
        let pin = match self {
            Kind::Blocked => card,
            Kind::WrongPin | Kind::Unknown => card + 1,
        };
        (card.to_string(), format!("{:04}", pin % 10_000))
    }
}

/// `attack enumeration`.
pub(super) fn run(args: &EnumerationArgs) -> Result<Value, Failure> {
    program("atm-server");
    let cards = args.tries.div_ceil(TRIES_OF_A_CARD);
    let profile = args.pin_profile.to_string();
    let bank = TestBank::generate_with(u64::from(2 * cards), &["--pin-profile", &profile]);
    block_second_half(&bank.path(), cards)?;
    let server = bank.serve_quietly();
    println!(
        "{} refused logins of each of three kinds in random order, {profile} PIN hashes",
        args.tries
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let times = runtime.block_on(try_all(server.address(), args, cards))?;
    let (status, log) = server.stop();
    if !status.success() {
        return Err(format!("the server did not stop in order ({status}): {log}").into());
    }
    check_counts(&bank.path(), args.tries, cards)?;

    let medians: Vec<f64> = times
        .iter()
        .map(|times| OverRounds::of(us(times)).median)
        .collect();
    for (kind, median) in KINDS.iter().zip(&medians) {
        println!("  {:<12}  median {median:>9.1} us", kind.name());
    }
    let [wrong, others @ ..] = &times;
    let mut told_apart = Vec::new();
    let mut figures =
        json!({ "tries": args.tries, "pin_profile": profile, "wrong_pin_median_us": medians[0] });
    for ((kind, times), median) in KINDS[1..].iter().zip(others).zip(&medians[1..]) {
        let auc = Auc::of(times, wrong);
        let verdict = if auc.tells() {
            "CAN BE TOLD APART"
        } else {
            "cannot be told apart"
        };
        println!("{} and wrong PIN {verdict}: AUC {auc}", kind.name());
        if auc.tells() {
            told_apart.push(kind.name());
        }
        let name = kind.name().replace(' ', "_");
        figures[format!("{name}_median_us")] = json!(median);
        figures[format!("{name}_auc")] = json!({ "auc": auc.area, "standard_error": auc.error });
    }
    if told_apart.is_empty() {
        Ok(figures)
    } else {
        Err(format!(
            "the time of the answer tells {} from a wrong PIN: some work is done for the one and not for the other",
            told_apart.join(" and ")
        )
        .into())
    }
}

/// Blocks the cards from `cards` + 1 on, before anybody serves the bank: by logins it would take as long as the attack.
fn block_second_half(bank: &Path, cards: u32) -> Result<(), Failure> {
    let connection = rusqlite::Connection::open_with_flags(bank, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let sql = "UPDATE cards SET status = 'blocked', tries = 3 WHERE CAST(card AS INTEGER) > ?1";
    let blocked = connection.execute(sql, params![cards])?;
    if blocked != cards as usize {
        return Err(format!("{blocked} cards were blocked instead of {cards}").into());
    }
    Ok(())
}

/// That each wrong PIN was counted, so that it was an attack at all.
fn check_counts(bank: &Path, tries: u32, cards: u32) -> Result<(), Failure> {
    let connection = rusqlite::Connection::open_with_flags(bank, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT coalesce(sum(tries), 0) FROM cards WHERE CAST(card AS INTEGER) <= ?1";
    let counted: u32 = connection.query_row(sql, params![cards], |row| row.get(0))?;
    if counted != tries {
        return Err(format!("the bank counted {counted} wrong PINs instead of {tries}").into());
    }
    Ok(())
}

/// How long each answer took, by kind in the order of [`KINDS`].
async fn try_all(server: &str, args: &EnumerationArgs, cards: u32) -> Result<[Vec<Duration>; 3], Failure> {
    let mut random = StdRng::seed_from_u64(args.seed);
    let mut tries = Vec::new();
    for n in 0..args.tries {
        // Of each kind one, so that a machine that becomes slower does so for all of them.
        let mut one_of_each = [0, 1, 2].map(|kind| (kind, n));
        one_of_each.shuffle(&mut random);
        tries.extend(one_of_each);
    }
    let mut refusal = None;
    let mut addresses =
        (1..).map(|n| IpAddr::V4(Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 1, 0).to_bits() + n)));
    let mut address = || addresses.next().expect("there are more addresses than tries");
    for n in 0..WARM_UP {
        refused_login(
            server,
            address(),
            Kind::Unknown.credentials(args.tries + n, cards),
            &mut refusal,
        )
        .await?;
    }
    let mut times = [const { Vec::new() }; 3];
    for (kind, n) in tries {
        let credentials = KINDS[kind].credentials(n, cards);
        times[kind].push(refused_login(server, address(), credentials, &mut refusal).await?);
    }
    Ok(times)
}

/// How long the answer takes, which must be the `refusal` that came before, byte for byte.
async fn refused_login(
    server: &str,
    from: IpAddr,
    (card, pin): (String, String),
    refusal: &mut Option<Vec<u8>>,
) -> Result<Duration, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let mut connection = Connection::introduce(socket.connect(server.parse()?).await?).await?;
    let asked = Instant::now();
    let (card, pin) = (card.as_str(), Secret(pin.as_str()));
    let answer = connection.ask(RequestBody::Login { card, pin }).await?;
    let time = asked.elapsed();
    let same = refusal.get_or_insert_with(|| answer.to_vec()).as_slice() == answer;
    match decode::<Reply<'_>>(answer)?.body {
        ReplyBody::Error { code, .. } if same && code == ErrorCode::LoginRefused.number() => Ok(time),
        other => Err(format!("card {card} was answered {other:?}, and not as the cards before it").into()),
    }
}

fn us(times: &[Duration]) -> impl Iterator<Item = f64> {
    times.iter().map(|time| time.as_nanos() as f64 / 1000.0)
}

/// How well a time tells two kinds apart.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Auc {
    /// The probability that the one took longer than the other; both alike count half.
    area: f64,
    /// The standard error that it has if both are alike.
    error: f64,
}

impl Auc {
    fn of(times: &[Duration], others: &[Duration]) -> Auc {
        let pairs = times
            .iter()
            .flat_map(|time| others.iter().map(move |other| time.cmp(other)));
        let longer: f64 = pairs.map(|order| (f64::from(order as i8) + 1.0) / 2.0).sum();
        let (m, n) = (times.len() as f64, others.len() as f64);
        Auc {
            area: longer / (m * n),
            error: ((m + n + 1.0) / (12.0 * m * n)).sqrt(),
        }
    }

    fn tells(self) -> bool {
        (self.area - 0.5).abs() > NEAR_ONE_HALF.max(STANDARD_ERRORS * self.error)
    }
}

impl fmt::Display for Auc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} \u{b1} {:.2}", self.area, self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_differ_tell_and_times_that_do_not_do_not() {
        let times = |from: u64, to: u64| -> Vec<_> { (from..to).map(Duration::from_micros).collect() };
        let auc = |times: &[Duration], others: &[Duration]| Auc::of(times, others).area;
        assert_eq!(auc(&times(10, 20), &times(0, 10)), 1.0);
        assert_eq!(auc(&times(0, 10), &times(10, 20)), 0.0);
        assert_eq!(auc(&times(0, 10), &times(0, 10)), 0.5);
        // By the definition: of 2 and 5 beside 1, 2 and 3 the longer ones are 1 + half, and 3.
        let few = |us: &[u64]| -> Vec<_> { us.iter().copied().map(Duration::from_micros).collect() };
        assert_eq!(auc(&few(&[2, 5]), &few(&[1, 2, 3])), 4.5 / 6.0);
        assert!(Auc::of(&times(100, 300), &times(0, 200)).tells());
        assert!(!Auc::of(&times(20, 220), &times(0, 200)).tells());
        assert!(
            !Auc::of(&times(10, 12), &times(0, 2)).tells(),
            "two tries prove nothing"
        );
        assert_eq!(
            Auc::of(&times(0, 200), &times(0, 200)).to_string(),
            "0.50 \u{b1} 0.03"
        );
    }

    #[test]
    fn no_card_is_tried_more_than_twice_and_none_is_of_two_kinds() {
        let (tries, cards) = (7, 4);
        let mut tried = std::collections::BTreeMap::new();
        for kind in KINDS {
            for n in 0..tries {
                let (card, pin) = kind.credentials(n, cards);
                let right = format!("{card:0>4}") == pin;
                assert_eq!(right, kind == Kind::Blocked);
                tried.entry(card).or_insert_with(Vec::new).push(kind);
            }
        }
        assert_eq!(tried.len(), 12);
        assert!(
            tried
                .values()
                .all(|kinds| kinds.len() <= 2 && kinds.iter().all(|kind| *kind == kinds[0]))
        );
    }
}
