//! Copying a bank file.

use bank_core::bank_file::{self, Copied, Progress};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{Ended, Error, say};
use crate::args::BackupArgs;
use crate::progress;

pub(super) fn backup(args: &BackupArgs) -> Result<Ended, Error> {
    let (bank, to) = (&args.bank.bank, &args.to);
    let copied = with_bar(|progress| bank_file::backup(bank, to, args.replace, !args.no_verify, progress))?;
    let (bank, to) = (bank.display(), to.display());
    if args.json {
        let mut answer = describe(&copied);
        answer["bank"] = bank.to_string().into();
        answer["to"] = to.to_string().into();
        answer["verified"] = (!args.no_verify).into();
        say(format_args!("{answer}"));
        return Ok(Ended::Done);
    }
    let Copied {
        lsn, accounts, bytes, ..
    } = copied;
    let verified = if args.no_verify {
        "were not verified"
    } else {
        "balance"
    };
    say(format_args!(
        "backed up {bank} to {to} as of row {lsn} ({accounts} accounts, {bytes} bytes); its books {verified}"
    ));
    say(format_args!(
        "The pepper file is not in it, and without it no PIN can be checked: back it up apart from this."
    ));
    Ok(Ended::Done)
}

/// What a copy holds, for programs.
pub(super) fn describe(copied: &Copied) -> Value {
    json!({
        "lsn": copied.lsn.get(), "time": copied.time.map(bank_core::Timestamp::rfc3339),
        "accounts": copied.accounts, "bytes": copied.bytes,
    })
}

/// Shows a person how far the copying is.
pub(super) fn with_bar<T>(work: impl FnOnce(&dyn Fn(Progress)) -> T) -> T {
    let bar: ProgressBar = progress::bar("pages", 0);
    let done = work(&|now| match now {
        Progress::Copying(copied, of) => {
            bar.set_length(of);
            bar.set_position(copied);
        }
        Progress::Verifying => bar.set_message("verifying"),
    });
    bar.finish_and_clear();
    done
}
