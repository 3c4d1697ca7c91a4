//! Where the settings of `serve` come from: the command line, then the environment, then a file, then the defaults.
//!
//! Nothing here names a setting. Each is defined once, as an option in [`crate::args`]: its name is its key in the file, its parser
//! reads the file's value, and its help is the comment above it when the settings are printed. What a file says becomes the option's
//! default, so that the precedence is clap's own. (Therefore no option of `serve` may use clap's `requires` and the like, which do
//! not look at defaults: how settings go together is checked in [`crate::config`].)

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use bank_core::limits::MAX_CONFIG_BYTES;
use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::de::{DeTable, DeValue};

use crate::args::Args;

const SERVE: &str = "serve";

/// The options of `serve` that are no settings.
const NO_SETTINGS: [&str; 3] = ["help", "config", "print_config"];

/// What is known of where the settings come from.
pub struct Settings {
    command: Command,
    matches: ArgMatches,
    file: Option<SettingsFile>,
}

struct SettingsFile {
    path: PathBuf,
    values: BTreeMap<String, String>,
}

/// What is wrong with a file of settings, a line for each mistake.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct FileError(String);

/// The program's arguments, with the settings of the file that they name, if any, beneath them.
///
/// # Errors
/// What clap says of the command line and of the environment, and in the same form whatever is wrong with the file. Help and the
/// version are such errors, too.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<(Args, Settings), clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut command = Args::command();
    let mut matches = command.try_get_matches_from_mut(&arguments)?;
    let path = matches
        .subcommand_matches(SERVE)
        .and_then(|serve| serve.get_one::<PathBuf>("config"));
    let file = match path {
        Some(path) => Some(
            SettingsFile::read(path, &command)
                .map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, error))?,
        ),
        None => None,
    };
    if let Some(file) = &file {
        let under = |arg: Arg| match arg.get_long().and_then(|key| file.values.get(key)) {
            Some(value) => arg.default_value(value.clone()),
            None => arg,
        };
        command = Args::command()
            .mut_args(under)
            .mut_subcommand(SERVE, |serve| serve.mut_args(under));
        matches = command.try_get_matches_from_mut(&arguments)?;
    }
    let args = Args::from_arg_matches(&matches)?;
    let settings = Settings {
        command,
        matches,
        file,
    };
    Ok((args, settings))
}

/// The options of `serve` that are settings, as they are once the command was built.
fn settings(command: &Command) -> impl Iterator<Item = &Arg> {
    let serve = command
        .find_subcommand(SERVE)
        .expect("the command that serves is there");
    serve
        .get_arguments()
        .filter(|arg| !NO_SETTINGS.contains(&arg.get_id().as_str()))
}

/// The key of a setting.
fn key(setting: &Arg) -> &str {
    setting.get_long().expect("every setting has a long name")
}

/// What a file writes for a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Truth,
}

impl Kind {
    fn of(setting: &Arg) -> Kind {
        let parsed = setting.get_value_parser().type_id();
        if parsed == TypeId::of::<bool>() {
            Kind::Truth
        } else if [
            TypeId::of::<u16>(),
            TypeId::of::<u32>(),
            TypeId::of::<u64>(),
            TypeId::of::<usize>(),
            TypeId::of::<NonZeroUsize>(),
        ]
        .iter()
        .any(|number| parsed == *number)
        {
            Kind::Number
        } else {
            Kind::Text
        }
    }

    /// The value as it would be written on the command line, or what is wanted.
    fn read(self, value: &DeValue<'_>) -> Result<String, &'static str> {
        match (self, value) {
            (Kind::Text, DeValue::String(text)) => Ok(text.to_string()),
            (Kind::Number, DeValue::Integer(number)) if number.radix() == 10 => {
                Ok(number.as_str().to_owned())
            }
            (Kind::Truth, DeValue::Boolean(truth)) => Ok(truth.to_string()),
            (Kind::Text, _) => Err("a text in quotation marks is wanted"),
            (Kind::Number, _) => Err("a decimal number is wanted, without quotation marks"),
            (Kind::Truth, _) => Err("true or false is wanted, without quotation marks"),
        }
    }

    fn write(self, value: &str) -> String {
        match self {
            Kind::Text => toml::Value::from(value).to_string(),
            Kind::Number | Kind::Truth => value.to_owned(),
        }
    }
}

impl SettingsFile {
    fn read(path: &Path, command: &Command) -> Result<SettingsFile, FileError> {
        let text =
            read_text(path).map_err(|error| FileError(format!("--config {}: {error}\n", path.display())))?;
        let mut values = BTreeMap::new();
        let mut mistakes = BTreeMap::new();
        match DeTable::parse(&text) {
            Err(error) => {
                let place = error.span().map_or(0, |span| span.start);
                mistakes.insert(place, error.message().to_owned());
            }
            Ok(table) => {
                for (name, value) in table.get_ref() {
                    match read_setting(command, name.get_ref(), value.get_ref()) {
                        Ok(value) => drop(values.insert(name.get_ref().to_string(), value)),
                        Err(mistake) => drop(mistakes.insert(name.span().start, mistake)),
                    }
                }
            }
        }
        if mistakes.is_empty() {
            return Ok(SettingsFile {
                path: path.to_owned(),
                values,
            });
        }
        let lines: Vec<_> = mistakes
            .into_iter()
            .map(|(place, mistake)| {
                let before = text.get(..place).unwrap_or(&text);
                format!(
                    "{}:{}: {mistake}",
                    path.display(),
                    before.matches('\n').count() + 1
                )
            })
            .collect();
        Err(FileError(lines.join("\n") + "\n"))
    }
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_CONFIG_BYTES + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        let long = format!("it is too long for a file of settings: {MAX_CONFIG_BYTES} bytes are allowed");
        return Err(std::io::Error::other(long));
    }
    Ok(text)
}

/// The value of a setting as it would be written on the command line, if it would be taken there.
fn read_setting(command: &Command, name: &str, value: &DeValue<'_>) -> Result<String, String> {
    let setting = settings(command)
        .find(|setting| key(setting) == name)
        .ok_or_else(|| {
            let known: Vec<_> = settings(command).map(key).collect();
            format!("unknown key {name:?}; there are {}", known.join(", "))
        })?;
    let value = Kind::of(setting)
        .read(value)
        .map_err(|wanted| format!("{name}: {wanted}"))?;
    // The environment has its own turn.
    let alone = Command::new(SERVE).arg(setting.clone().env(Resettable::Reset));
    match alone.try_get_matches_from([SERVE, &format!("--{name}={value}")]) {
        Ok(_) => Ok(value),
        Err(error) => {
            let told = error.to_string();
            let told = told.split("\n\nFor more information").next().unwrap_or_default();
            Err(format!("{name}: {}", told.trim_start_matches("error: ")))
        }
    }
}

impl Settings {
    /// All settings of `serve` as they are used, in TOML, each with its help and where it comes from; those that have no value as a
    /// comment. It can be fed back as a file of settings.
    ///
    /// # Errors
    /// If a value is not UTF-8, as a path may be and TOML may not.
    pub fn to_toml(&self) -> Result<String, String> {
        let serve = self
            .matches
            .subcommand_matches(SERVE)
            .expect("only the command that serves has settings");
        let mut text = "# Settings of atm-server serve, for --config.\n".to_owned();
        for setting in settings(&self.command) {
            let (id, key, kind) = (setting.get_id().as_str(), key(setting), Kind::of(setting));
            let help = setting.get_help().map(ToString::to_string).unwrap_or_default();
            let value = serve.get_raw(id).and_then(|mut values| values.next());
            let line = match value {
                Some(value) => {
                    let value = value
                        .to_str()
                        .ok_or_else(|| format!("--{key} {} is not UTF-8, as TOML is", value.display()))?;
                    format!("{key} = {}", kind.write(value))
                }
                None => format!("# {key} ="),
            };
            let _ = write!(
                text,
                "\n# {}\n# ({})\n{line}\n",
                help.replace('\n', "\n# "),
                self.origin(serve, setting)
            );
        }
        // Whoever prints it ends the last line.
        text.pop();
        Ok(text)
    }

    fn origin(&self, serve: &ArgMatches, setting: &Arg) -> String {
        match (serve.value_source(setting.get_id().as_str()), &self.file) {
            (None, _) => "not set".to_owned(),
            (Some(ValueSource::CommandLine), _) => "from the command line".to_owned(),
            (Some(ValueSource::EnvVariable), _) => {
                let variable = setting.get_env().unwrap_or_default();
                format!("from the environment, {}", variable.display())
            }
            (_, Some(file)) if file.values.contains_key(key(setting)) => format!("from {:?}", file.path),
            _ => "the default".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn serve(arguments: &[&str]) -> Result<(Args, Settings), clap::Error> {
        parse(
            ["atm-server", "serve"]
                .iter()
                .chain(arguments)
                .map(OsString::from),
        )
    }

    fn in_file(text: &str) -> Result<(Args, Settings), clap::Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("atm.toml");
        std::fs::write(&path, text).unwrap();
        serve(&["--config", path.to_str().unwrap()])
    }

    fn built() -> Command {
        let mut command = Args::command();
        command.build();
        command
    }

    /// The settings without what tells where they come from.
    fn values(settings: &Settings) -> String {
        let text = settings.to_toml().unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("# (")).collect();
        lines.join("\n")
    }

    #[test]
    fn every_setting_can_be_given_in_a_file_and_by_the_environment_and_is_printed_as_it_is_read() {
        let command = built();
        let mut variables = BTreeSet::new();
        let mut written = String::new();
        for setting in settings(&command) {
            let key = key(setting);
            let variable = setting
                .get_env()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            assert!(
                variable.starts_with("ATM_") && variables.insert(variable),
                "--{key} has no environment variable of its own"
            );
            let value = match (Kind::of(setting), &setting.get_possible_values()[..]) {
                (Kind::Truth, _) => "true".to_owned(),
                (Kind::Number, _) => "7".to_owned(),
                (Kind::Text, [.., last]) => format!("{:?}", last.get_name()),
                (Kind::Text, []) if key.ends_with("listen") => "\"127.0.0.1:7\"".to_owned(),
                (Kind::Text, []) if key == "log-level" => "\"bank_core=debug,warn\"".to_owned(),
                (Kind::Text, []) => format!("\"a {key}\""),
            };
            let _ = writeln!(written, "{key} = {value}");
        }
        let (_, settings) = in_file(&written).unwrap();
        let printed = values(&settings);
        for line in written.lines() {
            assert!(
                printed.lines().any(|printed| printed == line),
                "{line}\n{printed}"
            );
        }
        let (_, again) = in_file(&settings.to_toml().unwrap()).unwrap();
        assert_eq!(values(&again), printed);
        let (_, defaults) = serve(&[]).unwrap();
        let (_, again) = in_file(&defaults.to_toml().unwrap()).unwrap();
        assert_eq!(values(&again), values(&defaults), "also where nothing is set");
    }

    #[test]
    fn no_setting_is_printed_that_is_none() {
        let text = serve(&[]).unwrap().1.to_toml().unwrap();
        for none in NO_SETTINGS {
            assert!(
                !text.contains(&format!("{} =", none.replace('_', "-"))),
                "{none}: {text}"
            );
        }
    }

    #[test]
    fn a_mistake_is_told_with_file_line_and_key() {
        let check = |text: &str, expected: &[&str]| {
            let Err(error) = in_file(text) else {
                panic!("{text:?} is taken")
            };
            let told = error.to_string();
            for part in expected {
                assert!(told.contains(part), "{part:?}: {told}");
            }
            assert_eq!(error.exit_code(), 2);
        };
        check(
            "\nlisen = \"127.0.0.1:1\"",
            &["atm.toml:2: unknown key \"lisen\"", "listen"],
        );
        check("config = \"other\"", &["atm.toml:1: unknown key \"config\""]);
        check("[tls]\ncert = \"x\"", &["atm.toml:1: unknown key \"tls\""]);
        check(
            "# A name.\nlisten = \"localhost:5100\"",
            &["atm.toml:2: listen: ", "an IP address and a port are wanted"],
        );
        check(
            "connections = \"7\"",
            &["atm.toml:1: connections: a decimal number"],
        );
        check("connections = -7", &["atm.toml:1: connections: ", "-7"]);
        check("workers = 0", &["atm.toml:1: workers: "]);
        check("bank = 7", &["atm.toml:1: bank: a text in quotation marks"]);
        check(
            "allow-weak-pins = \"true\"",
            &["atm.toml:1: allow-weak-pins: true or false"],
        );
        check(
            "log-format = \"xml\"",
            &["atm.toml:1: log-format: ", "possible values: text, json"],
        );
        check("log-level = \"inof\"", &["atm.toml:1: log-level: ", "no level"]);
        check("bank = \"a\"\nbank = \"b\"", &["atm.toml:2: duplicate key"]);
        check("bank = \n", &["atm.toml:1: "]);
        check(
            "zinc = 1\nworkers = 0\nalp = 2",
            &[
                "atm.toml:1: unknown",
                "atm.toml:2: workers",
                "atm.toml:3: unknown",
            ],
        );
    }
}
