//! The hash chain, computed anew while [`super::verify`] reads the journal, and compared with the heads that are stored and with
//! those on receipts.

use std::collections::VecDeque;

use rusqlite::Connection;

use super::BankFileError;
use super::chain::{Commit, read_action, read_commit};
use super::schema::{ACTION_COLUMNS, CHAIN_VERSION};
use super::verify::Proof;
use crate::chain::{Chain, Head, ReceiptHead};
use crate::row::Row;

/// How far the chain has been computed.
pub(super) struct Links<'a> {
    /// Whether there is one: a file from before has none.
    has_chain: bool,
    /// Commits that were read and are yet to come.
    commits: VecDeque<Commit>,
    /// The commit whose rows and actions are being linked.
    commit: Option<Commit>,
    chain: Chain,
    last_action: u64,
    /// Whether the commit's actions are linked.
    begun: bool,
    /// What is yet to be compared, the least row last.
    receipts: Vec<&'a ReceiptHead>,
    /// What is of the newest row so far, and has another head: it may be that of a commit which adds actions alone to this row.
    waiting: Vec<&'a ReceiptHead>,
}

impl<'a> Links<'a> {
    pub(super) fn new(
        snapshot: &Connection,
        receipts: &'a [ReceiptHead],
    ) -> Result<Links<'a>, BankFileError> {
        let version: i64 = snapshot
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(BankFileError::sqlite("reading the bank file's version"))?;
        let mut receipts: Vec<_> = receipts.iter().collect();
        receipts.sort_by_key(|receipt| std::cmp::Reverse(receipt.lsn));
        let mut links = Links {
            has_chain: version >= CHAIN_VERSION,
            commits: VecDeque::new(),
            commit: None,
            chain: Chain::after(Head::FIRST),
            last_action: 0,
            begun: false,
            receipts,
            waiting: Vec::new(),
        };
        links.next_commit(snapshot)?;
        Ok(links)
    }

    /// Goes on to the next commit. They are read in parts, since there may be as many as rows.
    fn next_commit(&mut self, snapshot: &Connection) -> Result<(), BankFileError> {
        const PART: i64 = 10_000;
        if self.commits.is_empty() && self.has_chain {
            let sqlite = BankFileError::sqlite("reading the hash chain");
            let (lsn, action) = self.commit.map_or((-1, -1), |commit| {
                (commit.last_lsn.get() as i64, commit.last_action as i64)
            });
            let mut select = snapshot
                .prepare_cached(
                    "SELECT last_lsn, last_action, head FROM commits WHERE (last_lsn, last_action) > (?1, ?2)
                     ORDER BY last_lsn, last_action LIMIT ?3",
                )
                .map_err(&sqlite)?;
            let mut found = select.query([lsn, action, PART]).map_err(&sqlite)?;
            while let Some(columns) = found.next().map_err(&sqlite)? {
                self.commits.push_back(read_commit(columns)?);
            }
        }
        self.commit = self.commits.pop_front();
        self.begun = false;
        Ok(())
    }

    /// Links a row, and compares the head if it is the last of its commit.
    pub(super) fn add(
        &mut self,
        snapshot: &Connection,
        row: &Row,
        proof: &mut Proof,
    ) -> Result<(), BankFileError> {
        // Commits of actions alone come between those of rows.
        while let Some(commit) = self.commit.filter(|commit| commit.last_lsn < row.lsn) {
            self.begin(snapshot, &commit, proof)?;
            self.compare(snapshot, &commit, proof)?;
        }
        if let Some(commit) = self.commit {
            self.begin(snapshot, &commit, proof)?;
            self.chain.add_row(row);
            if row.lsn == commit.last_lsn {
                self.compare(snapshot, &commit, proof)?;
            }
        } else if std::mem::take(&mut self.has_chain) {
            proof.problem(format!(
                "journal row {} and those after it are in no commit",
                row.lsn
            ));
        }
        Ok(())
    }

    /// Links the actions of a commit, which come before its rows.
    fn begin(
        &mut self,
        snapshot: &Connection,
        commit: &Commit,
        proof: &mut Proof,
    ) -> Result<(), BankFileError> {
        if std::mem::replace(&mut self.begun, true) || commit.last_action <= self.last_action {
            return Ok(());
        }
        let sqlite = BankFileError::sqlite("reading operators' actions");
        let mut select = snapshot
            .prepare_cached(&format!(
                "SELECT {ACTION_COLUMNS} FROM actions WHERE action > ?1 AND action <= ?2 ORDER BY action"
            ))
            .map_err(&sqlite)?;
        let mut found = select
            .query([self.last_action as i64, commit.last_action as i64])
            .map_err(&sqlite)?;
        while let Some(columns) = found.next().map_err(&sqlite)? {
            match read_action(columns) {
                Ok(action) => self.chain.add_action(&action),
                Err(error) => proof.problem(error),
            }
        }
        self.last_action = commit.last_action;
        Ok(())
    }

    fn compare(
        &mut self,
        snapshot: &Connection,
        commit: &Commit,
        proof: &mut Proof,
    ) -> Result<(), BankFileError> {
        if self.chain.seal() != Some(commit.head) {
            proof.problem(format!(
                "the hash chain breaks at the commit that ends with journal row {} and action {}: something was changed there",
                commit.last_lsn, commit.last_action
            ));
            // Go on from what is stored, so that one change is one problem.
            self.chain = Chain::after(commit.head);
        }
        proof.head = Some(commit.head);
        for receipt in std::mem::take(&mut self.waiting) {
            match receipt.is_of(&commit.head) {
                true if receipt.lsn == commit.last_lsn => {}
                _ if receipt.lsn == commit.last_lsn => self.waiting.push(receipt),
                _ => other_head(receipt, proof),
            }
        }
        while let Some(receipt) = self.receipts.pop_if(|receipt| receipt.lsn <= commit.last_lsn) {
            match receipt.is_of(&commit.head) {
                true => {}
                false if receipt.lsn == commit.last_lsn => self.waiting.push(receipt),
                false => other_head(receipt, proof),
            }
        }
        self.next_commit(snapshot)
    }

    /// What comes after the last row.
    pub(super) fn end(&mut self, snapshot: &Connection, proof: &mut Proof) -> Result<(), BankFileError> {
        while let Some(commit) = self.commit {
            self.begin(snapshot, &commit, proof)?;
            if commit.last_lsn > proof.lsn {
                proof.problem(format!(
                    "a commit ends with journal row {}, but the journal with row {}",
                    commit.last_lsn, proof.lsn
                ));
            }
            self.compare(snapshot, &commit, proof)?;
        }
        self.waiting
            .drain(..)
            .for_each(|receipt| other_head(receipt, proof));
        for receipt in self.receipts.drain(..) {
            proof.problem(format!(
                "the receipt of record {} is of a row that is in no commit: the journal ends with row {}",
                receipt.lsn, proof.lsn
            ));
        }
        let unlinked: i64 = snapshot
            .query_row(
                "SELECT count(*) FROM actions WHERE action > ?1",
                [self.last_action as i64],
                |row| row.get(0),
            )
            .map_err(BankFileError::sqlite("counting operators' actions"))?;
        if unlinked > 0 {
            proof.problem(format!(
                "{unlinked} operators' actions after action {} are in no commit",
                self.last_action
            ));
        }
        Ok(())
    }
}

fn other_head(receipt: &ReceiptHead, proof: &mut Proof) {
    proof.problem(format!(
        "the receipt of record {} has another head than the history up to there has now: the history was rewritten, or the receipt is \
         of another bank",
        receipt.lsn
    ));
}
