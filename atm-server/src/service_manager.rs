//! What a service manager such as systemd is told (`sd_notify(3)`): when terminals can connect, and when the end has begun.
//! Nothing, unless the environment says, by `NOTIFY_SOCKET`, where it listens.

use sd_notify::NotifyState::{self, Ready, Status, Stopping};

/// That terminals and operators can connect, with a line for people.
pub(crate) fn ready(status: &str) {
    tell(&[Ready, Status(status)]);
}

/// That the server ends, and why.
pub(crate) fn stopping(reason: &str) {
    let status = format!("shutting down ({reason}): finishing what is under way");
    tell(&[Stopping, Status(&status)]);
}

/// A manager that cannot be told has its own deadlines; the bank is served all the same.
fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
