//! What asks the server to stop: a signal, or Enter from a person.

use std::io::{self, IsTerminal};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Waits until somebody asks the server to stop: SIGTERM, SIGINT (Ctrl-C), SIGHUP (its
/// terminal was closed), or Enter on a terminal. End of input is
/// no such wish, since a server in the background has none. Once it was asked, a second signal ends the process
/// at once; what was acknowledged is on disk by then, as ever.
///
/// # Errors
/// If the operating system does not let us listen for signals.
pub fn requested() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut enter = enter_on_a_terminal();
    Ok(async move {
        let reason = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "Ctrl-C",
            _ = hang_up.recv() => "SIGHUP",
            Some(()) = enter.recv() => "Enter",
        };
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            tracing::warn!("a second signal: ending at once");
            std::process::exit(130);
        });
        reason
    })
}

/// Whether the terminal is ours to read. A job in the background that reads it is stopped by the system.
fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

fn enter_on_a_terminal() -> mpsc::Receiver<()> {
    let (pressed, enter) = mpsc::channel(1);
    if io::stdin().is_terminal() && in_foreground() {
        // A thread, since reading a terminal cannot be given up. It ends with the process.
        thread::spawn(move || {
            let mut line = String::new();
            if matches!(io::stdin().read_line(&mut line), Ok(1..)) {
                let _ = pressed.blocking_send(());
            }
        });
    }
    enter
}
