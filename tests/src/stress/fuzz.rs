//! `atm-stress fuzz`: bytes that nobody would send, for whatever reads bytes from outside, for as long as one likes.
//!
//! It needs no nightly compiler and knows nothing of the code's paths: it changes what is known to be good. For a search
//! that follows the paths there is the crate in `tests/fuzz/`.

use std::error::Error;
use std::fs;
use std::panic;
use std::path::PathBuf;
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fuzz::inputs::{inputs, seeds};
use crate::fuzz::{TARGETS, Target};

/// Arguments of `fuzz`.
#[derive(Debug, clap::Args)]
pub struct FuzzArgs {
    /// What to fuzz [default: everything, one after the other]
    #[arg(value_name = "TARGET", value_parser = target)]
    targets: Vec<Target>,
    /// For how many seconds, all together
    #[arg(long, value_name = "N", default_value = "10", value_parser = super::seconds, conflicts_with = "input")]
    seconds: Duration,
    /// With how many inputs for each target, instead of for some seconds
    #[arg(long, value_name = "N", conflicts_with_all = ["seconds", "input"])]
    inputs: Option<u64>,
    /// For the changes made at random [default: another each time]
    #[arg(long, value_name = "S", conflicts_with = "input")]
    seed: Option<u64>,
    /// Try this one input, such as one that has failed
    #[arg(long, value_name = "FILE", requires = "targets")]
    input: Option<PathBuf>,
}

/// The name of a target that is meant to fail, so that it can be seen how that is told. It is in no list.
const FAILING: &str = "failing";

fn target(name: &str) -> Result<Target, String> {
    if name == FAILING {
        return Ok(Target {
            name: FAILING,
            run: |input| assert!(!input.starts_with(b"fail"), "this is meant to fail"),
            ..TARGETS[0]
        });
    }
    let found = TARGETS.iter().find(|target| target.name == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        format!("the targets are {}", names.join(", "))
    })
}

/// What is being tried.
struct Trial {
    target: &'static str,
    seed: Option<u64>,
    number: u64,
    input: Vec<u8>,
}

static TRIAL: Mutex<Option<Trial>> = Mutex::new(None);

/// Fuzzes, and tells how many inputs there were. The first panic in whatever thread ends the process with 1, and its input
/// is saved. True if there is none.
///
/// # Errors
/// If a target's seeds, or the input, cannot be read.
pub fn run(args: &FuzzArgs) -> Result<bool, Box<dyn Error>> {
    let as_always = panic::take_hook();
    // Not by catching panics: those of other threads cannot be, nor any in a program that was built to abort.
    panic::set_hook(Box::new(move |panic| {
        as_always(panic);
        tell_of_failure();
        process::exit(1);
    }));
    if let Some(path) = &args.input {
        let input = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        for target in &args.targets {
            try_input(target, None, 1, input.clone());
            (target.finish)();
        }
        println!("nothing failed");
        return Ok(true);
    }
    let targets = if args.targets.is_empty() {
        &TARGETS[..]
    } else {
        &args.targets
    };
    let seed = args.seed.unwrap_or_else(rand::random);
    eprintln!("fuzzing with --seed {seed}");
    let seconds = args.seconds / u32::try_from(targets.len())?;
    for target in targets {
        let seeds = match target.name {
            FAILING => vec![("fail".to_owned(), b"fail".to_vec())],
            name => seeds(name)?,
        };
        let started = Instant::now();
        let mut number = 0;
        for input in inputs(&seeds, seed) {
            number += 1;
            try_input(target, Some(seed), number, input);
            let enough = args
                .inputs
                .map_or(started.elapsed() >= seconds, |inputs| number >= inputs);
            // Every seed is tried, however little time there is.
            if enough && number >= seeds.len() as u64 {
                break;
            }
        }
        (target.finish)();
        let a_second = number as f64 / started.elapsed().as_secs_f64();
        println!("{:<17} {number:>9} inputs, {a_second:>8.0} a second", target.name);
    }
    println!("nothing failed");
    Ok(true)
}

fn try_input(target: &Target, seed: Option<u64>, number: u64, input: Vec<u8>) {
    let trial = Trial {
        target: target.name,
        seed,
        number,
        input,
    };
    let input = trial.input.clone();
    *TRIAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(trial);
    (target.run)(&input);
}

/// Says which input it was, and saves it.
fn tell_of_failure() {
    let Some(trial) = TRIAL.lock().unwrap_or_else(PoisonError::into_inner).take() else {
        return;
    };
    let Trial {
        target,
        seed,
        number,
        input,
    } = trial;
    let Some(seed) = seed else {
        return eprintln!("atm-stress: {target} fails with this input");
    };
    eprintln!("atm-stress: {target} failed with --seed {seed}, at or after input {number}");
    let path = std::env::temp_dir().join(format!("atm-fuzz-{target}-{seed}-{number}"));
    match fs::write(&path, input) {
        Ok(()) => eprintln!(
            "The input is {0}: try it with \"atm-stress fuzz {target} --input {0}\", and once it is mended keep it in \
             tests/fuzz/corpus/{target}/.",
            path.display()
        ),
        Err(error) => eprintln!("The input could not be saved in {}: {error}", path.display()),
    }
}
