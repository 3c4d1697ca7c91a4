//! Proving that a bank file's books balance.

use std::path::Path;

use bank_core::bank_file;

use super::{Ended, Error, say};

pub(super) fn verify(bank: &Path) -> Result<Ended, Error> {
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
