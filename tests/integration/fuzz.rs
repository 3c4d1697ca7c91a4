//! Everything that reads bytes from outside, given a few thousand inputs that nobody would send: `atm-stress fuzz` in small,
//! and that it would tell.

use std::collections::{BTreeSet, HashSet};
use std::mem::discriminant;
use std::panic::catch_unwind;
use std::process::{Command, Output};

use allocation_counter::measure;
use atm_tests::fuzz::inputs::{corpus, inputs, seeds};
use atm_tests::fuzz::{TARGETS, Target};
use atm_tests::{program, stderr, stdout};
use bank_core::protocol::{Greeting, Reply, Request, decode};

/// Inputs for each target.
const INPUTS: usize = 500;

fn fuzz(target: &Target) {
    let seeds = seeds(target.name).unwrap();
    assert!(seeds.len() < INPUTS);
    for input in inputs(&seeds, 6).take(INPUTS) {
        let tried = catch_unwind(|| measure(|| (target.run)(&input)));
        let Ok(allocated) = tried else {
            panic!("{} fails with {}", target.name, input.escape_ascii())
        };
        assert!(
            allocated.bytes_max <= target.most_memory,
            "{} takes {} bytes with {}",
            target.name,
            allocated.bytes_max,
            input.escape_ascii()
        );
    }
    (target.finish)();
}

#[test]
fn no_target_fails_or_takes_more_memory_than_it_may() {
    TARGETS.iter().for_each(fuzz);
}

#[test]
fn every_target_has_seeds_and_a_fuzzer_of_its_own() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let names_in = |directory: &str| -> BTreeSet<String> {
        std::fs::read_dir(corpus().join("..").join(directory))
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect()
    };
    assert_eq!(names_in("corpus"), names);
    assert_eq!(names_in("fuzz_targets"), names);
    let manifest = std::fs::read_to_string(corpus().join("../Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let listed = manifest["bin"].as_array().unwrap().iter();
    let listed = listed
        .map(|bin| bin["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, listed);
}

/// Seeds that are refused at the first look lead nowhere.
#[test]
fn every_form_of_every_message_is_among_the_seeds() {
    let read = |target| -> Vec<Vec<u8>> {
        seeds(target)
            .unwrap()
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect()
    };
    let (requests, greetings, replies) = (read("request"), read("greeting"), read("reply"));
    let requests: HashSet<_> = requests
        .iter()
        .filter_map(|bytes| Some(discriminant(&decode::<Request<'_>>(bytes).ok()?.body)))
        .collect();
    let greetings: HashSet<_> = greetings
        .iter()
        .filter_map(|bytes| Some(discriminant(&decode::<Greeting<'_>>(bytes).ok()?)))
        .collect();
    let replies: HashSet<_> = replies
        .iter()
        .filter_map(|bytes| Some(discriminant(&decode::<Reply<'_>>(bytes).ok()?.body)))
        .collect();
    let found = [
        ("Requests", requests.len()),
        ("Handshake", greetings.len()),
        ("Replies", replies.len()),
    ];
    for (section, found) in found {
        assert_eq!(found, forms(section), "{section}");
    }
}

/// How many forms of messages that section of the protocol's page lists.
fn forms(section: &str) -> usize {
    let page = include_str!("../../docs/PROTOCOL.md");
    let (_, section) = page.split_once(&format!("\n## {section}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let first = |line: &str| line.strip_prefix("| ")?.split(' ').next()?.parse::<u8>().ok();
    section.lines().filter_map(first).count()
}

fn atm_stress(arguments: &[&str]) -> Output {
    Command::new(program("atm-stress"))
        .arg("fuzz")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_command_tries_what_it_is_told_to_and_counts() {
    let fuzzed = atm_stress(&["request", "sums", "--inputs", "100", "--seed", "5"]);
    let said = stdout(&fuzzed);
    assert!(fuzzed.status.success(), "{}", stderr(&fuzzed));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].starts_with("request ") && lines[0].contains(" 100 inputs"),
        "{said}"
    );
    assert!(
        lines[1].starts_with("sums ") && lines[2] == "nothing failed",
        "{said}"
    );
    assert!(stderr(&fuzzed).contains("--seed 5"));

    let unknown = atm_stress(&["nothing"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        stderr(&unknown).contains("the targets are frames, hello"),
        "{}",
        stderr(&unknown)
    );
}

#[test]
fn an_input_that_fails_is_told_and_saved_and_fails_again() {
    let place = tempfile::tempdir().unwrap();
    let failed = Command::new(program("atm-stress"))
        .args(["fuzz", "failing", "--seed", "7"])
        .env("TMPDIR", place.path())
        .output()
        .unwrap();
    let told = stderr(&failed);
    assert_eq!(failed.status.code(), Some(1), "{told}");
    assert!(told.contains("failing failed with --seed 7"), "{told}");
    let saved = std::fs::read_dir(&place).unwrap().next().unwrap().unwrap().path();
    assert!(told.contains(saved.to_str().unwrap()), "{told}");
    assert!(std::fs::read(&saved).unwrap().starts_with(b"fail"));

    let again = atm_stress(&["failing", "--input", saved.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).contains("failing fails with this input"),
        "{}",
        stderr(&again)
    );
}
