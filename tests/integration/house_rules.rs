//! What ARCHITECTURE.md and CONTRIBUTING.md say, as far as a program can check it.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below a directory with one of the extensions.
fn files(directory: &Path, extensions: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != ".git" {
            found.extend(files(&path, extensions));
        } else if extensions
            .iter()
            .any(|extension| path.extension().is_some_and(|found| found == *extension))
        {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

fn assert_absent(directory: &str, words: &[&str], why: &str) {
    for (path, text) in files(&root().join(directory), &["rs", "toml"]) {
        for (number, line) in text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            for word in words {
                assert!(
                    !line.contains(word),
                    "{}:{}: \"{word}\": {why}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn the_core_knows_no_sockets_and_no_runtime() {
    assert_absent(
        "bank-core",
        &["tokio", "std::net", "TcpStream", "async_std", "mio"],
        "the core is synchronous",
    );
}

#[test]
fn the_rules_know_no_clock_and_no_io() {
    for file in [
        "account.rs",
        "transaction.rs",
        "row.rs",
        "card.rs",
        "money.rs",
        "ids.rs",
    ] {
        let text = std::fs::read_to_string(root().join("bank-core/src").join(file)).unwrap();
        let rules = text.split("#[cfg(test)]").next().unwrap();
        for word in [
            "SystemTime",
            "Instant",
            "now()",
            "std::fs",
            "std::io",
            "rusqlite",
            "Mutex",
            "RwLock",
        ] {
            assert!(!rules.contains(word), "{file}: \"{word}\"");
        }
    }
}

#[test]
fn bounds_and_deadlines_stand_in_one_file() {
    for directory in ["bank-core/src", "atm-server/src", "atm-cli/src"] {
        for (path, text) in files(&root().join(directory), &["rs"]) {
            let code = text.split("#[cfg(test)]").next().unwrap();
            if !path.ends_with("limits.rs") {
                assert!(
                    !code.contains("Duration::from_"),
                    "{}: a wait belongs into limits.rs",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    for directory in ["bank-core", "atm-server", "atm-cli", "tests"] {
        for (path, text) in files(&root().join(directory), &["rs"]) {
            assert!(
                text.starts_with("//! "),
                "{} does not begin with its module's documentation",
                path.display()
            );
        }
    }
}

#[test]
fn every_direct_dependency_is_explained() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let dependencies = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .unwrap()
        .split("\n[")
        .next()
        .unwrap();
    let names = dependencies.lines().filter_map(|line| {
        line.split_once(" = ")
            .filter(|(_, value)| !value.contains("path"))
    });
    for (name, _) in names {
        assert!(
            page.contains(name),
            "ARCHITECTURE.md does not say why {name} is here"
        );
    }
}
