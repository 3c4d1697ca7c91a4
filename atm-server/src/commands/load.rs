//! Making a bank file, from a list or of test accounts.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use bank_core::bank_file::{self, CardSecurity, ExistingNames, NewAccount, NewCard};
use bank_core::limits::MAX_LIST_BYTES;
use bank_core::loading::{AccountList, ListError};
use bank_core::{Currency, Moment, Peppers, PinProfile};
use zeroize::Zeroizing;

use super::{Ended, Error, say};
use crate::args::{GenerateArgs, LoadArgs};
use crate::config::BankPaths;
use crate::progress;

pub(super) fn load(args: LoadArgs) -> Result<Ended, Error> {
    let paths = BankPaths::from(args.bank);
    let exists = paths.bank.exists();
    if exists && !args.append && !args.replace && !args.dry_run {
        return Err(bank_file::BankFileError::Exists(paths.bank).into());
    }
    let csv = read_list(&args.list)?;
    let list = AccountList::from_csv(&csv, |accounts, cards| {
        if args.append {
            bank_file::existing_names(&paths.bank, accounts.iter().copied(), cards.iter())
        } else {
            Ok(ExistingNames::default())
        }
    });
    drop(csv);
    let list = match list {
        Err(ListError::BadRows(rows)) => {
            for row in &rows {
                let _ = writeln!(
                    io::stderr(),
                    "{}:{}: {}",
                    args.list.display(),
                    row.line,
                    row.reason
                );
            }
            return Err(ListError::BadRows(rows).into());
        }
        other => other?,
    };
    warn_of_weak_pins(&args.list, &list.weak_pin_lines);
    let (accounts, cards) = (list.accounts.len(), list.cards.len());
    if args.dry_run {
        say(format_args!(
            "{} is good: {accounts} accounts, {cards} cards; nothing was written",
            args.list.display()
        ));
        return Ok(Ended::Done);
    }
    if args.append {
        let peppers = Peppers::read(&paths.pepper)?;
        let profile = match args.pin_profile {
            Some(profile) => profile.into(),
            None => bank_file::read_pin_profile_of(&paths.bank)?,
        };
        let (accounts, cards) = hash_pins(list, &peppers, profile)?;
        with_write_bar(&accounts, &cards, |written| {
            bank_file::append_to_bank(&paths.bank, &peppers, Moment::now(), &accounts, &cards, written)
        })?;
    } else {
        create(
            &paths,
            args.replace,
            list,
            args.pin_profile.map_or(PinProfile::Standard, PinProfile::from),
        )?;
    }
    say(format_args!(
        "loaded {accounts} accounts and {cards} cards into {}",
        paths.bank.display()
    ));
    Ok(Ended::Done)
}

/// Says in which lines PINs are guessed first, but neither which PINs these are nor why: whoever reads the warning need not
/// be told where to begin.
fn warn_of_weak_pins(list: &Path, lines: &[u64]) {
    const NAMED: usize = 10;
    if lines.is_empty() {
        return;
    }
    let named: Vec<_> = lines.iter().take(NAMED).map(u64::to_string).collect();
    let more = match lines.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let _ = writeln!(
        io::stderr(),
        "atm-server: warning: {}: PINs that are too easy to guess in lines {}{more}. They are good for loading; ask their \
         holders to change them.",
        list.display(),
        named.join(", "),
    );
}

fn read_list(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let length = file.metadata()?.len();
    // With its final size from the start, so that no copy of the PINs is left behind by growing.
    let mut csv = Zeroizing::new(Vec::with_capacity(
        usize::try_from(length.min(MAX_LIST_BYTES))? + 1,
    ));
    file.take(MAX_LIST_BYTES + 1)
        .read_to_end(&mut csv)
        .map_err(|error| format!("{}: {error}", path.display()))?;
    if csv.len() as u64 > MAX_LIST_BYTES {
        return Err(format!(
            "{} is too long: a list has at most {MAX_LIST_BYTES} bytes",
            path.display()
        )
        .into());
    }
    Ok(csv)
}

pub(super) fn generate(args: GenerateArgs) -> Result<Ended, Error> {
    let paths = BankPaths::from(args.bank);
    if paths.bank.exists() && !args.replace {
        return Err(format!(
            "the bank file {} exists: --replace makes a new one in its place",
            paths.bank.display()
        )
        .into());
    }
    let currency = Currency::from_code(&args.currency)?;
    let list = AccountList::generate(args.accounts, currency, currency.parse(&args.balance)?);
    create(&paths, args.replace, list, args.pin_profile.into())?;
    say(format_args!(
        "generated {} accounts in {}",
        args.accounts,
        paths.bank.display()
    ));
    Ok(Ended::Done)
}

fn create(paths: &BankPaths, replace: bool, list: AccountList, profile: PinProfile) -> Result<(), Error> {
    let peppers = Peppers::read_or_create(&paths.pepper)?;
    let (accounts, cards) = hash_pins(list, &peppers, profile)?;
    let security = CardSecurity {
        profile,
        peppers: &peppers,
    };
    with_write_bar(&accounts, &cards, |written| {
        bank_file::create_bank(
            &paths.bank,
            replace,
            &security,
            Moment::now(),
            &accounts,
            &cards,
            written,
        )
    })
}

fn hash_pins(
    list: AccountList,
    peppers: &Peppers,
    profile: PinProfile,
) -> Result<(Vec<NewAccount>, Vec<NewCard>), Error> {
    let bar = progress::bar("PINs", list.cards.len() as u64);
    let hashed = list.hash_pins(peppers, profile, &|done| bar.set_position(done))?;
    bar.finish_and_clear();
    Ok(hashed)
}

fn with_write_bar(
    accounts: &[NewAccount],
    cards: &[NewCard],
    write: impl FnOnce(&dyn Fn(u64)) -> Result<(), bank_file::BankFileError>,
) -> Result<(), Error> {
    let bar = progress::bar("writing", (accounts.len() + cards.len()) as u64);
    write(&|written| bar.set_position(written))?;
    bar.finish_and_clear();
    Ok(())
}
