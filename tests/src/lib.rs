//! The harness: starts the real programs on free ports with banks in temporary directories.
//!
//! Nothing here waits by sleeping: a server is ready when it says so, and gone when its process is.

pub mod fault_vfs;
pub mod fuzz;
pub mod stress;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;

use atm_cli::connection::Connection;
use bank_core::{CardNumber, TerminalId};
use tempfile::TempDir;

/// The path of one of the project's programs, built if need be.
///
/// Cargo builds a package's programs only for that package's own tests, so they are built here: once in a
/// process, in the profile and the directory of this very test.
pub fn program(name: &str) -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its own path");
        let profile = test
            .ancestors()
            .find(|path| !path.ends_with("deps") && path.is_dir())
            .expect("a target directory");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--package",
            "atm-server",
            "--package",
            "atm-cli",
        ]);
        cargo
            .arg("--target-dir")
            .arg(profile.parent().expect("a profile lies in a target directory"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        // What cargo tells a test of the test's own package: build scripts that look at these would take the programs' build
        // for another one, and the next build of the tests again.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(name);
            }
        }
        let built = cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the programs do not build");
        profile.to_owned()
    });
    directory.join(name)
}

/// A bank file in a directory of its own, removed when dropped.
pub struct TestBank {
    directory: PathBuf,
    _temporary: Option<TempDir>,
}

impl TestBank {
    /// No bank yet, only a place for one.
    pub fn nowhere() -> TestBank {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        TestBank {
            directory: temporary.path().to_owned(),
            _temporary: Some(temporary),
        }
    }

    /// A place for a bank in a directory that somebody else looks after.
    pub fn at(directory: &Path) -> TestBank {
        TestBank {
            directory: directory.to_owned(),
            _temporary: None,
        }
    }

    /// A bank loaded from a list, with cheap PIN hashes.
    pub fn load(csv: &str) -> TestBank {
        let bank = TestBank::nowhere();
        let list = bank.write("accounts.csv", csv);
        let loaded = bank.server_command(&["load", path_str(&list), "--pin-profile", "fast"]);
        assert!(loaded.status.success(), "{}", stderr(&loaded));
        bank
    }

    /// A bank of accounts 1 to `count`, each with 1000.00 USD and a card of its number.
    pub fn generate(count: u64) -> TestBank {
        TestBank::generate_with(count, &[])
    }

    /// The same, with further arguments of `atm-server generate`.
    pub fn generate_with(count: u64, arguments: &[&str]) -> TestBank {
        let bank = TestBank::nowhere();
        let count = count.to_string();
        let generated = bank.server_command(&[&["generate", "--accounts", &count], arguments].concat());
        assert!(generated.status.success(), "{}", stderr(&generated));
        bank
    }

    /// The directory that holds it.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The bank file's path.
    pub fn path(&self) -> PathBuf {
        self.directory().join("bank.db")
    }

    /// The electronic journal of the terminal whose menu is tested with this bank. Its supervisor's code is beside it.
    pub fn terminal_journal(&self) -> String {
        path_str(&self.directory().join("terminal.journal")).to_owned()
    }

    /// Runs the menu against a server, with `input` on standard input, and waits for its end.
    pub fn menu(&self, server: &str, input: &str) -> Output {
        let journal = self.terminal_journal();
        let machine = ["--journal", &journal, "--cassettes", "50x200,20x500,10x500"];
        // What is in it is said of a new machine only.
        let machine = if Path::new(&journal).exists() {
            &machine[..2]
        } else {
            &machine[..]
        };
        atm_cli(server, machine, input)
    }

    /// Writes a file beside the bank.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory().join(name);
        std::fs::write(&path, contents).expect("the temporary directory can be written to");
        path
    }

    /// Runs a command of `atm-server` on this bank, and waits for its end.
    pub fn server_command(&self, arguments: &[&str]) -> Output {
        Command::new(program("atm-server"))
            .args(arguments)
            .env("ATM_BANK", self.path())
            .stdin(Stdio::null())
            .output()
            .expect("atm-server runs")
    }

    /// That `atm-server verify` finds nothing wrong.
    pub fn assert_verifies(&self) {
        let verified = self.server_command(&["verify"]);
        assert!(
            verified.status.success(),
            "{}{}",
            stdout(&verified),
            stderr(&verified)
        );
        assert!(
            stdout(&verified).starts_with("the books balance"),
            "{}",
            stdout(&verified)
        );
    }

    /// Serves the bank on a free port.
    pub fn serve(&self) -> Server {
        self.serve_with(&[])
    }

    /// Serves the bank on a free port with the log that an operator would have, for measuring.
    pub fn serve_quietly(&self) -> Server {
        let mut command = Command::new(program("atm-server"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("ATM_BANK", self.path())
            .env("ATM_LOG", "warn");
        Server::start(command)
    }

    /// Serves the bank on a free port, with further arguments.
    pub fn serve_with(&self, arguments: &[&str]) -> Server {
        let mut command = Command::new(program("atm-server"));
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .env("ATM_BANK", self.path());
        Server::start(command)
    }
}

/// A running `atm-server serve`. It is killed when dropped.
pub struct Server {
    process: Child,
    address: String,
    log: Option<JoinHandle<String>>,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts the command and waits until it listens.
    ///
    /// # Panics
    /// If it ends before.
    pub fn start(mut command: Command) -> Server {
        if command.get_envs().all(|(name, _)| name != "ATM_LOG") {
            command.env("ATM_LOG", "debug");
        }
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("atm-server starts");
        let mut stderr = process.stderr.take().expect("standard error is piped");
        // Read all the time, lest the server should wait for room in the pipe.
        let log = std::thread::spawn(move || {
            let mut log = Vec::new();
            let _ = stderr.read_to_end(&mut log);
            String::from_utf8_lossy(&log).into_owned()
        });
        let mut stdout = BufReader::new(process.stdout.take().expect("standard output is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("atm-server writes lines");
        let Some(address) = line.trim_end().strip_prefix("listening on ") else {
            let status = process.wait();
            panic!(
                "the server does not listen ({status:?}): {}",
                log.join().unwrap_or_default()
            );
        };
        Server {
            address: address.to_owned(),
            process,
            log: Some(log),
            stdout,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next line that it writes to standard output: after its address, where it may be watched.
    pub fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("atm-server writes lines");
        line.truncate(line.trim_end().len());
        line
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Bytes of memory that are its own: its own pages, and its share of those that others have, too.
    ///
    /// # Errors
    /// If Linux does not say.
    pub fn memory(&self) -> std::io::Result<u64> {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let kibibytes = rollup.lines().find_map(|line| {
            let size = line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?;
            size.parse::<u64>().ok()
        });
        let unsaid = || std::io::Error::other("Linux does not say how much memory the server has");
        Ok(kibibytes.ok_or_else(unsaid)? * 1024)
    }

    /// A client that has introduced itself.
    pub fn client(&self) -> Connection {
        Connection::connect(&self.address, TerminalId::new("TEST").expect("a terminal id"))
            .expect("the server answers")
    }

    /// A client with a customer logged in.
    pub fn login(&self, card: &str, pin: &str) -> Connection {
        let mut client = self.client();
        client
            .login(&CardNumber::new(card).expect("a card number"), pin)
            .expect("the login is accepted");
        client
    }

    /// A connection on which nothing has been said yet.
    pub fn socket(&self) -> TcpStream {
        TcpStream::connect(&self.address).expect("the server accepts")
    }

    /// Runs `atm-cli` against it, with `input` on standard input, and waits for its end.
    pub fn atm_cli(&self, arguments: &[&str], input: &str) -> Output {
        atm_cli(&self.address, arguments, input)
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.process.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process id"), signal).expect("the process is there");
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(mut self) {
        self.process.kill().expect("the process is there");
        self.process.wait().expect("a killed process ends");
    }

    /// Asks it to stop, and gives its exit status and its log.
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits for it to end by itself.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.process.wait().expect("the process is there");
        let log = self
            .log
            .take()
            .map(|log| log.join().expect("the log is read"))
            .unwrap_or_default();
        (status, log)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs `atm-cli` against an address, with `input` on standard input, and waits for its end.
pub fn atm_cli(server: &str, arguments: &[&str], input: &str) -> Output {
    let mut process = Command::new(program("atm-cli"))
        .arg("--server")
        .arg(server)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("atm-cli starts");
    // A program that does not read its input is no failure.
    let _ = process
        .stdin
        .take()
        .expect("standard input is piped")
        .write_all(input.as_bytes());
    process.wait_with_output().expect("atm-cli ends")
}

/// What a program wrote to standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a program wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn path_str(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}
