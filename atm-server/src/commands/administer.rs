//! Asking a running server what only an operator may ask.

use super::{Ended, Error, say};
use crate::admin::{self, AdminRequest};
use crate::args::{AdminArgs, AdminCommand};

pub(super) fn administer(args: AdminArgs) -> Result<Ended, Error> {
    let request = match args.command {
        AdminCommand::UnblockCard { card } => AdminRequest::UnblockCard { card },
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
        AdminCommand::LogLevel { filter } => AdminRequest::LogLevel { filter },
        AdminCommand::Shutdown => AdminRequest::Shutdown {},
    };
    let reply = admin::ask(&args.admin_socket, &request)?;
    if args.json {
        say(format_args!("{}", reply.to_json()));
    } else if reply.done {
        say(format_args!("{}", reply.message));
    } else {
        return Err(reply.message.into());
    }
    Ok(if reply.done { Ended::Done } else { Ended::Failed })
}
