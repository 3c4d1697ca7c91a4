//! Proving that a bank file's books balance.

use bank_core::bank_file;

use super::{Ended, Error, say};
use crate::args::VerifyArgs;

pub(super) fn verify(args: &VerifyArgs) -> Result<Ended, Error> {
    let proof = bank_file::verify_with_receipts(&args.bank.bank, &args.receipt)?;
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
    if proof.holds() {
        for receipt in &args.receipt {
            say(format_args!(
                "record {} and all before it are what they were when its receipt was given",
                receipt.lsn
            ));
        }
    }
    say(format_args!("{proof}"));
    Ok(if proof.holds() { Ended::Done } else { Ended::Failed })
}
