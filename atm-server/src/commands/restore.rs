//! Putting a backup in the place of a bank file.

use bank_core::pin::PinError;
use bank_core::{Peppers, bank_file};
use serde_json::json;

use super::backup::{describe, with_bar};
use super::{Ended, Error, say};
use crate::args::RestoreArgs;
use crate::config::BankPaths;

pub(super) fn restore(args: RestoreArgs) -> Result<Ended, Error> {
    let paths = BankPaths::from(args.bank);
    let peppers = match Peppers::read(&paths.pepper) {
        Err(PinError::Missing(_)) => None,
        read => Some(read?),
    };
    let restored = with_bar(|progress| {
        bank_file::restore(
            &args.from,
            &paths.bank,
            peppers.as_ref(),
            args.lose_newer,
            progress,
        )
    })?;
    let (bank, from) = (paths.bank.display(), args.from.display());
    let set_aside = restored.set_aside.as_ref().map(|path| path.display());
    let lost = restored.lost.as_ref().filter(|newer| !newer.is_nothing());
    if args.json {
        let mut answer = describe(&restored.copied);
        answer["bank"] = bank.to_string().into();
        answer["from"] = from.to_string().into();
        answer["pepper_fits"] = peppers.is_some().then_some(true).into();
        answer["set_aside"] = set_aside.map(|path| path.to_string()).into();
        answer["lost"] = match (lost, &restored.lost, &restored.set_aside) {
            (Some(newer), ..) => json!({
                "rows": newer.row_count(), "cards": newer.cards, "terminals": newer.terminals, "accounts": newer.accounts,
                "first_lsn": newer.rows.map(|[(lsn, _), _]| lsn.get()),
                "first_time": newer.rows.map(|[(_, time), _]| time.rfc3339()),
                "last_lsn": newer.rows.map(|[_, (lsn, _)]| lsn.get()),
                "last_time": newer.rows.map(|[_, (_, time)]| time.rfc3339()),
            }),
            (None, None, Some(_)) => "unknown".into(),
            _ => serde_json::Value::Null,
        };
        say(format_args!("{answer}"));
        return Ok(Ended::Done);
    }
    say(format_args!(
        "restored {bank} from {from} as of row {} ({} accounts)",
        restored.copied.lsn, restored.copied.accounts
    ));
    if let Some(newer) = lost {
        say(format_args!("what is not in it any more: {newer}"));
    }
    if let Some(aside) = set_aside {
        say(format_args!("the bank that was there is kept as {aside}"));
    }
    if peppers.is_none() {
        say(format_args!(
            "There is no pepper file {}: put that of the backup's time there before you serve the bank.",
            paths.pepper.display()
        ));
    }
    Ok(Ended::Done)
}
