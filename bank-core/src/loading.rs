//! Loading: from a list of accounts to a bank file, all of it or nothing.
//!
//! A list is CSV. Its first line names the columns, of which `holder`, `pin` and `balance` are required; a
//! list without such a line has just these three, in this order. `data/README.md` describes it to people.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use csv::ByteRecord;
use rayon::prelude::*;
use zeroize::Zeroizing;

use crate::bank_file::{BankFileError, ExistingNames, NewAccount, NewCard};
use crate::ids::{AccountId, CardNumber};
use crate::limits::MAX_HOLDER_BYTES;
use crate::money::{Currency, Money};
use crate::pin::{Peppers, Pin, PinError, PinProfile};

/// Accounts and cards that may be loaded: every row has been checked. The PINs are not hashed yet.
#[derive(Debug, Default)]
pub struct AccountList {
    /// In the order of their numbers.
    pub accounts: Vec<NewAccount>,
    /// In the order of their numbers, which is the order in which the bank file is fastest to write.
    pub cards: Vec<PlainCard>,
    /// The lines of a CSV whose PINs are guessed first, in their order. They are no reason not to load it.
    pub weak_pin_lines: Vec<u64>,
}

/// A card with its PIN still readable.
#[derive(Debug)]
pub struct PlainCard {
    /// Its number.
    pub number: CardNumber,
    /// Whom it is issued to.
    pub holder: String,
    /// The account that it opens.
    pub account: AccountId,
    /// Its PIN.
    pub pin: Pin,
}

/// A row that cannot be loaded, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The line on which the row begins, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Why a list was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Some rows are bad. All of them are named.
    #[error("{} bad rows; nothing was loaded", .0.len())]
    BadRows(Vec<BadRow>),
    /// The bank that the list is added to could not be read.
    #[error(transparent)]
    BankFile(#[from] BankFileError),
}

/// The first account number that is assigned to a row without one.
const FIRST_ASSIGNED_ACCOUNT: u64 = 1001;

const COLUMNS: [&str; 8] = [
    "card",
    "holder",
    "pin",
    "account",
    "currency",
    "balance",
    "overdraft_limit",
    "daily_limit",
];

/// One row, each field checked by itself.
struct ListedRow {
    line: u64,
    card: CardNumber,
    holder: String,
    pin: Pin,
    account: Option<AccountId>,
    terms: Terms,
}

/// What two rows of a joint account must agree on; `None` where a row leaves it to the other or to the default.
#[derive(Clone, Copy, Default)]
struct Terms {
    currency: Option<Currency>,
    balance: Option<Money>,
    overdraft_limit: Option<Money>,
    daily_limit: Option<Money>,
}

impl AccountList {
    /// Reads a list. `look_up` tells which of the listed accounts and cards the bank has already.
    ///
    /// # Errors
    /// [`ListError::BadRows`] with every bad row, in the order of their lines.
    pub fn from_csv(
        csv: &[u8],
        look_up: impl FnOnce(&[AccountId], &[CardNumber]) -> Result<ExistingNames, BankFileError>,
    ) -> Result<AccountList, ListError> {
        let mut bad = Vec::new();
        let rows = read_rows(csv, &mut bad);
        if rows.is_empty() && bad.is_empty() {
            bad.push(BadRow {
                line: 1,
                reason: "the list is empty: it has no accounts".into(),
            });
        }
        let numbers: Vec<_> = rows.iter().filter_map(|row| row.account).collect();
        let cards: Vec<_> = rows.iter().map(|row| row.card.clone()).collect();
        let existing = look_up(&numbers, &cards)?;
        let list = assemble(rows, &existing, &mut bad);
        if bad.is_empty() {
            return Ok(list);
        }
        bad.sort_by_key(|row| row.line);
        Err(ListError::BadRows(bad))
    }

    /// A test bank: accounts 1 to `count`, each with that balance, and to each a card of the same number. A
    /// card's PIN is the last four digits of its number, with leading zeros.
    pub fn generate(count: u64, currency: Currency, balance: Money) -> AccountList {
        let number = |n| AccountId::new(n).expect("a count of accounts is far below the highest number");
        let accounts = (1..=count).map(|n| NewAccount {
            id: number(n),
            currency,
            balance,
            overdraft_limit: Money::ZERO,
            daily_limit: None,
        });
        let mut cards: Vec<_> = (1..=count)
            .map(|n| PlainCard {
                number: CardNumber::new(&n.to_string()).expect("digits are a card number"),
                holder: format!("Customer {n}"),
                account: number(n),
                pin: Pin::new(format!("{:04}", n % 10_000).as_bytes()).expect("four digits are a PIN"),
            })
            .collect();
        cards.sort_unstable_by(|a, b| a.number.cmp(&b.number));
        AccountList {
            accounts: accounts.collect(),
            cards,
            weak_pin_lines: Vec::new(),
        }
    }

    /// Hashes the PINs on all cores. `done` is told how many are hashed so far.
    ///
    /// # Errors
    /// [`PinError`] if the machine cannot do it.
    pub fn hash_pins(
        self,
        peppers: &Peppers,
        profile: PinProfile,
        done: &(dyn Fn(u64) + Sync),
    ) -> Result<(Vec<NewAccount>, Vec<NewCard>), PinError> {
        let hashed = AtomicU64::new(0);
        let cards = self
            .cards
            .into_par_iter()
            .map(|card| {
                let pin_hash = peppers.hash(&card.pin, profile)?;
                done(hashed.fetch_add(1, Ordering::Relaxed) + 1);
                let PlainCard {
                    number,
                    holder,
                    account,
                    pin: _,
                } = card;
                Ok(NewCard {
                    number,
                    holder,
                    account,
                    pin_hash,
                    pepper_id: peppers.newest(),
                })
            })
            .collect::<Result<_, PinError>>()?;
        Ok((self.accounts, cards))
    }
}

/// Reads what can be read, and says what cannot.
fn read_rows(csv: &[u8], bad: &mut Vec<BadRow>) -> Vec<ListedRow> {
    let csv = csv.strip_prefix("\u{feff}".as_bytes()).unwrap_or(csv);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(csv);
    let mut columns: Option<Vec<&'static str>> = None;
    let mut rows = Vec::new();
    let mut record = ByteRecord::new();
    loop {
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return rows,
            Err(error) => {
                bad.push(BadRow {
                    line: reader.position().line(),
                    reason: error.to_string(),
                });
                return rows;
            }
        }
        let line = record.position().map_or(0, csv::Position::line);
        let mut reject = |reason: String| bad.push(BadRow { line, reason });
        let columns = match &mut columns {
            Some(columns) => columns,
            none => match read_heading(&record) {
                Ok(Some(heading)) => {
                    *none = Some(heading);
                    continue;
                }
                Ok(None) => none.insert(vec!["holder", "pin", "balance"]),
                Err(reason) => {
                    reject(reason);
                    return rows;
                }
            },
        };
        match read_row(line, &record, columns) {
            Ok(row) => rows.push(row),
            Err(reasons) => reasons.into_iter().for_each(&mut reject),
        }
    }
}

/// The columns, if the first record names them; `None` if it is a row already.
fn read_heading(record: &ByteRecord) -> Result<Option<Vec<&'static str>>, String> {
    // It may be no heading, but a customer with his PIN.
    let names: Vec<Zeroizing<String>> = record
        .iter()
        .map(|field| Zeroizing::new(String::from_utf8_lossy(field).trim().to_lowercase()))
        .collect();
    let is_named = |column| names.iter().any(|name| **name == column);
    if !is_named("pin") || !is_named("balance") {
        return Ok(None);
    }
    let mut columns = Vec::new();
    for name in &names {
        let name = if **name == "name" { "holder" } else { name };
        let Some(column) = COLUMNS.into_iter().find(|column| *column == name) else {
            return Err(format!(
                "unknown column \"{name}\": the columns are {}",
                COLUMNS.join(", ")
            ));
        };
        if columns.contains(&column) {
            return Err(format!("the column \"{column}\" is there twice"));
        }
        columns.push(column);
    }
    if !columns.contains(&"holder") {
        return Err("the column \"holder\" is missing".into());
    }
    Ok(Some(columns))
}

/// Checks the fields of a row by themselves, all of them.
fn read_row(line: u64, record: &ByteRecord, columns: &[&'static str]) -> Result<ListedRow, Vec<String>> {
    if record.len() != columns.len() {
        return Err(vec![format!(
            "{} columns instead of {} ({})",
            record.len(),
            columns.len(),
            columns.join(", ")
        )]);
    }
    let mut fields = HashMap::new();
    let mut reasons = Vec::new();
    for (&column, bytes) in columns.iter().zip(record) {
        match str::from_utf8(bytes) {
            Ok("") => {}
            Ok(text) => drop(fields.insert(column, text)),
            Err(_) => reasons.push(format!("the {column} is not UTF-8")),
        }
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let mut keep = |reason: String| reasons.push(reason);
    let holder = fields.get("holder").copied();
    match holder {
        None => keep("the holder is empty".into()),
        Some(holder) if holder.len() > MAX_HOLDER_BYTES || holder.chars().any(char::is_control) => {
            keep(format!(
                "a holder's name has at most {MAX_HOLDER_BYTES} bytes and no control characters"
            ));
        }
        Some(_) => {}
    }
    let card = fields
        .get("card")
        .copied()
        .or(holder)
        .and_then(|text| CardNumber::new(text).map_err(|e| keep(e.to_string())).ok());
    let pin = Pin::new(fields.get("pin").copied().unwrap_or("").as_bytes())
        .map_err(|error| keep(error.to_string()));
    let account = match fields
        .get("account")
        .map(|text| text.parse::<AccountId>())
        .transpose()
    {
        Ok(account) => account,
        Err(error) => {
            keep(error.to_string());
            None
        }
    };
    let currency = match fields
        .get("currency")
        .map(|code| Currency::from_code(code))
        .transpose()
    {
        Ok(currency) => currency,
        Err(error) => {
            // Without its currency no sum of the row can be read. What it says instead may be a PIN, if columns were mistaken.
            let may_be_a_pin = fields
                .get("currency")
                .is_some_and(|text| Pin::new(text.as_bytes()).is_ok());
            keep(if may_be_a_pin {
                "digits are no currency: is each value in its column?".into()
            } else {
                error.to_string()
            });
            return Err(reasons);
        }
    };
    let mut sum = |column| {
        let parsed = fields
            .get(column)
            .map(|text| currency.unwrap_or(Currency::USD).parse(text));
        parsed.transpose().unwrap_or_else(|error| {
            keep(format!("{column}: {error}"));
            None
        })
    };
    let terms = Terms {
        currency,
        balance: sum("balance"),
        overdraft_limit: sum("overdraft_limit"),
        daily_limit: sum("daily_limit"),
    };
    match (holder, card, pin) {
        (Some(holder), Some(card), Ok(pin)) if reasons.is_empty() => Ok(ListedRow {
            line,
            card,
            holder: holder.to_owned(),
            pin,
            account,
            terms,
        }),
        _ => Err(reasons),
    }
}

/// Puts the rows together: assigns numbers, joins joint accounts, and finds what rows do to each other.
fn assemble(rows: Vec<ListedRow>, existing: &ExistingNames, bad: &mut Vec<BadRow>) -> AccountList {
    let mut taken: HashSet<AccountId> = rows.iter().filter_map(|row| row.account).collect();
    taken.extend(&existing.accounts);
    let mut next = FIRST_ASSIGNED_ACCOUNT.max(existing.highest_account + 1);
    let mut assign = || {
        loop {
            let account = AccountId::new(next);
            next += 1;
            match account {
                Ok(account) if !taken.contains(&account) => return Some(account),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    let mut accounts: BTreeMap<AccountId, (u64, Terms)> = BTreeMap::new();
    let mut first_line_of_card: HashMap<CardNumber, u64> = HashMap::new();
    let mut cards = Vec::with_capacity(rows.len());
    let weak_pin_lines = rows
        .iter()
        .filter(|row| row.pin.is_weak())
        .map(|row| row.line)
        .collect();
    for row in rows {
        let mut reject = |reason| {
            bad.push(BadRow {
                line: row.line,
                reason,
            });
        };
        if existing.cards.contains(&row.card) {
            reject(format!("the bank has a card \"{}\" already", row.card));
        }
        if let Some(first) = first_line_of_card.insert(row.card.clone(), row.line) {
            reject(format!("card \"{}\" is in line {first} already", row.card));
        }
        let Some(account) = row.account.or_else(&mut assign) else {
            reject("there is no account number left to assign".into());
            continue;
        };
        if existing.accounts.contains(&account) {
            reject(format!("the bank has an account {account} already"));
        }
        match accounts.get_mut(&account) {
            None => {
                if row.terms.balance.is_none() {
                    reject("the balance is empty, and no line before gives one for this account".into());
                }
                accounts.insert(account, (row.line, row.terms));
            }
            Some((first, terms)) => {
                for what in terms.disagreements(&row.terms) {
                    reject(format!(
                        "account {account} is in line {first} with another {what}"
                    ));
                }
                terms.fill_in(&row.terms);
            }
        }
        cards.push(PlainCard {
            number: row.card,
            holder: row.holder,
            account,
            pin: row.pin,
        });
    }
    cards.sort_unstable_by(|a, b| a.number.cmp(&b.number));
    let accounts = accounts
        .into_iter()
        .map(|(id, (_, terms))| terms.account(id))
        .collect();
    AccountList {
        accounts,
        cards,
        weak_pin_lines,
    }
}

impl Terms {
    fn disagreements(&self, other: &Terms) -> Vec<&'static str> {
        let currency = |terms: &Terms| terms.currency.unwrap_or(Currency::USD);
        // Without a currency and without sums, a row leaves the currency to the others.
        let leaves_it = other.currency.is_none()
            && [other.balance, other.overdraft_limit, other.daily_limit] == [None; 3];
        let differ = |one: Option<Money>, other: Option<Money>| {
            one.is_some_and(|one| other.is_some_and(|other| one != other))
        };
        [
            ("currency", !leaves_it && currency(self) != currency(other)),
            ("balance", differ(self.balance, other.balance)),
            (
                "overdraft_limit",
                differ(self.overdraft_limit, other.overdraft_limit),
            ),
            ("daily_limit", differ(self.daily_limit, other.daily_limit)),
        ]
        .into_iter()
        .filter_map(|(what, differs)| differs.then_some(what))
        .collect()
    }

    fn fill_in(&mut self, other: &Terms) {
        self.overdraft_limit = self.overdraft_limit.or(other.overdraft_limit);
        self.daily_limit = self.daily_limit.or(other.daily_limit);
    }

    fn account(&self, id: AccountId) -> NewAccount {
        NewAccount {
            id,
            currency: self.currency.unwrap_or(Currency::USD),
            balance: self.balance.unwrap_or(Money::ZERO),
            overdraft_limit: self.overdraft_limit.unwrap_or(Money::ZERO),
            daily_limit: self.daily_limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(csv: &[u8]) -> Result<AccountList, Vec<BadRow>> {
        AccountList::from_csv(csv, |_, _| Ok(ExistingNames::default())).map_err(|error| match error {
            ListError::BadRows(rows) => rows,
            ListError::BankFile(error) => panic!("{error}"),
        })
    }

    fn show(list: &AccountList) -> Vec<String> {
        let account = |id| list.accounts.iter().find(|account| account.id == id).unwrap();
        list.cards
            .iter()
            .map(|card| {
                let NewAccount {
                    id,
                    currency,
                    balance,
                    overdraft_limit,
                    daily_limit,
                } = account(card.account);
                let daily = daily_limit.map_or("-".into(), |limit| currency.format(limit));
                let (balance, overdraft) = (currency.format(*balance), currency.format(*overdraft_limit));
                format!(
                    "{}/{} {id} {currency} {balance} {overdraft} {daily}",
                    card.number.as_str(),
                    card.holder
                )
            })
            .collect()
    }

    #[test]
    fn a_full_list_is_read() {
        let csv = "card,holder,pin,account,currency,balance,overdraft_limit,daily_limit\n\
                   4000000000000002,Zoë Q,123456789012,7,EUR,10.5,100,250.00\n\
                   ,\"Lee, Ann\",1234,,JPY,300,,\n";
        let list = load(csv.as_bytes()).unwrap();
        assert_eq!(
            show(&list),
            [
                "4000000000000002/Zoë Q 7 EUR 10.50 100.00 250.00",
                "Lee, Ann/Lee, Ann 1001 JPY 300 0 -"
            ]
        );
    }

    #[test]
    fn the_textbooks_lists_load_as_they_are() {
        let expected = ["Jack/Jack 1002 USD 0.00 0.00 -", "Ken/Ken 1001 USD 100.00 0.00 -"];
        for csv in [
            "Ken,2468,100.00\nJack,1111,0\n",
            "\u{feff}Name,PIN,Balance\r\nKen,2468,100\r\nJack,1111,0.00\r\n",
            "holder,pin,balance\n\nKen,2468,100.00\nJack,1111,0",
        ] {
            assert_eq!(show(&load(csv.as_bytes()).unwrap()), expected, "{csv:?}");
        }
    }

    #[test]
    fn rows_with_one_account_number_make_a_joint_account() {
        let csv =
            "holder,pin,account,balance,daily_limit\nKen,2468,5,100.00,\nJill,1357,5,,40\nMia,1111,5,100,\n";
        let list = load(csv.as_bytes()).unwrap();
        assert_eq!(list.accounts.len(), 1);
        assert_eq!(show(&list)[0], "Jill/Jill 5 USD 100.00 0.00 40.00");
    }

    /// What a later row says nothing of is as the first has it, the currency too. But a sum is read in some currency.
    #[test]
    fn a_joint_account_in_another_currency_needs_to_say_so_once() {
        let csv = "holder,pin,account,currency,balance,daily_limit\nKen,2468,5,EUR,100.00,\nJill,1357,5,,,";
        let list = load(csv.as_bytes()).unwrap();
        assert_eq!(show(&list)[0], "Jill/Jill 5 EUR 100.00 0.00 -");
        let bad = load(format!("{csv}40").as_bytes()).unwrap_err();
        assert!(
            bad[0].line == 3 && bad[0].reason.contains("another currency"),
            "{bad:?}"
        );
    }

    #[test]
    fn numbers_are_assigned_around_those_that_are_given() {
        let csv = "holder,pin,account,balance\nA,1111,,1\nB,1111,1001,1\nC,1111,1002,1\nD,1111,,1\n";
        let numbers: Vec<_> = load(csv.as_bytes())
            .unwrap()
            .accounts
            .iter()
            .map(|a| a.id.get())
            .collect();
        assert_eq!(numbers, [1001, 1002, 1003, 1004]);
    }

    #[test]
    fn every_bad_row_is_named_with_its_line_and_reason() {
        let csv = b"card,holder,pin,account,currency,balance,overdraft_limit,daily_limit\n\
            ,Ann,1234,1,USD,1.00,,\n\
            ,Ben,12,2,USD,1.00,,\n\
            ,Ann,1234,3,USD,1.00,,\n\
            ,Cat,1234,1,USD,2.00,,\n\
            ,Dan,1234,4,ABC,1.00,,\n\
            ,Eve,1234,5,USD,99999999999999999999,,\n\
            ,F\xffy,1234,6,USD,1.00,,\n\
            ,Gus,1234,7,USD\n\
            ,,1234,8,USD,1.00,,\n\
            ,Hal,1234,9,USD,,,\n\
            ,Ian,1234,0,USD,1e3,-5,nan\n\
            ,Joy,1234,1,EUR,,,\n";
        let found: Vec<_> = load(csv)
            .unwrap_err()
            .into_iter()
            .map(|row| (row.line, row.reason))
            .collect();
        let expected = [
            (3, "a PIN has 4 to 12 digits"),
            (4, "card \"Ann\" is in line 2 already"),
            (5, "account 1 is in line 2 with another balance"),
            (6, "\"ABC\" is not a currency"),
            (7, "more money than an account can hold"),
            (8, "the holder is not UTF-8"),
            (9, "5 columns instead of 8"),
            (10, "the holder is empty"),
            (11, "the balance is empty"),
            (12, "an account number is a whole number"),
            (12, "balance: \"1e3\" is not a sum"),
            (12, "overdraft_limit: \"-5\" is not a sum"),
            (12, "daily_limit: \"nan\" is not a sum"),
            (13, "account 1 is in line 2 with another currency"),
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for ((line, reason), (expected_line, part)) in found.iter().zip(expected) {
            assert!(
                *line == expected_line && reason.contains(part),
                "line {line}: {reason}, not {part}"
            );
        }
    }

    #[test]
    fn what_may_be_a_pin_is_not_repeated() {
        let bad = load(b"holder,currency,pin,balance\nAnn,918273645546,USD,1.00\n").unwrap_err();
        assert!(
            bad.iter().any(|row| row.reason.contains("in its column")),
            "{bad:?}"
        );
        assert!(!format!("{bad:?}").contains("918273645546"), "{bad:?}");
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        let check = |csv: &[u8], part: &str| {
            let bad = load(csv).unwrap_err();
            assert!(bad[0].reason.contains(part), "{bad:?}");
        };
        check(b"", "empty");
        check(b"holder,pin,balance\n", "empty");
        check(
            b"holder,pin,balance,colour\nA,1234,1,red\n",
            "unknown column \"colour\"",
        );
        check(b"holder,pin,pin,balance\n", "twice");
        check(b"card,pin,balance\n1,1234,1\n", "\"holder\" is missing");
        check(&[0xff; 100], "columns");
        check(b"\0\0\0,1,2", "control");
    }

    #[test]
    fn what_the_bank_has_already_is_refused() {
        let existing = |accounts: &[AccountId], cards: &[CardNumber]| {
            assert_eq!((accounts.len(), cards.len()), (1, 2));
            Ok(ExistingNames {
                accounts: accounts.iter().copied().collect(),
                cards: [cards[1].clone()].into(),
                highest_account: 2000,
            })
        };
        let csv = "holder,pin,account,balance\nA,1111,5,1\nB,1111,,1\n";
        let Err(ListError::BadRows(bad)) = AccountList::from_csv(csv.as_bytes(), existing) else {
            panic!()
        };
        let found: Vec<_> = bad.iter().map(|row| (row.line, row.reason.as_str())).collect();
        assert_eq!(
            found,
            [
                (2, "the bank has an account 5 already"),
                (3, "the bank has a card \"B\" already")
            ]
        );
    }

    #[test]
    fn a_generated_banks_pins_are_as_the_help_says() {
        let list = AccountList::generate(12_345, Currency::USD, Money::from_minor(100));
        assert_eq!((list.accounts.len(), list.cards.len()), (12_345, 12_345));
        let peppers = Peppers::random().unwrap();
        let card = list
            .cards
            .iter()
            .position(|card| card.number.as_str() == "10042")
            .unwrap();
        let card = AccountList {
            accounts: vec![],
            cards: vec![list.cards.into_iter().nth(card).unwrap()],
            weak_pin_lines: vec![],
        };
        let (_, hashed) = card.hash_pins(&peppers, PinProfile::Fast, &|_| ()).unwrap();
        assert!(
            peppers
                .verify(&Pin::new(b"0042").unwrap(), &hashed[0].pin_hash, 1)
                .unwrap()
        );
    }
}
