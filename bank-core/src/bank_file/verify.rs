//! Proving that the books balance: the whole journal is added up again and compared with what is stored.
//!
//! This shares the reading of rows with the rest, but not the arithmetic: balances, chains and totals are
//! computed here from the amounts alone.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use rusqlite::Connection;

use super::links::Links;
use super::rows::{Totals, read_account, read_checkpoint_lsn, read_row, read_totals};
use super::schema::{ACCOUNT_COLUMNS, JOURNAL_READ};
use super::{Access, BankFileError, connect};
use crate::account::Account;
use crate::chain::{Head, ReceiptHead};
use crate::ids::{AccountId, Lsn, TerminalId, TxnId};
use crate::interest::Period;
use crate::limits::MAX_ID_AHEAD;
use crate::money::{Currency, Money};
use crate::recent_ids::RecentIds;
use crate::row::{Contra, ContraSide, Kind, Outcome, Row, SystemAccount, SystemLedger};
use crate::time::{BusinessDate, Timestamp};
use crate::transaction::Decline;

/// What [`verify`] found. The books balance if there are no problems.
#[derive(Debug)]
pub struct Proof {
    /// The newest row.
    pub lsn: Lsn,
    /// The newest head of the hash chain: none if nothing has happened yet, or the file is from before there was a chain.
    pub head: Option<Head>,
    /// How many commands of operators there are.
    pub actions: u64,
    /// How many accounts there are.
    pub accounts: usize,
    /// How many cards there are.
    pub cards: u64,
    /// The trial balance of each currency.
    pub currencies: BTreeMap<Currency, CurrencyTotals>,
    /// What came into each terminal less what went out, in minor units.
    pub terminal_cash: BTreeMap<(TerminalId, Currency), i128>,
    /// What is wrong, the first [`Proof::MAX_PROBLEMS`] of it.
    pub problems: Vec<String>,
    /// How many problems there are in all.
    pub problem_count: u64,
}

/// One currency's trial balance, in minor units. All of it together is zero if the books balance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CurrencyTotals {
    /// What the bank owes its customers.
    pub customers: i128,
    /// The cash in terminals, negative.
    pub cash: i128,
    /// What accounts were opened with, negative.
    pub opening: i128,
    /// The interest that was paid, negative, less what was taken.
    pub interest: i128,
    /// What operators have added, negative, less what they have taken.
    pub adjustment: i128,
    /// Likewise, where it is not known yet where it belongs.
    pub suspense: i128,
}

impl CurrencyTotals {
    /// The sum of all accounts: zero if the books balance.
    pub fn sum(&self) -> i128 {
        self.customers + self.cash + self.opening + self.interest + self.adjustment + self.suspense
    }
}

impl Proof {
    /// How many problems are described one by one.
    pub const MAX_PROBLEMS: usize = 20;

    /// Whether nothing is wrong.
    pub fn holds(&self) -> bool {
        self.problem_count == 0
    }

    pub(super) fn problem(&mut self, problem: impl fmt::Display) {
        self.problem_count += 1;
        if self.problems.len() < Proof::MAX_PROBLEMS {
            self.problems.push(problem.to_string());
        }
    }
}

impl fmt::Display for Proof {
    /// The one-line proof.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.holds() {
            return write!(f, "the books do not balance: {} problems", self.problem_count);
        }
        write!(
            f,
            "the books balance: {} accounts, {} cards, {} journal rows",
            self.accounts, self.cards, self.lsn
        )?;
        for (currency, totals) in &self.currencies {
            let show = |sum: i128| match i64::try_from(sum) {
                Ok(minor) => currency.format(Money::from_minor(minor)),
                Err(_) => format!("{sum} minor units"),
            };
            let (customers, cash, opening) =
                (show(totals.customers), show(totals.cash), show(totals.opening));
            write!(
                f,
                "; {currency}: customers {customers} + cash {cash} + opening {opening}"
            )?;
            let seldom = [
                ("interest", totals.interest),
                ("adjustment", totals.adjustment),
                ("suspense", totals.suspense),
            ];
            for (name, sum) in seldom.into_iter().filter(|&(_, sum)| sum != 0) {
                write!(f, " + {name} {}", show(sum))?;
            }
            f.write_str(" = 0")?;
        }
        match &self.head {
            Some(head) => write!(f, "; head {}:{head}", self.lsn),
            None => Ok(()),
        }
    }
}

/// An account as the journal alone tells it.
struct Ledger {
    stored: Account,
    balance: i128,
    last_lsn: Lsn,
    last_time: Timestamp,
    business_date: BusinessDate,
    withdrawn: i128,
    greatest_txn_id: Option<TxnId>,
    rows: u64,
    interest_period: Option<Period>,
    /// Whether the row was met that the stored account is as of.
    met_stored: bool,
}

/// Reads the whole bank file in one snapshot, also while it is being served, and checks that
///
/// - journal rows are dense in Lsn, and each is chained to the same account's previous one;
/// - each balance is the previous one plus the amount, or unchanged where the row is declined;
/// - an account's time and business date never run backwards;
/// - every stored account is as the journal had it at the row that it names, and no older than the checkpoint;
/// - the bank's own accounts are what the rows up to the checkpoint add up to;
/// - all accounts together are zero in each currency;
/// - every card opens an account that exists;
/// - no transaction id has two outcomes on an account, and none is reversed twice;
/// - every reversal undoes an approved row of the same account, other side, terminal and id, by its whole amount;
/// - no account has interest twice for a month;
/// - every row names a card of its account and an operator's action that posted it, where it names one;
/// - the hash chain, computed anew from the first row and action, has the head that is stored with each commit.
///
/// # Errors
/// If the file cannot be read. What is wrong with its contents is in the [`Proof`].
pub fn verify(path: &Path) -> Result<Proof, BankFileError> {
    verify_with_receipts(path, &[])
}

/// As [`verify`], and that the history up to each receipt's row is still what it was when the receipt was given.
///
/// # Errors
/// As [`verify`].
pub fn verify_with_receipts(path: &Path, receipts: &[ReceiptHead]) -> Result<Proof, BankFileError> {
    let mut connection = connect(path, Access::ReadOnly)?;
    let snapshot = connection
        .transaction()
        .map_err(BankFileError::sqlite("taking a snapshot"))?;
    let mut proof = Proof {
        lsn: Lsn::ZERO,
        head: None,
        actions: 0,
        accounts: 0,
        cards: 0,
        currencies: BTreeMap::new(),
        terminal_cash: BTreeMap::new(),
        problems: Vec::new(),
        problem_count: 0,
    };
    check_pages(&snapshot, &mut proof)?;
    let mut ledgers = read_ledgers(&snapshot, &mut proof)?;
    let checkpoint = read_checkpoint_lsn(&snapshot)?;
    let stored_totals = read_totals(&snapshot)?;
    let mut links = Links::new(&snapshot, receipts)?;
    let totals = add_up_journal(
        &snapshot,
        &mut ledgers,
        checkpoint,
        &stored_totals,
        &mut links,
        &mut proof,
    )?;
    links.end(&snapshot, &mut proof)?;
    check_accounts(&ledgers, &mut proof);
    check_trial_balance(&ledgers, &totals, &mut proof);
    check_cards(&snapshot, &mut proof)?;
    check_ids(&snapshot, &mut proof)?;
    check_reversals(&snapshot, &mut proof)?;
    check_names(&snapshot, &mut proof)?;
    proof.accounts = ledgers.len();
    Ok(proof)
}

fn check_pages(snapshot: &Connection, proof: &mut Proof) -> Result<(), BankFileError> {
    let sqlite = BankFileError::sqlite("checking the file's pages");
    let mut check = snapshot.prepare("PRAGMA quick_check(20)").map_err(&sqlite)?;
    let mut found = check.query([]).map_err(&sqlite)?;
    while let Some(columns) = found.next().map_err(&sqlite)? {
        let line: String = columns.get(0).map_err(&sqlite)?;
        if line != "ok" {
            proof.problem(line);
        }
    }
    Ok(())
}

fn read_ledgers(
    snapshot: &Connection,
    proof: &mut Proof,
) -> Result<HashMap<AccountId, Ledger>, BankFileError> {
    let sqlite = BankFileError::sqlite("reading the accounts");
    let mut select = snapshot
        .prepare(&format!("SELECT {ACCOUNT_COLUMNS} FROM accounts"))
        .map_err(&sqlite)?;
    let mut found = select.query([]).map_err(&sqlite)?;
    let mut ledgers = HashMap::new();
    while let Some(columns) = found.next().map_err(&sqlite)? {
        match read_account(columns) {
            Ok(stored) => {
                let ledger = Ledger {
                    stored,
                    balance: 0,
                    last_lsn: Lsn::ZERO,
                    last_time: Timestamp::default(),
                    business_date: BusinessDate::default(),
                    withdrawn: 0,
                    greatest_txn_id: None,
                    rows: 0,
                    interest_period: None,
                    met_stored: false,
                };
                ledgers.insert(ledger.stored.id, ledger);
            }
            Err(error) => proof.problem(error),
        }
    }
    Ok(ledgers)
}

/// Adds up the journal from its beginning. Gives the totals of the bank's own accounts at its end.
fn add_up_journal(
    snapshot: &Connection,
    ledgers: &mut HashMap<AccountId, Ledger>,
    checkpoint: Lsn,
    stored_totals: &Totals,
    links: &mut Links<'_>,
    proof: &mut Proof,
) -> Result<Totals, BankFileError> {
    let sqlite = BankFileError::sqlite("reading the journal");
    let mut select = snapshot
        .prepare(&format!("SELECT {JOURNAL_READ} FROM journal ORDER BY lsn"))
        .map_err(&sqlite)?;
    let mut found = select.query([]).map_err(&sqlite)?;
    let mut totals = Totals::new();
    let mut checkpoint_met = checkpoint == Lsn::ZERO;
    while let Some(columns) = found.next().map_err(&sqlite)? {
        let row = match read_row(columns, |id| {
            ledgers.get(&id).map(|ledger| ledger.stored.currency)
        }) {
            Ok(row) => row,
            Err(error) => {
                proof.problem(error);
                proof.lsn = proof.lsn.next();
                continue;
            }
        };
        if row.lsn != proof.lsn.next() {
            proof.problem(format!(
                "journal row {} follows row {}: rows between are missing",
                row.lsn, proof.lsn
            ));
        }
        proof.lsn = row.lsn;
        add_row(&row, ledgers, &mut totals, checkpoint, proof);
        links.add(snapshot, &row, proof)?;
        if row.lsn == checkpoint {
            checkpoint_met = true;
            check_totals(&totals, stored_totals, checkpoint, proof);
        }
    }
    if !checkpoint_met {
        proof.problem(format!(
            "the checkpoint names row {checkpoint}, which does not exist"
        ));
    }
    Ok(totals)
}

fn add_row(
    row: &Row,
    ledgers: &mut HashMap<AccountId, Ledger>,
    totals: &mut Totals,
    checkpoint: Lsn,
    proof: &mut Proof,
) {
    let lsn = row.lsn;
    let approved = row.outcome == Outcome::Approved;
    let amount = i128::from(row.amount.minor());
    let payee = match row.contra {
        Contra::Account(payee) => Some(payee),
        Contra::System(system) => {
            if approved {
                let terminal = row.terminal.filter(|_| system == SystemAccount::Cash);
                *totals
                    .entry(SystemLedger {
                        account: system,
                        currency: row.currency,
                        terminal,
                    })
                    .or_default() -= amount;
            }
            None
        }
    };
    let sign_fits = match row.kind {
        Kind::Deposit => amount > 0 && row.contra == Contra::System(SystemAccount::Cash),
        Kind::Withdrawal => amount < 0 && row.contra == Contra::System(SystemAccount::Cash),
        Kind::Transfer => amount < 0 && payee.is_some(),
        Kind::Opening => amount >= 0 && approved && row.contra == Contra::System(SystemAccount::Opening),
        Kind::Advice => amount > 0 && row.contra == Contra::System(SystemAccount::Cash),
        Kind::Fence => amount == 0 && !approved && row.contra == Contra::System(SystemAccount::Cash),
        Kind::Interest => amount != 0 && approved && row.contra == Contra::System(SystemAccount::Interest),
        Kind::Adjustment => amount != 0 && approved && matches!(row.contra, Contra::System(_)),
        // Compared with its original.
        Kind::Reversal => amount != 0,
    };
    if !sign_fits {
        proof.problem(format!(
            "journal row {lsn}: amount {amount} and contra do not fit a {}",
            row.kind.name()
        ));
    }
    let by_bank = matches!(row.kind, Kind::Opening | Kind::Interest | Kind::Adjustment);
    if by_bank != row.txn_id.is_none() || by_bank != row.terminal.is_none() || (by_bank && row.card.is_some())
    {
        proof.problem(format!(
            "journal row {lsn}: an id and a terminal are there exactly where the bank itself has not posted it"
        ));
    }
    // Accounts are opened by loading a list, too.
    let may_be_ordered = by_bank || row.action.is_none();
    if !may_be_ordered || (by_bank && row.kind != Kind::Opening && row.action.is_none()) {
        proof.problem(format!(
            "journal row {lsn}: an operator's action is there exactly where one has posted it"
        ));
    }
    if (row.kind == Kind::Interest) != row.period.is_some() {
        proof.problem(format!(
            "journal row {lsn}: a month is there exactly where it is interest"
        ));
    }
    // A search for an old id ends where rows are older than it can be.
    let earliest = |id| Timestamp::from(id).millis() - MAX_ID_AHEAD.as_millis() as i64;
    if row
        .own_id()
        .is_some_and(|id| row.moment.time.millis() < earliest(id))
    {
        proof.problem(format!("journal row {lsn} is of long before its transaction id"));
    }
    let reason_fits = match row.outcome {
        Outcome::Declined(Decline::GivenUp) => row.kind == Kind::Fence,
        Outcome::Declined(Decline::CannotReverse) => row.kind == Kind::Reversal,
        Outcome::Declined(_) => row.kind != Kind::Fence && row.kind != Kind::Reversal,
        Outcome::Approved => row.kind != Kind::Fence,
    };
    if !reason_fits {
        proof.problem(format!(
            "journal row {lsn}: a {} cannot have such an outcome",
            row.kind.name()
        ));
    }
    if row.contra_side.is_some() != (approved && payee.is_some()) {
        proof.problem(format!(
            "journal row {lsn}: a payee's side is there exactly in approved transfers and their reversals"
        ));
    }
    if let Some(ledger) = ledgers.get_mut(&row.account) {
        if (row.kind == Kind::Opening) != (ledger.rows == 0) {
            proof.problem(format!(
                "journal row {lsn}: an account's first row, and no other, is its opening"
            ));
        }
        let change = if approved { amount } else { 0 };
        let cash_out = match (row.kind, row.original) {
            (Kind::Withdrawal, _) => -change,
            (Kind::Reversal, Some(original))
                if amount > 0 && payee.is_none() && original.date == row.moment.date =>
            {
                -change
            }
            _ => 0,
        };
        let claim = Claim {
            id: row.account,
            change,
            cash_out,
            balance: row.balance,
            prev_lsn: row.prev_lsn,
            txn_id: row.txn_id.filter(|_| row.kind != Kind::Reversal),
        };
        if let Some(period) = row.period {
            if ledger.interest_period.is_some_and(|newest| newest >= period) {
                proof.problem(format!(
                    "journal row {lsn}: account {} has interest for {period} twice, or after a later month",
                    row.account
                ));
            }
            ledger.interest_period = ledger.interest_period.max(Some(period));
        }
        ledger.add(row, &claim, checkpoint, proof);
    }
    if let (Some(payee), Some(side)) = (payee, row.contra_side) {
        match ledgers.get_mut(&payee) {
            Some(ledger) if ledger.stored.currency == row.currency => {
                let ContraSide { balance, prev_lsn } = side;
                let claim = Claim {
                    id: payee,
                    change: -amount,
                    cash_out: 0,
                    balance,
                    prev_lsn,
                    txn_id: None,
                };
                ledger.add(row, &claim, checkpoint, proof);
            }
            Some(_) => proof.problem(format!(
                "journal row {lsn} pays account {payee} in another currency"
            )),
            None => proof.problem(format!("journal row {lsn} pays the unknown account {payee}")),
        }
    }
}

/// What a row says of one of its two accounts.
struct Claim {
    id: AccountId,
    /// What the row adds to the account.
    change: i128,
    /// What of it was withdrawn in cash.
    cash_out: i128,
    /// The balance that the row says the account has afterwards.
    balance: Money,
    /// The row that it says was the account's previous one.
    prev_lsn: Lsn,
    /// The transaction id that has its outcome in the row, if the account is the one that it first names.
    txn_id: Option<TxnId>,
}

impl Ledger {
    /// Adds one side of a row, and compares what it says of itself.
    fn add(&mut self, row: &Row, claim: &Claim, checkpoint: Lsn, proof: &mut Proof) {
        let (
            lsn,
            Claim {
                id,
                change,
                balance,
                prev_lsn,
                ..
            },
        ) = (row.lsn, claim);
        if *prev_lsn != self.last_lsn {
            proof.problem(format!(
                "journal row {lsn} names row {prev_lsn} as the previous one of account {id}, which is row {}",
                self.last_lsn
            ));
        }
        let balance = i128::from(balance.minor());
        if balance != self.balance + change {
            proof.problem(format!(
                "journal row {lsn}: account {id} had {}, the row adds {change}, but says {balance} afterwards (minor units)",
                self.balance
            ));
        }
        if row.moment.time < self.last_time || row.moment.date < self.business_date {
            proof.problem(format!("journal row {lsn}: time runs backwards for account {id}"));
        }
        if lsn > self.stored.last_lsn && lsn <= checkpoint {
            proof.problem(format!(
                "account {id} is stored as of row {}, although the checkpoint at {checkpoint} includes its row {lsn}",
                self.stored.last_lsn
            ));
        }
        let withdrawn = if row.moment.date > self.business_date {
            0
        } else {
            self.withdrawn
        };
        self.withdrawn = withdrawn + claim.cash_out;
        // Go on from what the row says, so that one wrong row is one problem and not one for each row after it.
        self.balance = balance;
        self.greatest_txn_id = self.greatest_txn_id.max(claim.txn_id);
        self.last_lsn = lsn;
        self.last_time = row.moment.time;
        self.business_date = row.moment.date;
        self.rows += 1;
        if self.stored.last_lsn == lsn {
            self.met_stored = true;
            self.compare_stored(proof);
        }
    }

    fn compare_stored(&self, proof: &mut Proof) {
        let Account { id, last_lsn, .. } = self.stored;
        if self.stored.recent_ids != RecentIds::after(self.greatest_txn_id) {
            proof.problem(format!(
                "account {id} is stored with another greatest transaction id than it has as of journal row {last_lsn}"
            ));
        }
        if self.stored.interest_period != self.interest_period {
            proof.problem(format!(
                "account {id} is stored with another newest month of interest than it has as of journal row {last_lsn}"
            ));
        }
        let pairs = [
            ("balance", i128::from(self.stored.balance.minor()), self.balance),
            (
                "withdrawn",
                i128::from(self.stored.withdrawn.minor()),
                self.withdrawn,
            ),
            (
                "time",
                i128::from(self.stored.last_time.millis()),
                i128::from(self.last_time.millis()),
            ),
            (
                "business date",
                i128::from(self.stored.business_date.days()),
                i128::from(self.business_date.days()),
            ),
        ];
        for (what, stored, computed) in pairs {
            if stored != computed {
                proof.problem(format!(
                    "account {id} is stored with {what} {stored}, but has {computed} as of journal row {last_lsn}"
                ));
            }
        }
    }
}

fn check_accounts(ledgers: &HashMap<AccountId, Ledger>, proof: &mut Proof) {
    for Account { id, last_lsn, .. } in ledgers.values().filter(|l| !l.met_stored).map(|l| &l.stored) {
        proof.problem(format!(
            "account {id} is stored as of journal row {last_lsn}, which is not one of its rows"
        ));
    }
}

fn check_totals(totals: &Totals, stored: &Totals, checkpoint: Lsn, proof: &mut Proof) {
    let ledgers = totals
        .keys()
        .chain(stored.keys())
        .collect::<std::collections::BTreeSet<_>>();
    for ledger in ledgers {
        let (computed, stored) = (totals.get(ledger).unwrap_or(&0), stored.get(ledger).unwrap_or(&0));
        if computed != stored {
            let at = ledger
                .terminal
                .map(|terminal| format!(" at {terminal}"))
                .unwrap_or_default();
            proof.problem(format!(
                "the bank's {} account in {}{at} is stored as {stored}, but the rows up to {checkpoint} add up to {computed}",
                ledger.account.name(),
                ledger.currency
            ));
        }
    }
}

fn check_trial_balance(ledgers: &HashMap<AccountId, Ledger>, totals: &Totals, proof: &mut Proof) {
    for ledger in ledgers.values() {
        proof
            .currencies
            .entry(ledger.stored.currency)
            .or_default()
            .customers += ledger.balance;
    }
    for (ledger, total) in totals {
        let currency = proof.currencies.entry(ledger.currency).or_default();
        match ledger.account {
            SystemAccount::Cash => {
                currency.cash += total;
                if let Some(terminal) = ledger.terminal {
                    proof.terminal_cash.insert((terminal, ledger.currency), -total);
                }
            }
            SystemAccount::Opening => currency.opening += total,
            SystemAccount::Interest => currency.interest += total,
            SystemAccount::Adjustment => currency.adjustment += total,
            SystemAccount::Suspense => currency.suspense += total,
        }
    }
    let unbalanced: Vec<_> = proof
        .currencies
        .iter()
        .filter(|(_, t)| t.sum() != 0)
        .map(|(c, t)| (*c, t.sum()))
        .collect();
    for (currency, sum) in unbalanced {
        proof.problem(format!(
            "all accounts in {currency} add up to {sum} minor units instead of 0"
        ));
    }
}

fn check_cards(snapshot: &Connection, proof: &mut Proof) -> Result<(), BankFileError> {
    let sqlite = BankFileError::sqlite("reading the cards");
    let (cards, orphans): (i64, i64) = snapshot
        .query_row(
            "SELECT count(*), count(*) FILTER (WHERE account NOT IN (SELECT account FROM accounts)) FROM cards",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .map_err(&sqlite)?;
    proof.cards = cards.unsigned_abs();
    if orphans > 0 {
        proof.problem(format!("{orphans} cards open accounts that do not exist"));
    }
    Ok(())
}

/// What a row says of its original is checked by the columns alone, apart from the reading of rows.
fn check_reversals(snapshot: &Connection, proof: &mut Proof) -> Result<(), BankFileError> {
    let wrong = "SELECT reversal.lsn FROM journal AS reversal
         LEFT JOIN journal AS original ON original.lsn = reversal.original_lsn
         WHERE (reversal.kind = ?1 OR reversal.original_lsn IS NOT NULL) AND NOT coalesce(
             reversal.kind = ?1 AND original.kind IN (?2, ?3, ?4, ?5) AND original.outcome = 0
             AND original.lsn < reversal.lsn AND original.txn_id = reversal.txn_id
             AND original.account = reversal.account AND original.contra = reversal.contra
             AND original.terminal = reversal.terminal AND original.amount = -reversal.amount, 0)";
    let kinds = [
        Kind::Reversal,
        Kind::Deposit,
        Kind::Withdrawal,
        Kind::Transfer,
        Kind::Advice,
    ];
    each_row(snapshot, wrong, &kinds.map(Kind::number), |lsn| {
        proof.problem(format!(
            "journal row {lsn} and the row that it reverses do not fit"
        ));
    })
}

/// What rows say of cards and actions.
fn check_names(snapshot: &Connection, proof: &mut Proof) -> Result<(), BankFileError> {
    let wrong_card = "SELECT lsn FROM journal LEFT JOIN cards USING (card_id)
         WHERE journal.card_id IS NOT NULL AND cards.account IS NOT journal.account";
    each_row(snapshot, wrong_card, &[], |lsn| {
        proof.problem(format!(
            "journal row {lsn} names a card that does not open its account"
        ));
    })?;
    // A run of interest posts many rows, and names none of them.
    let wrong_action = "SELECT journal.lsn FROM journal LEFT JOIN actions USING (action)
         WHERE journal.action IS NOT NULL
             AND (actions.action IS NULL OR actions.lsn IS NOT CASE WHEN journal.kind = ?1 THEN NULL ELSE journal.lsn END)";
    each_row(snapshot, wrong_action, &[Kind::Interest.number()], |lsn| {
        proof.problem(format!(
            "journal row {lsn} and the operator's action that posted it do not fit"
        ));
    })?;
    let wrong_row = "SELECT actions.lsn FROM actions LEFT JOIN journal USING (lsn)
         WHERE actions.lsn IS NOT NULL AND journal.action IS NOT actions.action";
    each_row(snapshot, wrong_row, &[], |lsn| {
        proof.problem(format!(
            "an operator's action names journal row {lsn}, which it has not posted"
        ));
    })?;
    let (actions, last): (i64, Option<i64>) = snapshot
        .query_row("SELECT count(*), max(action) FROM actions", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(BankFileError::sqlite("counting operators' actions"))?;
    proof.actions = actions.unsigned_abs();
    if actions != last.unwrap_or(0) {
        proof.problem(format!(
            "of the operators' actions up to {} there are {actions}",
            last.unwrap_or(0)
        ));
    }
    Ok(())
}

fn check_ids(snapshot: &Connection, proof: &mut Proof) -> Result<(), BankFileError> {
    for (reversals, what) in [("<>", "outcomes"), ("=", "reversals")] {
        let twice = format!(
            "SELECT max(lsn) FROM journal WHERE txn_id IS NOT NULL AND kind {reversals} ?1
             GROUP BY account, txn_id HAVING count(*) > 1"
        );
        each_row(snapshot, &twice, &[Kind::Reversal.number()], |lsn| {
            proof.problem(format!("the transaction id of journal row {lsn} has two {what}"));
        })?;
    }
    Ok(())
}

/// Hands each row that a query finds to `each`, by its Lsn.
fn each_row(
    snapshot: &Connection,
    sql: &str,
    parameters: &[u8],
    mut each: impl FnMut(i64),
) -> Result<(), BankFileError> {
    let sqlite = BankFileError::sqlite("checking transaction ids");
    let mut select = snapshot.prepare(sql).map_err(&sqlite)?;
    let mut found = select
        .query(rusqlite::params_from_iter(parameters))
        .map_err(&sqlite)?;
    while let Some(columns) = found.next().map_err(&sqlite)? {
        each(columns.get(0).map_err(&sqlite)?);
    }
    Ok(())
}
