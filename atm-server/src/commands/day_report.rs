//! Showing what a closed business date adds up to.

use bank_core::bank_file::read_day_report;

use super::{Ended, Error, say};
use crate::args::DayReportArgs;
use crate::day_report::{to_json, to_text};

pub(super) fn day_report(args: &DayReportArgs) -> Result<Ended, Error> {
    let Some(report) = read_day_report(&args.bank.bank, args.date)? else {
        let date = args.date.map_or("no date".to_owned(), |date| date.to_string());
        let is = if args.date.is_some() {
            "is not closed"
        } else {
            "is closed"
        };
        return Err(format!(
            "{date} {is} in {}: \"atm-server admin close-day\" closes dates on a running server",
            args.bank.bank.display()
        )
        .into());
    };
    if args.json {
        say(format_args!("{}", to_json(&report)));
    } else {
        say(format_args!("{}", to_text(&report)));
    }
    Ok(if report.agrees() {
        Ended::Done
    } else {
        Ended::Failed
    })
}
