//! Asking a running server what only an operator may ask.

use std::path::Path;

use bank_core::limits::MAX_PIN_DIGITS;
use bank_core::protocol::Secret;
use bank_core::{TerminalSecret, TxnId};
use zeroize::Zeroizing;

use super::{Ended, Error, failed, say};
use crate::admin::{self, AdminReply, AdminRequest, AskError, By, PinDigits};
use crate::args::{AdminArgs, AdminCommand};

pub(super) fn administer(args: AdminArgs) -> Result<Ended, Error> {
    let id = args.request_id.unwrap_or_else(TxnId::generate);
    let by = By {
        operator: args.operator,
        reason: args.reason,
        request_id: Some(id.to_string()),
    };
    let (request, asked) = match args.command {
        AdminCommand::AddTerminal {
            terminal,
            secret_file,
            replace,
        } => {
            // Asked for again, the secret is that of the first time.
            let again = args.request_id.is_some() && secret_file.exists();
            let secret = if again {
                TerminalSecret::read(&secret_file)?
            } else {
                TerminalSecret::create(&secret_file)?
            };
            let request = AdminRequest::AddTerminal {
                terminal: terminal.to_string(),
                secret_hash: secret.hash().to_hex(),
                replace,
                by,
            };
            let asked = admin::ask(&args.admin_socket, &request);
            if !again
                && matches!(
                    &asked,
                    Ok(AdminReply { done: false, .. }) | Err(AskError::Unreachable { .. })
                )
            {
                // It opens nothing, so nobody is to take it for one that does.
                let _ = std::fs::remove_file(&secret_file);
            }
            (request, asked)
        }
        command => {
            let request = request(command, by)?;
            let asked = admin::ask(&args.admin_socket, &request);
            (request, asked)
        }
    };
    let reply = match asked {
        Ok(reply) => reply,
        Err(error @ (AskError::Lost(_) | AskError::NotUnderstood(_))) if request.is_change() => {
            let message =
                format!("{error}. Ask again with --request-id {id}: what was done is not done twice");
            if args.json {
                say(format_args!(
                    "{}",
                    serde_json::json!({ "done": null, "request_id": id.to_string(), "message": message })
                ));
            } else {
                failed(&*Error::from(message));
            }
            return Ok(Ended::InDoubt);
        }
        Err(error) => return Err(error.into()),
    };
    if args.json {
        say(format_args!("{}", reply.to_json()));
    } else if reply.done {
        say(format_args!("{}", reply.message));
    } else {
        return Err(reply.message.into());
    }
    Ok(if reply.done { Ended::Done } else { Ended::Failed })
}

/// What a command asks of the server.
fn request(command: AdminCommand, by: By) -> Result<AdminRequest, Error> {
    Ok(match command {
        AdminCommand::Accounts { filter, lines } => AdminRequest::Accounts { filter, lines },
        AdminCommand::OpenAccount {
            currency,
            balance,
            overdraft,
            daily,
            account,
        } => AdminRequest::OpenAccount {
            account: account.map(|account| account.get()),
            currency,
            balance,
            overdraft,
            daily,
            by,
        },
        AdminCommand::AddCard {
            card,
            account,
            holder,
            pin_file,
        } => AdminRequest::AddCard {
            holder: holder.unwrap_or_else(|| card.clone()),
            card,
            account: account.get(),
            pin: read_pin(&pin_file)?,
            by,
        },
        AdminCommand::Freeze { account } => AdminRequest::Freeze {
            account: account.get(),
            by,
        },
        AdminCommand::Unfreeze { account } => AdminRequest::Unfreeze {
            account: account.get(),
            by,
        },
        AdminCommand::Close { account } => AdminRequest::Close {
            account: account.get(),
            by,
        },
        AdminCommand::Limits {
            account,
            overdraft,
            daily,
        } => AdminRequest::Limits {
            account: account.get(),
            overdraft,
            daily,
            by,
        },
        AdminCommand::Adjust {
            account,
            amount,
            against,
        } => AdminRequest::Adjust {
            account: account.get(),
            amount,
            against,
            by,
        },
        AdminCommand::Interest { rate, period } => AdminRequest::Interest {
            rate: rate.to_string(),
            period: period.to_string(),
            by,
        },
        AdminCommand::UnblockCard { card } => AdminRequest::UnblockCard { card, by },
        AdminCommand::ResetPin { card, pin_file } => AdminRequest::ResetPin {
            card,
            pin: read_pin(&pin_file)?,
            by,
        },
        AdminCommand::AddTerminal { .. } => unreachable!("it makes a secret first"),
        AdminCommand::RetireTerminal { terminal } => AdminRequest::RetireTerminal {
            terminal: terminal.to_string(),
            by,
        },
        AdminCommand::Statement { account, lines } => AdminRequest::Statement {
            account: account.get(),
            lines,
        },
        AdminCommand::Actions { lines } => AdminRequest::Actions { lines },
        AdminCommand::CloseDay { date } => AdminRequest::CloseDay {
            date: date.map(|date| date.to_string()),
            by,
        },
        AdminCommand::CutOver { time } => AdminRequest::CutOver {
            time: time.map(|time| time.to_string()),
            by,
        },
        AdminCommand::Checkpoint => AdminRequest::Checkpoint {},
        AdminCommand::LogLevel { filter } => AdminRequest::LogLevel { filter },
        AdminCommand::Sessions => AdminRequest::Sessions {},
        AdminCommand::Disconnect { session, terminal } => AdminRequest::Disconnect {
            session,
            terminal: terminal.map(|terminal| terminal.to_string()),
        },
        AdminCommand::Broadcast {
            text: Some(text),
            minutes,
            ..
        } => AdminRequest::Broadcast { text, minutes },
        AdminCommand::Broadcast { text: None, .. } => AdminRequest::ClearBroadcast {},
        AdminCommand::Shutdown => AdminRequest::Shutdown {},
    })
}

/// The first line of a file, as a PIN's digits.
fn read_pin(path: &Path) -> Result<PinDigits, Error> {
    use std::io::Read;
    let cannot = |error: std::io::Error| format!("--pin-file {}: {error}", path.display());
    // With room for all that is read, so that nothing is left behind by growing.
    let most = MAX_PIN_DIGITS + 2;
    let mut text = Zeroizing::new(String::with_capacity(most + 1));
    std::fs::File::open(path)
        .map_err(cannot)?
        .take(most as u64)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    let digits = text.lines().next().unwrap_or_default();
    Ok(Secret(Zeroizing::new(digits.to_owned())))
}
