//! What may come into the build: `deny.toml`, as far as it can be checked without cargo-deny.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use spdx::{Expression, LicenseReq, ParseMode};
use toml::Table;

/// A package of `Cargo.lock`.
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// All packages, for whatever machine and with whatever features.
fn packages() -> Vec<Package> {
    let metadata = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--locked",
            "--offline",
            "--all-features",
            "--format-version",
            "1",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", atm_tests::stderr(&metadata));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let text = |package: &Value, field| package[field].as_str().map(str::to_owned);
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| Package {
            name: text(package, "name").unwrap(),
            version: text(package, "version").unwrap(),
            license: text(package, "license"),
            source: text(package, "source"),
        })
        .collect()
}

fn deny() -> Table {
    include_str!("../../deny.toml").parse().unwrap()
}

/// The texts of a list in `deny.toml`.
fn texts(section: &str, list: &str) -> BTreeSet<String> {
    let texts = deny()[section][list].as_array().unwrap().clone();
    texts
        .iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// The crates, versions and all, of a list in `deny.toml` whose items have reasons.
fn crates(list: &str) -> BTreeSet<String> {
    let items = deny()["bans"][list].as_array().unwrap().clone();
    let item = |item: &toml::Value| {
        let reason = item["reason"].as_str().unwrap_or_default();
        assert!(!reason.is_empty(), "no reason in deny.toml: {item:?}");
        item["crate"].as_str().unwrap().to_owned()
    };
    items.iter().map(item).collect()
}

/// Whether a licence is among those allowed, also where a choice is offered or several must be kept.
fn is_allowed(license: &str, allowed: &BTreeSet<String>) -> bool {
    let within = |required: &LicenseReq| allowed.contains(&required.to_string());
    // Old manifests write a slash where they mean OR, and names that have been replaced since.
    Expression::parse_mode(license, ParseMode::LAX).is_ok_and(|license| license.evaluate(within))
}

#[test]
fn licenses_are_understood() {
    let allowed = ["MIT", "Apache-2.0 WITH LLVM-exception"]
        .map(str::to_owned)
        .into();
    for (license, expected) in [
        ("MIT", true),
        ("Apache-2.0", false),
        ("MIT OR Apache-2.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND Unicode-3.0", false),
        (
            "(MIT OR GPL-3.0-only) AND (Apache-2.0 WITH LLVM-exception OR Zlib)",
            true,
        ),
        ("our own", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(license, &allowed), expected, "{license}");
    }
}

#[test]
fn every_license_is_allowed() {
    let allowed = texts("licenses", "allow");
    for Package { name, license, .. } in packages() {
        let license = license.unwrap_or_default();
        assert!(
            is_allowed(&license, &allowed),
            "{name} is under \"{license}\", which deny.toml does not allow"
        );
    }
}

#[test]
fn every_crate_comes_from_where_it_should() {
    let registries = texts("sources", "allow-registry");
    for Package { name, source, .. } in packages() {
        // What has no source is this workspace's own.
        let from = source
            .as_deref()
            .map(|source| source.trim_start_matches("registry+"));
        assert!(
            from.is_none_or(|from| registries.contains(from)),
            "{name} comes from {from:?}"
        );
    }
}

#[test]
fn no_crate_is_banned() {
    let banned = crates("deny");
    for Package { name, .. } in packages() {
        assert!(!banned.contains(&name), "{name} is banned: deny.toml says why");
    }
}

/// Two versions of a crate are no failure, lest an update should be stopped by them. But an excuse that excuses nothing any
/// more is to go.
#[test]
fn every_excuse_for_two_versions_is_needed() {
    let packages = packages();
    for excuse in crates("skip") {
        let (excused, version) = excuse.split_once('@').unwrap();
        let is_other = |package: &Package| package.name == excused && package.version != version;
        let is_there = packages
            .iter()
            .any(|package| package.name == excused && package.version == version);
        assert!(
            is_there && packages.iter().any(is_other),
            "deny.toml excuses {excuse} without need"
        );
    }
}
