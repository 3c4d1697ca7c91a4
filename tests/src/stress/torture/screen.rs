//! A terminal's process, as the person before it meets it: what it has written, and what is typed.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The process is gone, or says nothing of what was waited for.
#[derive(Debug)]
pub(super) enum Gone {
    /// It has ended, or was killed.
    Ended,
    /// It did not come to it in time: this is what it wrote.
    Silent(String),
}

/// A process that may be killed by somebody else at any time.
#[derive(Clone, Default)]
pub(super) struct Victim(Arc<Mutex<Life>>);

#[derive(Default)]
struct Life {
    process: Option<Child>,
    killed: bool,
}

impl Victim {
    /// Kills the process with kill -9, unless it has ended by itself. Gives whether it did.
    pub(super) fn kill(&self) -> bool {
        let mut life = self.0.lock().expect("no holder panics");
        let Some(process) = &mut life.process else {
            return false;
        };
        if !matches!(process.try_wait(), Ok(None)) {
            return false;
        }
        let killed = process.kill().and_then(|()| process.wait()).is_ok();
        life.killed |= killed;
        killed
    }

    /// Whether it was killed since it was started.
    pub(super) fn was_killed(&self) -> bool {
        self.0.lock().expect("no holder panics").killed
    }

    fn put(&self, process: Child) {
        *self.0.lock().expect("no holder panics") = Life {
            process: Some(process),
            killed: false,
        };
    }

    /// Lets go of the process, once it has ended.
    fn take(&self) {
        self.0.lock().expect("no holder panics").process = None;
    }
}

/// A process with its keyboard and its screen.
pub(super) struct Screen {
    victim: Victim,
    keys: ChildStdin,
    shown: Receiver<Vec<u8>>,
    seen: String,
    /// What was waited for ended here.
    from: usize,
}

impl Screen {
    /// Starts the command, which `victim` may kill from then on. What it says of its own troubles goes to `errors`.
    pub(super) fn start(mut command: Command, victim: &Victim, errors: &Path) -> Screen {
        let errors = OpenOptions::new()
            .append(true)
            .create(true)
            .open(errors)
            .expect("the directory can be written to");
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("atm-cli starts");
        let keys = process.stdin.take().expect("standard input is piped");
        let mut stdout = process.stdout.take().expect("standard output is piped");
        victim.put(process);
        let (show, shown) = channel();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(bytes @ 1..) = stdout.read(&mut chunk) {
                if show.send(chunk[..bytes].to_vec()).is_err() {
                    return;
                }
            }
        });
        Screen {
            victim: victim.clone(),
            keys,
            shown,
            seen: String::new(),
            from: 0,
        }
    }

    /// Waits until one of the texts comes. Gives which.
    pub(super) fn expect(&mut self, texts: &[&str], patience: Duration) -> Result<usize, Gone> {
        let deadline = Instant::now() + patience;
        loop {
            let first = texts
                .iter()
                .enumerate()
                .filter_map(|(n, text)| Some((self.seen[self.from..].find(text)? + text.len(), n)))
                .min();
            if let Some((end, n)) = first {
                self.from += end;
                return Ok(n);
            }
            match self
                .shown
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Disconnected) => return Err(Gone::Ended),
                Err(RecvTimeoutError::Timeout) => return Err(Gone::Silent(self.seen.clone())),
            }
        }
    }

    /// Types a line.
    pub(super) fn type_line(&mut self, line: &str) -> Result<(), Gone> {
        self.keys
            .write_all(format!("{line}\n").as_bytes())
            .map_err(|_| Gone::Ended)
    }

    /// All that was shown so far.
    pub(super) fn seen(&self) -> &str {
        &self.seen
    }

    /// What was shown between the text last waited for and the one before it is forgotten; this is what came since.
    pub(super) fn since(&self, start: usize) -> &str {
        &self.seen[start.min(self.seen.len())..]
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.victim.kill();
        self.victim.take();
    }
}
