//! Inputs for a target: the seeds in its directory, and then what chance makes of them, the same from the same seed.

use std::io;
use std::path::PathBuf;
use std::{fs, iter};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

/// Bytes of the longest input that chance makes: enough for anything, and little enough to be quick.
const MOST_BYTES: usize = 8 * 1024;

/// Changes that are made to a seed at once, at most.
const MOST_CHANGES: usize = 6;

/// Values at which programs go wrong: ends of ranges, signs, separators, the first byte of a long number.
const TELLING: &[u8] = b"\x00\x01\x7f\x80\xff\xfe\n\r\t ,.\"x-+09{}[]:";

/// The directory of all seeds.
pub fn corpus() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"))
}

/// A target's seeds with their names, in the order of their names.
///
/// # Errors
/// If they cannot be read, or there are none.
pub fn seeds(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let directory = corpus().join(target);
    let named =
        |source: io::Error| io::Error::new(source.kind(), format!("{}: {source}", directory.display()));
    let mut seeds = Vec::new();
    for entry in fs::read_dir(&directory).map_err(named)? {
        let entry = entry.map_err(named)?;
        let bytes = fs::read(entry.path()).map_err(named)?;
        seeds.push((entry.file_name().to_string_lossy().into_owned(), bytes));
    }
    if seeds.is_empty() {
        return Err(named(io::Error::new(
            io::ErrorKind::NotFound,
            "there are no seeds",
        )));
    }
    seeds.sort_unstable();
    Ok(seeds)
}

/// All seeds as they are, and then without end what chance makes of them.
pub fn inputs(seeds: &[(String, Vec<u8>)], seed: u64) -> impl Iterator<Item = Vec<u8>> + '_ {
    let mut random = StdRng::seed_from_u64(seed);
    let untouched = seeds.iter().map(|(_, bytes)| bytes.clone());
    untouched.chain(iter::repeat_with(move || {
        let mut input = pick(seeds, &mut random).to_vec();
        for _ in 0..random.random_range(1..=MOST_CHANGES) {
            change(&mut input, seeds, &mut random);
        }
        input.truncate(MOST_BYTES);
        input
    }))
}

fn pick<'a>(seeds: &'a [(String, Vec<u8>)], random: &mut StdRng) -> &'a [u8] {
    seeds.choose(random).map_or(&[], |(_, bytes)| bytes)
}

fn change(input: &mut Vec<u8>, seeds: &[(String, Vec<u8>)], random: &mut StdRng) {
    let start = random.random_range(0..=input.len());
    let end = (start + random.random_range(0..16)).min(input.len());
    match random.random_range(0..9) {
        0 => flip(input, start, random),
        1 => set(input, start, random.random()),
        2 => set(input, start, *TELLING.choose(random).expect("there are some")),
        3 => input.insert(start, *TELLING.choose(random).expect("there are some")),
        4 => drop(input.drain(start..end)),
        5 => {
            let part = input[start..end].to_vec();
            let times = random.random_range(1..64);
            input.splice(start..start, part.repeat(times));
        }
        // The beginning of one and the end of another.
        6 => {
            let other = pick(seeds, random);
            let from = random.random_range(0..=other.len());
            input.truncate(start);
            input.extend_from_slice(&other[from..]);
        }
        // A line is moved, left out or said again.
        7 => {
            let mut lines: Vec<_> = input
                .split_inclusive(|&byte| byte == b'\n')
                .map(<[u8]>::to_vec)
                .collect();
            if !lines.is_empty() {
                let line = lines.remove(random.random_range(0..lines.len()));
                for _ in 0..random.random_range(0..3) {
                    lines.insert(random.random_range(0..=lines.len()), line.clone());
                }
                *input = lines.concat();
            }
        }
        _ => input.truncate(start),
    }
}

fn flip(input: &mut [u8], place: usize, random: &mut StdRng) {
    if let Some(byte) = input.get_mut(place) {
        *byte ^= 1 << random.random_range(0..8);
    }
}

fn set(input: &mut [u8], place: usize, value: u8) {
    if let Some(byte) = input.get_mut(place) {
        *byte = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_inputs_and_another_makes_others() {
        let seeds = [
            ("a".to_owned(), b"one,two\nthree".to_vec()),
            ("b".to_owned(), vec![0; 40]),
        ];
        let some = |seed| inputs(&seeds, seed).take(500).collect::<Vec<_>>();
        assert_eq!(some(1), some(1));
        assert_ne!(some(1), some(2));
        assert_eq!(some(1)[..2], [seeds[0].1.clone(), seeds[1].1.clone()]);
        assert!(some(1).iter().all(|input| input.len() <= MOST_BYTES));
    }
}
