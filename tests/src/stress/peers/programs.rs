//! The peers' programs: where they are, which are missing, and how they are run.
//!
//! Whatever is started ends: when its guard is dropped, and, should this process be killed, by its death.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process, kill_process_group};
use tokio::sync::oneshot;

/// Debian's user for what needs no rights, and the group of the same number.
const NOBODY: u32 = 65_534;

/// Directories in which programs may be, the preferred first.
pub(super) struct Places(Vec<PathBuf>);

/// What a peer lacks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    peer: &'static str,
    programs: Vec<&'static str>,
    packages: Vec<&'static str>,
}

impl Places {
    /// Those of `PATH`, and then those where Debian keeps PostgreSQL's programs.
    pub(super) fn of_this_machine() -> Places {
        let path = std::env::var_os("PATH").unwrap_or_default();
        Places::new(&path, Path::new("/usr/lib/postgresql"))
    }

    fn new(path: &OsStr, postgresql: &Path) -> Places {
        let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(postgresql)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                Some((
                    entry.file_name().to_str()?.parse().ok()?,
                    entry.path().join("bin"),
                ))
            })
            .collect();
        versions.sort();
        let newest_first = versions.into_iter().rev().map(|(_, path)| path);
        Places(std::env::split_paths(path).chain(newest_first).collect())
    }

    /// Finds a peer's programs, each given with the Debian package that brings it.
    pub(super) fn find<const N: usize>(
        &self,
        peer: &'static str,
        needed: [(&'static str, &'static str); N],
    ) -> Result<[PathBuf; N], Missing> {
        let found = needed.map(|(program, _)| self.program(program));
        let lacking = || needed.iter().zip(&found).filter(|(_, found)| found.is_none());
        let programs: Vec<_> = lacking().map(|((program, _), _)| *program).collect();
        if programs.is_empty() {
            return Ok(found.map(|path| path.expect("none is missing")));
        }
        let mut packages: Vec<_> = lacking().map(|((_, package), _)| *package).collect();
        packages.dedup();
        Err(Missing {
            peer,
            programs,
            packages,
        })
    }

    fn program(&self, name: &str) -> Option<PathBuf> {
        let runs = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        self.0.iter().map(|directory| directory.join(name)).find(runs)
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is not measured, for want of {}: on Debian, apt-get install {}",
            self.peer,
            self.programs.join(", "),
            self.packages.join(" ")
        )
    }
}

/// A directory for a server's files, which belongs to the user that it will run as.
pub(super) fn directory(place: &Path, name: &str) -> Result<PathBuf, String> {
    let path = place.join(name);
    fs::create_dir(&path)
        .and_then(|()| hand_over(&path))
        .map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Gives a file to the user as whom servers run.
pub(super) fn hand_over(path: &Path) -> io::Result<()> {
    if geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

/// A command of a server's program: as nobody if we are root, since PostgreSQL refuses to be and Redis had better not
/// be, and so that it ends with us.
pub(super) fn server_command(setpriv: &Path, program: &Path) -> Command {
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "QUIT"]);
    if geteuid().is_root() {
        command.arg(format!("--reuid={NOBODY}"));
        command.arg(format!("--regid={NOBODY}"));
        command.arg("--clear-groups");
    }
    command.arg("--").arg(program);
    command
}

/// What a command wrote.
pub(super) struct Said {
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Runs a command to its end. If nobody waits any longer, it is killed with all that it has started.
///
/// # Errors
/// What it said, if it failed.
pub(super) async fn output(mut command: Command) -> Result<Said, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let fails = |error| format!("{name}: {error}");
    // A group of its own: a Ctrl-C is for us, who then stop everything in order.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let process = command.spawn().map_err(fails)?;
    let mut running = Running(pid(&process));
    let ended = tokio::task::spawn_blocking(move || process.wait_with_output()).await;
    running.0 = None;
    let done = ended.expect("waiting does not panic").map_err(fails)?;
    let [stdout, stderr] = [done.stdout, done.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if done.status.success() {
        Ok(Said { stdout, stderr })
    } else {
        Err(format!("{name} failed ({}): {stderr}{stdout}", done.status))
    }
}

/// A process that somebody else waits for. It and its group are killed when this is dropped before they end.
struct Running(Option<Pid>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn pid(process: &Child) -> Option<Pid> {
    i32::try_from(process.id()).ok().and_then(Pid::from_raw)
}

/// A server of a peer. It is stopped when dropped.
pub(super) struct Daemon {
    process: Child,
    /// What stops it at once.
    stop: Signal,
    /// Its port on 127.0.0.1.
    pub(super) port: u16,
}

impl Daemon {
    /// Starts what `command` gives for a port, and waits until a line of its log contains `ready`.
    ///
    /// # Errors
    /// Its log, if it ends before.
    pub(super) async fn start(
        command: impl Fn(u16) -> Command,
        ready: &'static str,
        stop: Signal,
    ) -> Result<Daemon, String> {
        // A free port may be taken by somebody else before the server does.
        const TRIES: u32 = 3;
        let mut tries = 1;
        loop {
            let started = Self::try_start(&command, ready, stop).await;
            if started.is_ok() || tries == TRIES {
                return started;
            }
            tries += 1;
        }
    }

    async fn try_start(
        command: impl Fn(u16) -> Command,
        ready: &'static str,
        stop: Signal,
    ) -> Result<Daemon, String> {
        let port = free_port().map_err(|error| format!("no free port: {error}"))?;
        let mut command = command(port);
        let name = command
            .get_args()
            .map(OsStr::to_string_lossy)
            .collect::<Vec<_>>()
            .join(" ");
        let spawned = io::pipe().and_then(|(log, end)| {
            command.stdout(end.try_clone()?).stderr(end);
            let process = command.stdin(Stdio::null()).process_group(0).spawn()?;
            Ok((log, process))
        });
        // The command holds the pipe's other end: the log would have none.
        drop(command);
        let (log, process) = spawned.map_err(|error| format!("{name}: {error}"))?;
        let daemon = Daemon { process, stop, port };
        let (tell, told) = oneshot::channel();
        // Read to its end, lest the server should wait for room in the pipe.
        std::thread::spawn(move || {
            let mut tell = Some(tell);
            let mut log_so_far = String::new();
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                if line.contains(ready)
                    && let Some(tell) = tell.take()
                {
                    let _ = tell.send(Ok(()));
                }
                if tell.is_some() {
                    log_so_far += &(line + "\n");
                }
            }
            if let Some(tell) = tell {
                let _ = tell.send(Err(log_so_far));
            }
        });
        match told.await.expect("the thread sends before it ends") {
            Ok(()) => Ok(daemon),
            Err(log) => Err(format!("{name} ended: {log}")),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = pid(&self.process) {
            let _ = kill_process(pid, self.stop);
        }
        let _ = self.process.wait();
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(directory: &Path, name: &str, mode: u32) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(name), "").unwrap();
        fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn programs_are_found_on_the_path_and_then_in_debians_newest_version() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for version in ["9", "15", "16", "common"] {
            put(&at(version).join("bin"), "initdb", 0o755);
        }
        put(&at("15/bin"), "pgbench", 0o755);
        put(&at("16/bin"), "pgbench", 0o644);
        put(&at("path"), "psql", 0o755);
        put(&at("15/bin"), "psql", 0o755);
        let places = Places::new(at("path").as_os_str(), place.path());
        let found = places.find("it", [("initdb", "p"), ("pgbench", "p"), ("psql", "p")]);
        assert_eq!(
            found,
            Ok([at("16/bin/initdb"), at("15/bin/pgbench"), at("path/psql")])
        );
    }

    #[test]
    fn what_is_missing_is_named_with_its_packages() {
        let places = Places::new(OsStr::new(""), Path::new("/nowhere"));
        let needed = [("one", "first"), ("two", "second"), ("three", "second")];
        let missing = places.find("Peer", needed).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "Peer is not measured, for want of one, two, three: on Debian, apt-get install first second"
        );
    }
}
