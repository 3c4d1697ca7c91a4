//! What operators order: each of their commands that changes the bank leaves an entry, for ever.

use crate::ids::{ActionId, Lsn, TxnId};
use crate::limits::{MAX_OPERATOR_BYTES, MAX_REASON_BYTES};
use crate::time::Timestamp;

/// Who orders something, why, and which of his orders it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    operator: String,
    reason: Option<String>,
    request: TxnId,
}

/// Why an instruction is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidInstruction {
    /// The operator has no usable name.
    #[error("an operator's name is 1 to {MAX_OPERATOR_BYTES} bytes without control characters")]
    Operator,
    /// The reason is too long, or has several lines.
    #[error("a reason is 1 to {MAX_REASON_BYTES} bytes without control characters")]
    Reason,
}

impl Instruction {
    /// An order of `operator`. Repeated under the same `request` id, it is not carried out twice.
    ///
    /// # Errors
    /// [`InvalidInstruction`].
    pub fn new(
        operator: String,
        reason: Option<String>,
        request: TxnId,
    ) -> Result<Instruction, InvalidInstruction> {
        let is_text =
            |text: &str, limit| (1..=limit).contains(&text.len()) && !text.chars().any(char::is_control);
        if !is_text(&operator, MAX_OPERATOR_BYTES) {
            return Err(InvalidInstruction::Operator);
        }
        if reason
            .as_deref()
            .is_some_and(|reason| !is_text(reason, MAX_REASON_BYTES))
        {
            return Err(InvalidInstruction::Reason);
        }
        Ok(Instruction {
            operator,
            reason,
            request,
        })
    }

    /// Who orders it.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// The id under which it may be repeated.
    pub fn request(&self) -> TxnId {
        self.request
    }

    /// The entry that it leaves, complete but for its number.
    pub(crate) fn action(&self, time: Timestamp, command: &str, subject: String, details: String) -> Action {
        Action {
            id: ActionId::FIRST,
            time,
            operator: self.operator.clone(),
            command: command.to_owned(),
            subject,
            details,
            reason: self.reason.clone(),
            request: self.request,
            lsn: None,
        }
    }
}

/// The entry of an operator's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its number: 1, 2, 3 …
    pub id: ActionId,
    /// When it was ordered.
    pub time: Timestamp,
    /// By whom.
    pub operator: String,
    /// Which command.
    pub command: String,
    /// What it was about, such as "account 1001"; a card by its number in the bank file, since its name may be a payment card's.
    pub subject: String,
    /// What exactly was to be done.
    pub details: String,
    /// Why, as the operator said.
    pub reason: Option<String>,
    /// The id under which it was ordered.
    pub request: TxnId,
    /// The journal row that it posted, if it posted one.
    pub lsn: Option<Lsn>,
}

impl Action {
    /// Whether another entry is of the same order, whenever and by whomever it was repeated.
    pub(crate) fn is_same_order(&self, other: &Action) -> bool {
        (&self.command, &self.subject, &self.details) == (&other.command, &other.subject, &other.details)
    }
}
