//! What reads bytes from outside, each as a plain function of bytes that panics if a promise is broken.
//!
//! Three things run them: `tests/fuzz/`, a crate for cargo-fuzz, which needs nightly; `atm-stress fuzz`, which needs nothing
//! and goes on for as long as one likes; and the tests, a little. All begin with the seeds in `tests/fuzz/corpus/`, a
//! directory for each target, in which an input that ever failed stays as well.
//!
//! A target for the protocol of lines of text belongs here as soon as there is one.

pub mod answers;
pub mod connection;
pub mod files;
pub mod inputs;
pub mod list;
pub mod messages;
pub mod money;
pub mod terminal_journal;

/// A function to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name on the command line, and that of its directory of seeds.
    pub name: &'static str,
    /// Tries an input.
    ///
    /// # Panics
    /// If a promise is broken.
    pub run: fn(&[u8]),
    /// Bytes that the calling thread may have allocated at once, whatever the input.
    pub most_memory: u64,
    /// Ends what goes on from one input to the next, and checks it; a new one begins with the next input.
    ///
    /// # Panics
    /// If a promise is broken.
    pub finish: fn(),
}

const KIB: u64 = 1024;

const fn target(name: &'static str, run: fn(&[u8]), most_memory: u64) -> Target {
    Target {
        name,
        run,
        most_memory,
        finish: || (),
    }
}

/// All targets.
pub const TARGETS: [Target; 14] = [
    target("frames", messages::frames, 16 * KIB),
    target("hello", messages::hello, 16 * KIB),
    target("request", messages::request, 16 * KIB),
    target("greeting", messages::greeting, 64 * KIB),
    // Whatever a list says of its length, serde makes room for no more than 1 MiB before it has read an item.
    target("reply", messages::reply, 1200 * KIB),
    target("accounts-list", list::accounts_list, 1024 * KIB),
    target("sums", money::sums, 64 * KIB),
    target("cassettes", money::cassettes, 1024 * KIB),
    target("pepper-file", files::pepper_file, 256 * KIB),
    target("terminal-secret", files::terminal_secret, 64 * KIB),
    target("terminal-journal", terminal_journal::bytes, 1024 * KIB),
    target("terminal-records", terminal_journal::records, 2048 * KIB),
    target("answers", answers::answers, 1200 * KIB),
    Target {
        finish: connection::finish,
        ..target("connection", connection::connection, 256 * KIB)
    },
];
