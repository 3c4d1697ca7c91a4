//! What it costs to have many accounts: the time to open a bank, and the memory to serve it.

use std::fmt;
use std::time::{Duration, Instant};

use crate::TestBank;

/// The cost of a bank of many accounts. Times are of this machine at this moment.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// How many accounts.
    pub accounts: u64,
    /// Time to make the bank file, PIN hashes by the fast profile included.
    pub generating: Duration,
    /// Bytes of the bank file.
    pub file_bytes: u64,
    /// Time from starting the server to its listening.
    pub opening: Duration,
    /// Resident memory of the server, above that of a server with a single account, for each account.
    pub bytes_per_account: u64,
}

/// Makes a bank of so many accounts in a temporary directory, serves it, and looks.
pub fn measure(accounts: u64) -> Opening {
    crate::program("atm-server"); // Building it is not generating.
    let started = Instant::now();
    let bank = TestBank::generate(accounts);
    let generating = started.elapsed();
    let (opening, resident) = open(&bank);
    let (_, least) = open(&TestBank::generate(1));
    Opening {
        accounts,
        generating,
        file_bytes: std::fs::metadata(bank.path())
            .expect("the bank file is there")
            .len(),
        opening,
        bytes_per_account: resident.saturating_sub(least) / accounts,
    }
}

fn open(bank: &TestBank) -> (Duration, u64) {
    let started = Instant::now();
    let server = bank.serve();
    let opening = started.elapsed();
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("Linux tells of processes");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("and of their memory");
    let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("in kibibytes");
    (opening, kibibytes * 1024)
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} accounts: generated in {:.1} s, file {} MiB, opened in {:.2} s, {} bytes of memory an account",
            self.accounts,
            self.generating.as_secs_f64(),
            self.file_bytes >> 20,
            self.opening.as_secs_f64(),
            self.bytes_per_account
        )
    }
}
