//! Completions and manual pages, which are made from the command lines' own definitions.

use std::path::Path;
use std::process::{Command, Stdio};

use atm_tests::{program, stderr, stdout};
use clap::CommandFactory;

fn check(name: &str, command: &clap::Command) {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("man");
    let run = |arguments: &[&str]| {
        let done = Command::new(program(name)).args(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", stderr(&done));
        stdout(&done)
    };
    run(&["man", "--dir", directory.to_str().unwrap()]);
    let scripts = ["bash", "zsh", "fish", "elvish", "powershell"].map(|shell| run(&["completions", shell]));
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    check_command(&command, name, &directory, &scripts);
    let file = place.path().join("completions");
    std::fs::write(&file, &scripts[0]).unwrap();
    match Command::new("bash").arg("-n").arg(&file).output() {
        Ok(read) => assert!(
            read.status.success() && read.stderr.is_empty(),
            "{}",
            stderr(&read)
        ),
        Err(error) => eprintln!("skipped: bash: {error}"),
    }
}

/// That a command, its options and its subcommands have their page and are completed.
fn check_command(command: &clap::Command, name: &str, directory: &Path, scripts: &[String]) {
    let path = directory.join(format!("{name}.1"));
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for option in command.get_arguments().filter_map(clap::Arg::get_long) {
        assert!(
            page.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))),
            "--{option} is not in {name}.1"
        );
        for script in scripts {
            // Fish has no dashes before it.
            assert!(script.contains(option), "--{option} of {name} is not completed");
        }
    }
    // Without warnings, if it is there: -ww has all of them, -z no output.
    let formatted = Command::new("groff")
        .args(["-man", "-ww", "-z"])
        .arg(&path)
        .stdin(Stdio::null())
        .output();
    match formatted {
        Ok(formatted) => assert!(
            formatted.status.success() && formatted.stderr.is_empty(),
            "{name}: {}",
            stderr(&formatted)
        ),
        Err(error) => eprintln!("skipped: groff: {error}"),
    }
    for subcommand in command.get_subcommands() {
        for script in scripts {
            assert!(script.contains(subcommand.get_name()), "{name}: {subcommand}");
        }
        let name = format!("{name}-{}", subcommand.get_name());
        check_command(subcommand, &name, directory, scripts);
    }
}

#[test]
fn every_command_and_option_of_the_server_has_its_page_and_is_completed() {
    check("atm-server", &atm_server::args::Args::command());
}

#[test]
fn every_command_and_option_of_the_terminal_has_its_page_and_is_completed() {
    check("atm-cli", &atm_cli::args::Args::command());
}

#[test]
fn a_reader_who_has_seen_enough_is_no_failure_and_a_place_that_cannot_be_is() {
    for name in ["atm-server", "atm-cli"] {
        let piped = Command::new("sh")
            .args(["-c", "\"$0\" completions bash | true"])
            .arg(program(name))
            .output()
            .unwrap();
        assert!(piped.stderr.is_empty(), "{}", stderr(&piped));
        let refused = Command::new(program(name))
            .args(["man", "--dir", "/dev/null/man"])
            .output()
            .unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains("/dev/null/man"), "{}", stderr(&refused));
    }
}
