//! Transactions and the rules that approve or decline them: a pure function of state, order and time.

use crate::account::{Account, AccountStatus};
use crate::ids::{AccountId, ActionId, CardId, Lsn, TerminalId, TxnId};
use crate::interest::{Period, Rate};
use crate::money::{Amount, Money};
use crate::row::{Contra, ContraSide, Kind, Original, Outcome, Row, SystemAccount};
use crate::time::{BusinessDate, Moment};

/// What is to be done on an account: by a customer, on the one that the card opens, or by a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    /// Cash put into the terminal.
    Deposit {
        /// How much.
        amount: Amount,
    },
    /// Cash taken from the terminal.
    Withdraw {
        /// How much.
        amount: Amount,
    },
    /// Money moved to another customer's account.
    Transfer {
        /// The payee's account.
        to: AccountId,
        /// How much.
        amount: Amount,
    },
    /// Cash put into the terminal while the bank was away: the bank has it, so the account is credited, whatever its
    /// status and limits.
    Advice {
        /// How much.
        amount: Amount,
    },
    /// The terminal gives the transaction up: under its id nothing is to be done any more.
    GiveUp,
}

impl Transaction {
    /// What it is called in the journal, its other side, and what approval adds to the account.
    fn parts(&self) -> (Kind, Contra, Money) {
        let cash = Contra::System(SystemAccount::Cash);
        let debit = |amount: Amount| Money::from_minor(-amount.minor());
        match *self {
            Transaction::Deposit { amount } => (Kind::Deposit, cash, amount.money()),
            Transaction::Withdraw { amount } => (Kind::Withdrawal, cash, debit(amount)),
            Transaction::Transfer { to, amount } => (Kind::Transfer, Contra::Account(to), debit(amount)),
            Transaction::Advice { amount } => (Kind::Advice, cash, amount.money()),
            Transaction::GiveUp => (Kind::Fence, cash, Money::ZERO),
        }
    }
}

/// A transaction with what identifies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// The id that the client made for it.
    pub txn_id: TxnId,
    /// Where it was asked for.
    pub terminal: TerminalId,
    /// The card with which it was asked for; none if the terminal acts for itself.
    pub card: Option<CardId>,
    /// What is to be done.
    pub transaction: Transaction,
}

impl Order {
    /// Whether a row that was found under the order's id and account is the order's outcome. If not, the id is used for two
    /// different things.
    ///
    /// A deposit and the advice of it are one thing: the advice is sent when the deposit has had no answer. What the
    /// terminal has given up has its outcome in the fence.
    pub fn has_outcome(&self, row: &Row) -> bool {
        let (kind, contra, amount) = self.transaction.parts();
        let cash_in = |kind| matches!(kind, Kind::Deposit | Kind::Advice);
        let same_kind = kind == row.kind || (cash_in(kind) && cash_in(row.kind));
        let same_body = same_kind && (contra, amount) == (row.contra, row.amount);
        row.terminal == Some(self.terminal) && (same_body || row.kind == Kind::Fence)
    }
}

/// Why a business rule declines a transaction. The numbers are stored in the journal: they are only added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Decline {
    /// The account is closed.
    #[error("This account is closed.")]
    AccountClosed = 1,
    /// An operator has frozen the account.
    #[error("This account is frozen. Please speak to the bank.")]
    AccountFrozen = 2,
    /// The withdrawal would pass the daily limit.
    #[error("This would exceed the daily withdrawal limit.")]
    DailyLimit = 3,
    /// The balance and the overdraft do not cover it.
    #[error("Insufficient funds.")]
    InsufficientFunds = 4,
    /// The balance would pass what an account can hold.
    #[error("The account cannot hold that much money.")]
    BalanceTooLarge = 5,
    /// A transfer from an account to itself.
    #[error("An account cannot transfer to itself.")]
    SameAccount = 6,
    /// No such payee.
    #[error("There is no such account to transfer to.")]
    NoSuchPayee = 7,
    /// The payee's account is frozen or closed.
    #[error("The account to transfer to cannot receive money.")]
    PayeeUnavailable = 8,
    /// The payee's account is in another currency.
    #[error("The account to transfer to is in another currency.")]
    OtherCurrency = 9,
    /// The payee's balance would pass what an account can hold.
    #[error("The account to transfer to cannot hold that much money.")]
    PayeeBalanceTooLarge = 10,
    /// The terminal gave the transaction up before the bank had done it.
    #[error("This transaction was given up before it was done.")]
    GivenUp = 11,
    /// Undoing the original would pass what an account can hold.
    #[error("This cannot be undone: an account could not hold the money.")]
    CannotReverse = 12,
}

impl Decline {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Decline; 12] = [
        Decline::AccountClosed,
        Decline::AccountFrozen,
        Decline::DailyLimit,
        Decline::InsufficientFunds,
        Decline::BalanceTooLarge,
        Decline::SameAccount,
        Decline::NoSuchPayee,
        Decline::PayeeUnavailable,
        Decline::OtherCurrency,
        Decline::PayeeBalanceTooLarge,
        Decline::GivenUp,
        Decline::CannotReverse,
    ];

    /// The number under which the journal stores it.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The reason with that number.
    pub fn from_number(number: u8) -> Option<Decline> {
        Decline::ALL
            .into_iter()
            .find(|decline| decline.number() == number)
    }

    /// The name that scripts and the bank file know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Decline::AccountClosed => "account_closed",
            Decline::AccountFrozen => "account_frozen",
            Decline::DailyLimit => "daily_limit",
            Decline::InsufficientFunds => "insufficient_funds",
            Decline::BalanceTooLarge => "balance_too_large",
            Decline::SameAccount => "same_account",
            Decline::NoSuchPayee => "no_such_payee",
            Decline::PayeeUnavailable => "payee_unavailable",
            Decline::OtherCurrency => "other_currency",
            Decline::PayeeBalanceTooLarge => "payee_balance_too_large",
            Decline::GivenUp => "given_up",
            Decline::CannotReverse => "cannot_reverse",
        }
    }
}

/// The other side of an order, as the bank found it.
#[derive(Clone, Copy, Debug)]
pub enum Payee<'a> {
    /// The order is no transfer, or goes to no account of this bank, or to the account itself.
    None,
    /// The customer who is paid.
    Account(&'a Account),
}

/// Decides an order and gives its journal row, complete but for its Lsn. It changes nothing: the row does,
/// once it has a place in the journal.
///
/// A row's moment is never before the newest row of any account that it is chained to.
pub fn decide(order: &Order, account: &Account, payee: Payee<'_>, moment: Moment) -> Row {
    let (kind, contra, amount) = order.transaction.parts();
    let row = Row {
        lsn: Lsn::ZERO,
        moment: moment.not_before(account.last_time, account.business_date),
        kind,
        outcome: Outcome::Approved,
        txn_id: Some(order.txn_id),
        account: account.id,
        contra,
        terminal: Some(order.terminal),
        amount,
        balance: account.balance,
        prev_lsn: account.last_lsn,
        contra_side: None,
        original: None,
        card: order.card,
        action: None,
        period: None,
        currency: account.currency,
    };
    let decided = match order.transaction {
        Transaction::Deposit { amount } => deposit(account, amount).map(After::alone),
        Transaction::Withdraw { amount } => withdraw(account, amount, row.moment.date).map(After::alone),
        Transaction::Transfer { to, amount } => transfer(account, to, payee, amount),
        Transaction::Advice { amount } => credit(account, amount).map(After::alone),
        Transaction::GiveUp => Err(Decline::GivenUp),
    };
    match decided {
        Ok(after) => after.complete(row),
        Err(decline) => Row {
            outcome: Outcome::Declined(decline),
            ..row
        },
    }
}

/// Undoes an approved row, and gives the reversal's row, as [`decide`] does. It is forced: no status and no limit stands
/// against it, only what an account can hold.
///
/// `payee` is the account that the original paid, if it paid one.
pub fn reverse(original: &Row, account: &Account, payee: Option<&Account>, moment: Moment) -> Row {
    let amount = Money::from_minor(-original.amount.minor());
    let row = Row {
        lsn: Lsn::ZERO,
        moment: moment.not_before(account.last_time, account.business_date),
        kind: Kind::Reversal,
        outcome: Outcome::Approved,
        amount,
        balance: account.balance,
        prev_lsn: account.last_lsn,
        contra_side: None,
        original: Some(Original {
            lsn: original.lsn,
            date: original.moment.date,
        }),
        ..*original
    };
    let after = account.balance.checked_add(amount).and_then(|balance| {
        let payee = match payee {
            Some(payee) => Some((payee, payee.balance.checked_add(original.amount)?)),
            None => None,
        };
        Some(After { balance, payee })
    });
    match after {
        Some(after) => after.complete(row),
        None => Row {
            outcome: Outcome::Declined(Decline::CannotReverse),
            ..row
        },
    }
}

/// What the bank itself posts on an account, by an operator's order. It is forced: no status and no limit stands against it, only
/// what an account can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posting {
    /// The balance with which an account is opened.
    Opening {
        /// Zero or more.
        amount: Money,
    },
    /// Something is put right.
    Adjustment {
        /// What it adds to the account.
        amount: Money,
        /// Where that comes from.
        against: SystemAccount,
    },
    /// Interest for a month.
    Interest {
        /// What part of the balance.
        rate: Rate,
        /// Which month.
        period: Period,
    },
}

/// Why a [`Posting`] makes no row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPosted {
    /// The account has had interest for that month, or for a later one.
    #[error("it has had its interest")]
    HasHadInterest,
    /// No interest is paid on a closed account.
    #[error("it is closed")]
    Closed,
    /// The interest comes to less than half a minor unit.
    #[error("it comes to nothing")]
    Nothing,
    /// The balance would pass what an account can hold.
    #[error("the account cannot hold the money")]
    CannotHold,
}

impl Posting {
    /// The row that it makes, complete but for its Lsn. It is approved: what cannot be is no row.
    ///
    /// # Errors
    /// [`NotPosted`].
    pub fn row(&self, account: &Account, action: Option<ActionId>, moment: Moment) -> Result<Row, NotPosted> {
        let (kind, contra, amount, period) = match *self {
            Posting::Opening { amount } => (Kind::Opening, SystemAccount::Opening, amount, None),
            Posting::Adjustment { amount, against } => (Kind::Adjustment, against, amount, None),
            Posting::Interest { rate, period } => {
                if account.interest_period.is_some_and(|newest| newest >= period) {
                    return Err(NotPosted::HasHadInterest);
                }
                if account.status == AccountStatus::Closed {
                    return Err(NotPosted::Closed);
                }
                let amount = rate.of(account.balance);
                if amount == Money::ZERO {
                    return Err(NotPosted::Nothing);
                }
                (Kind::Interest, SystemAccount::Interest, amount, Some(period))
            }
        };
        let balance = account.balance.checked_add(amount).ok_or(NotPosted::CannotHold)?;
        Ok(Row {
            lsn: Lsn::ZERO,
            moment: moment.not_before(account.last_time, account.business_date),
            kind,
            outcome: Outcome::Approved,
            txn_id: None,
            account: account.id,
            contra: Contra::System(contra),
            terminal: None,
            amount,
            balance,
            prev_lsn: account.last_lsn,
            contra_side: None,
            original: None,
            card: None,
            action,
            period,
            currency: account.currency,
        })
    }
}

/// What approval makes of the accounts.
struct After<'a> {
    balance: Money,
    payee: Option<(&'a Account, Money)>,
}

impl<'a> After<'a> {
    fn alone(balance: Money) -> After<'a> {
        After { balance, payee: None }
    }

    fn complete(self, row: Row) -> Row {
        let Some((payee, balance)) = self.payee else {
            return Row {
                balance: self.balance,
                ..row
            };
        };
        Row {
            moment: row.moment.not_before(payee.last_time, payee.business_date),
            balance: self.balance,
            contra_side: Some(ContraSide {
                balance,
                prev_lsn: payee.last_lsn,
            }),
            ..row
        }
    }
}

/// The balance after a deposit. Refused, in this order, because the account is closed, frozen, or could not
/// hold the money.
fn deposit(account: &Account, amount: Amount) -> Result<Money, Decline> {
    require_open(account)?;
    credit(account, amount)
}

/// The balance after a withdrawal. Refused, in this order, because the account is closed, frozen, the daily
/// limit would be passed, or the funds do not suffice.
fn withdraw(account: &Account, amount: Amount, date: BusinessDate) -> Result<Money, Decline> {
    require_open(account)?;
    // Without a limit of its own an account still has that of what can be counted in a day.
    let withdrawn = account.withdrawn_on(date).checked_add(amount.money());
    if withdrawn.is_none_or(|withdrawn| account.daily_limit.is_some_and(|limit| withdrawn > limit)) {
        return Err(Decline::DailyLimit);
    }
    debit(account, amount)
}

/// Both balances after a transfer, the payer's first. Refused, in this order, because it goes to the account
/// itself, the payer is closed or frozen, there is no such payee, the payee is frozen or closed, has another
/// currency, the funds do not suffice, or the payee could not hold the money.
fn transfer<'a>(
    account: &Account,
    to: AccountId,
    payee: Payee<'a>,
    amount: Amount,
) -> Result<After<'a>, Decline> {
    if to == account.id {
        return Err(Decline::SameAccount);
    }
    require_open(account)?;
    let Payee::Account(payee) = payee else {
        return Err(Decline::NoSuchPayee);
    };
    if payee.status != AccountStatus::Open {
        return Err(Decline::PayeeUnavailable);
    }
    if payee.currency != account.currency {
        return Err(Decline::OtherCurrency);
    }
    let balance = debit(account, amount)?;
    let payee_balance = payee
        .balance
        .checked_add(amount.money())
        .ok_or(Decline::PayeeBalanceTooLarge)?;
    Ok(After {
        balance,
        payee: Some((payee, payee_balance)),
    })
}

fn require_open(account: &Account) -> Result<(), Decline> {
    match account.status {
        AccountStatus::Open => Ok(()),
        AccountStatus::Closed => Err(Decline::AccountClosed),
        AccountStatus::Frozen => Err(Decline::AccountFrozen),
    }
}

fn credit(account: &Account, amount: Amount) -> Result<Money, Decline> {
    account
        .balance
        .checked_add(amount.money())
        .ok_or(Decline::BalanceTooLarge)
}

fn debit(account: &Account, amount: Amount) -> Result<Money, Decline> {
    account
        .balance
        .checked_sub(amount.money())
        .filter(|balance| i128::from(balance.minor()) >= -i128::from(account.overdraft_limit.minor()))
        .ok_or(Decline::InsufficientFunds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Currency;
    use crate::time::Timestamp;
    use proptest::prelude::*;

    const TODAY: BusinessDate = BusinessDate::from_days(20_000);

    fn account(number: u64, balance: i64) -> Account {
        Account {
            balance: Money::from_minor(balance),
            last_lsn: Lsn::new(number),
            ..Account::new(AccountId::new(number).unwrap(), Currency::USD)
        }
    }

    fn amount(minor: i64) -> Amount {
        Amount::from_minor(minor).unwrap()
    }

    fn order(transaction: Transaction) -> Order {
        Order {
            txn_id: TxnId::generate(),
            terminal: TerminalId::new("ATM-1").unwrap(),
            card: CardId::new(1),
            transaction,
        }
    }

    fn today() -> Moment {
        Moment {
            time: Timestamp::from_millis(20_000 * 86_400_000),
            date: TODAY,
        }
    }

    fn decide_alone(account: &Account, transaction: Transaction) -> Row {
        decide(&order(transaction), account, Payee::None, today())
    }

    fn outcome(account: &Account, transaction: Transaction) -> Outcome {
        decide_alone(account, transaction).outcome
    }

    #[test]
    fn approved_rows_carry_the_new_balance_and_declined_rows_the_old() {
        let account = account(1, 100);
        let check = |transaction, amount, balance, approved| {
            let row = decide_alone(&account, transaction);
            assert_eq!(
                (row.amount.minor(), row.balance.minor()),
                (amount, balance),
                "{transaction:?}"
            );
            assert_eq!(row.outcome == Outcome::Approved, approved, "{transaction:?}");
            assert_eq!(row.prev_lsn, account.last_lsn);
        };
        check(Transaction::Deposit { amount: amount(50) }, 50, 150, true);
        check(Transaction::Withdraw { amount: amount(100) }, -100, 0, true);
        check(Transaction::Withdraw { amount: amount(101) }, -101, 100, false);
    }

    #[test]
    fn a_transfer_moves_the_same_sum_on_both_sides() {
        let (payer, payee) = (account(1, 100), account(2, 5));
        let transfer = order(Transaction::Transfer {
            to: payee.id,
            amount: amount(30),
        });
        let row = decide(&transfer, &payer, Payee::Account(&payee), today());
        assert_eq!(row.outcome, Outcome::Approved);
        assert_eq!((row.balance.minor(), row.amount.minor()), (70, -30));
        assert_eq!(
            row.contra_side,
            Some(ContraSide {
                balance: Money::from_minor(35),
                prev_lsn: payee.last_lsn
            })
        );
    }

    /// Each account below breaks every rule that comes after its own, so the first that applies must win.
    #[test]
    fn refusals_come_in_the_documented_order() {
        let full = i64::MAX;
        let with = |status, balance, overdraft, daily: Option<i64>| Account {
            status,
            overdraft_limit: Money::from_minor(overdraft),
            daily_limit: daily.map(Money::from_minor),
            ..account(1, balance)
        };
        use AccountStatus::{Closed, Frozen, Open};
        let deposit = Transaction::Deposit { amount: amount(1) };
        for (status, decline) in [
            (Closed, Decline::AccountClosed),
            (Frozen, Decline::AccountFrozen),
            (Open, Decline::BalanceTooLarge),
        ] {
            assert_eq!(
                outcome(&with(status, full, 0, None), deposit),
                Outcome::Declined(decline)
            );
        }
        let withdraw = Transaction::Withdraw { amount: amount(10) };
        for (status, daily, decline) in [
            (Closed, Some(1), Decline::AccountClosed),
            (Frozen, Some(1), Decline::AccountFrozen),
            (Open, Some(9), Decline::DailyLimit),
            (Open, Some(10), Decline::InsufficientFunds),
            (Open, None, Decline::InsufficientFunds),
        ] {
            assert_eq!(
                outcome(&with(status, 3, 6, daily), withdraw),
                Outcome::Declined(decline)
            );
        }
        assert_eq!(outcome(&with(Open, 3, 7, Some(10)), withdraw), Outcome::Approved);

        let yen = Currency::from_code("JPY").unwrap();
        let payee = |status, currency, balance| Account {
            status,
            currency,
            ..account(2, balance)
        };
        let cases = [
            (Closed, 1, None, 1, Decline::SameAccount),
            (Closed, 2, None, 1, Decline::AccountClosed),
            (Frozen, 2, None, 1, Decline::AccountFrozen),
            (Open, 2, None, 1, Decline::NoSuchPayee),
            (
                Open,
                2,
                Some(payee(Closed, yen, full)),
                1,
                Decline::PayeeUnavailable,
            ),
            (
                Open,
                2,
                Some(payee(Frozen, yen, full)),
                1,
                Decline::PayeeUnavailable,
            ),
            (Open, 2, Some(payee(Open, yen, full)), 1, Decline::OtherCurrency),
            (
                Open,
                2,
                Some(payee(Open, Currency::USD, full)),
                1,
                Decline::InsufficientFunds,
            ),
            (
                Open,
                2,
                Some(payee(Open, Currency::USD, full)),
                10,
                Decline::PayeeBalanceTooLarge,
            ),
        ];
        for (status, to, payee, balance, decline) in cases {
            let payer = with(status, balance, 0, None);
            let transfer = order(Transaction::Transfer {
                to: AccountId::new(to).unwrap(),
                amount: amount(10),
            });
            let payee = payee.as_ref().map_or(Payee::None, Payee::Account);
            let row = decide(&transfer, &payer, payee, today());
            assert_eq!(row.outcome, Outcome::Declined(decline));
            assert_eq!(
                (row.balance, row.contra_side),
                (payer.balance, None),
                "{decline:?}"
            );
        }
    }

    #[test]
    fn the_daily_limit_is_for_one_date_and_for_cash() {
        let mut account = Account {
            daily_limit: Some(Money::from_minor(100)),
            withdrawn: Money::from_minor(90),
            business_date: TODAY,
            ..account(1, 1000)
        };
        let withdraw = Transaction::Withdraw { amount: amount(20) };
        assert_eq!(
            outcome(&account, withdraw),
            Outcome::Declined(Decline::DailyLimit)
        );
        account.business_date = BusinessDate::from_days(TODAY.days() - 1);
        assert_eq!(outcome(&account, withdraw), Outcome::Approved);
    }

    #[test]
    fn an_advice_is_credited_whatever_stands_against_a_deposit_but_what_an_account_can_hold() {
        let advice = Transaction::Advice { amount: amount(10) };
        for status in [AccountStatus::Open, AccountStatus::Frozen, AccountStatus::Closed] {
            let account = Account {
                status,
                ..account(1, -100)
            };
            assert_eq!(outcome(&account, advice), Outcome::Approved, "{status:?}");
        }
        let full = account(1, i64::MAX - 9);
        assert_eq!(
            outcome(&full, advice),
            Outcome::Declined(Decline::BalanceTooLarge)
        );
    }

    #[test]
    fn a_reversal_takes_both_sides_back_whatever_limits_say() {
        let (payer, payee) = (account(1, 100), account(2, 5));
        let transfer = order(Transaction::Transfer {
            to: payee.id,
            amount: amount(30),
        });
        let original = decide(&transfer, &payer, Payee::Account(&payee), today());
        // The payee has spent it all and the payer is frozen by now.
        let payer = Account {
            status: AccountStatus::Frozen,
            ..account(1, 70)
        };
        let spent = account(2, 0);
        let row = reverse(&original, &payer, Some(&spent), today());
        assert_eq!((row.kind, row.outcome), (Kind::Reversal, Outcome::Approved));
        assert_eq!((row.amount.minor(), row.balance.minor()), (30, 100));
        assert_eq!(row.contra_side.unwrap().balance.minor(), -30);
        assert_eq!(
            (row.txn_id, row.own_id(), row.contra),
            (Some(transfer.txn_id), None, original.contra)
        );
        let full = account(1, i64::MAX);
        let row = reverse(&original, &full, Some(&spent), today());
        assert_eq!(row.outcome, Outcome::Declined(Decline::CannotReverse));
        assert_eq!((row.balance, row.contra_side), (full.balance, None));
    }

    #[test]
    fn a_withdrawal_undone_on_its_date_gives_back_the_days_allowance_and_later_does_not() {
        let fresh = Account {
            daily_limit: Some(Money::from_minor(100)),
            ..account(1, 1000)
        };
        let withdraw = Transaction::Withdraw { amount: amount(60) };
        let original = Row {
            lsn: Lsn::new(2),
            ..decide_alone(&fresh, withdraw)
        };
        let mut account = fresh.clone();
        account.apply(&original.account_change());
        assert_eq!(
            outcome(&account, withdraw),
            Outcome::Declined(Decline::DailyLimit)
        );
        let undo = |account: &Account, moment| Row {
            lsn: Lsn::new(3),
            ..reverse(&original, account, None, moment)
        };
        let tomorrow = Moment {
            date: BusinessDate::from_days(TODAY.days() + 1),
            ..today()
        };
        let mut undone_later = account.clone();
        undone_later.apply(&undo(&account, tomorrow).account_change());
        assert_eq!(undone_later.withdrawn_on(tomorrow.date), Money::ZERO);
        assert_eq!(undone_later.balance, fresh.balance);
        account.apply(&undo(&account, today()).account_change());
        assert_eq!(account.withdrawn_on(TODAY), Money::ZERO);
        assert_eq!(outcome(&account, withdraw), Outcome::Approved);
    }

    #[test]
    fn interest_is_posted_once_for_a_month_and_whatever_the_account_is_but_closed() {
        let november: Period = "2026-11".parse().unwrap();
        let posting = |period| Posting::Interest {
            rate: "2%".parse().unwrap(),
            period,
        };
        let mut account = Account {
            status: AccountStatus::Frozen,
            ..account(1, 10_050)
        };
        let row = Row {
            lsn: Lsn::new(2),
            ..posting(november)
                .row(&account, ActionId::new(7), today())
                .unwrap()
        };
        assert_eq!((row.amount.minor(), row.balance.minor()), (201, 10_251));
        assert_eq!(
            (row.txn_id, row.terminal, row.action),
            (None, None, ActionId::new(7))
        );
        account.apply(&row.account_change());
        let again = |account: &Account, period: &str| {
            posting(period.parse().unwrap())
                .row(account, ActionId::new(8), today())
                .map(|row| row.amount.minor())
        };
        assert_eq!(again(&account, "2026-11"), Err(NotPosted::HasHadInterest));
        assert_eq!(again(&account, "2025-12"), Err(NotPosted::HasHadInterest));
        assert_eq!(again(&account, "2026-12"), Ok(205));
        for (status, balance, why) in [
            (AccountStatus::Closed, 100, NotPosted::Closed),
            (AccountStatus::Open, 25, NotPosted::Nothing),
            (AccountStatus::Open, i64::MAX, NotPosted::CannotHold),
        ] {
            let account = Account {
                status,
                ..self::account(1, balance)
            };
            assert_eq!(again(&account, "2026-12"), Err(why));
        }
    }

    #[test]
    fn an_adjustment_is_bounded_by_what_an_account_can_hold_alone() {
        let post = |account: &Account, minor| {
            let posting = Posting::Adjustment {
                amount: Money::from_minor(minor),
                against: SystemAccount::Suspense,
            };
            posting.row(account, ActionId::new(1), today())
        };
        let account = Account {
            status: AccountStatus::Frozen,
            ..account(1, 100)
        };
        let row = post(&account, -500).unwrap();
        assert_eq!((row.balance.minor(), row.outcome), (-400, Outcome::Approved));
        assert_eq!(row.contra, Contra::System(SystemAccount::Suspense));
        assert_eq!(post(&account, i64::MAX - 99), Err(NotPosted::CannotHold));
    }

    #[test]
    fn a_row_is_the_outcome_of_the_same_order_only() {
        let original = order(Transaction::Deposit { amount: amount(5) });
        let row = decide(&original, &account(1, 0), Payee::None, today());
        let check = |terminal: &str, transaction, same| {
            let asked = Order {
                terminal: terminal.parse().unwrap(),
                transaction,
                ..original
            };
            assert_eq!(asked.has_outcome(&row), same, "{asked:?}");
        };
        check("ATM-1", original.transaction, true);
        check("ATM-1", Transaction::Advice { amount: amount(5) }, true);
        check("ATM-2", original.transaction, false);
        check("ATM-1", Transaction::Deposit { amount: amount(6) }, false);
        check("ATM-1", Transaction::Withdraw { amount: amount(5) }, false);
        let transfer = Transaction::Transfer {
            to: AccountId::new(2).unwrap(),
            amount: amount(5),
        };
        check("ATM-1", transfer, false);
        let given_up = Order {
            transaction: Transaction::GiveUp,
            ..original
        };
        let fence = decide(&given_up, &account(1, 0), Payee::None, today());
        assert_eq!(fence.outcome, Outcome::Declined(Decline::GivenUp));
        assert!(original.has_outcome(&fence));
    }

    #[test]
    fn an_overdraft_limit_of_any_size_is_safe() {
        let mut account = account(1, i64::MIN + 5);
        account.overdraft_limit = Money::from_minor(i64::MAX);
        let withdraw = |minor| Transaction::Withdraw {
            amount: amount(minor),
        };
        assert_eq!(outcome(&account, withdraw(4)), Outcome::Approved);
        assert_eq!(
            outcome(&account, withdraw(5)),
            Outcome::Declined(Decline::InsufficientFunds)
        );
        assert_eq!(
            outcome(&account, withdraw(i64::MAX)),
            Outcome::Declined(Decline::InsufficientFunds)
        );
    }

    #[test]
    fn time_does_not_run_backwards_for_either_side() {
        let later = |account: Account, millis, days| Account {
            last_time: Timestamp::from_millis(millis),
            business_date: BusinessDate::from_days(days),
            ..account
        };
        let early = Moment {
            time: Timestamp::from_millis(10),
            date: BusinessDate::from_days(1),
        };
        let payer = later(account(1, 100), 20, 3);
        let payee = later(account(2, 0), 30, 2);
        let deposit = order(Transaction::Deposit { amount: amount(1) });
        let row = decide(&deposit, &payer, Payee::None, early);
        assert_eq!((row.moment.time.millis(), row.moment.date.days()), (20, 3));
        let transfer = order(Transaction::Transfer {
            to: payee.id,
            amount: amount(1),
        });
        let row = decide(&transfer, &payer, Payee::Account(&payee), early);
        assert_eq!((row.moment.time.millis(), row.moment.date.days()), (30, 3));
    }

    #[test]
    fn numbers_of_declines_are_kept() {
        for (index, decline) in Decline::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(decline.number()), index + 1);
            assert_eq!(Decline::from_number(decline.number()), Some(decline));
        }
    }

    proptest! {
        /// No customer's transaction passes a limit, whatever the state it meets.
        #[test]
        fn limits_hold(
            balance in any::<i64>(), overdraft in 0i64.., daily in proptest::option::of(0i64..),
            withdrawn in 0i64.., minor in 1i64.., kind in 0..3, payee_balance in any::<i64>(),
        ) {
            let payer = Account {
                overdraft_limit: Money::from_minor(overdraft),
                daily_limit: daily.map(Money::from_minor),
                withdrawn: Money::from_minor(withdrawn),
                business_date: TODAY,
                ..account(1, balance)
            };
            let payee = account(2, payee_balance);
            let transaction = match kind {
                0 => Transaction::Deposit { amount: amount(minor) },
                1 => Transaction::Withdraw { amount: amount(minor) },
                _ => Transaction::Transfer { to: payee.id, amount: amount(minor) },
            };
            let row = decide(&order(transaction), &payer, Payee::Account(&payee), today());
            if row.outcome == Outcome::Approved {
                prop_assert_eq!(i128::from(row.balance.minor()), i128::from(balance) + i128::from(row.amount.minor()));
                if row.amount.minor() < 0 {
                    prop_assert!(i128::from(row.balance.minor()) >= -i128::from(overdraft));
                }
                if row.kind == Kind::Withdrawal && let Some(daily) = daily {
                    prop_assert!(i128::from(withdrawn) + i128::from(minor) <= i128::from(daily));
                }
                if let Some(contra) = row.contra_side {
                    prop_assert_eq!(i128::from(contra.balance.minor()), i128::from(payee_balance) + i128::from(minor));
                }
            } else {
                prop_assert_eq!(row.balance.minor(), balance);
                prop_assert_eq!(row.contra_side, None);
            }
        }
    }
}
