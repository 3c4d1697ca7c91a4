//! Asking a person: with a terminal's comforts, or in plain lines for scripts, tests and pipes.

use std::io::{self, BufRead, IsTerminal, Write};

use inquire::{InquireError, Password, PasswordDisplayMode, Select, Text};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// The person gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Esc: not this, after all.
    Back,
    /// Ctrl-C, or the end of input: no more.
    Quit,
}

/// How a terminal asks.
pub trait Prompt {
    /// Lets the person choose one of the options: gives its index.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn choose(&mut self, title: &str, options: &[&str]) -> Result<usize, NoAnswer>;

    /// Asks for a line of text.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn line(&mut self, question: &str) -> Result<String, NoAnswer>;

    /// Asks for a line that is not shown.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>, NoAnswer>;
}

/// What fits standard input and output: comforts if both are a terminal, else plain lines.
pub fn for_stdin() -> Box<dyn Prompt> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        Box::new(Comfortable)
    } else {
        Box::new(Plain)
    }
}

/// On a terminal: arrow keys and hidden PINs.
struct Comfortable;

impl Prompt for Comfortable {
    fn choose(&mut self, title: &str, options: &[&str]) -> Result<usize, NoAnswer> {
        let numbered: Vec<_> = options
            .iter()
            .enumerate()
            .map(|(n, option)| format!("{}  {option}", n + 1))
            .collect();
        println!();
        let select = Select::new(title, numbered).with_page_size(options.len());
        Ok(answer(
            select
                .with_help_message("arrows or a number, then Enter")
                .raw_prompt(),
        )?
        .index)
    }

    fn line(&mut self, question: &str) -> Result<String, NoAnswer> {
        answer(Text::new(question).prompt())
    }

    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>, NoAnswer> {
        let password = Password::new(question)
            .with_display_mode(PasswordDisplayMode::Masked)
            .without_confirmation();
        answer(password.prompt()).map(Zeroizing::new)
    }
}

fn answer<T>(answer: Result<T, InquireError>) -> Result<T, NoAnswer> {
    answer.map_err(|error| match error {
        InquireError::OperationCanceled => NoAnswer::Back,
        _ => NoAnswer::Quit,
    })
}

/// From a pipe or a file: the same questions, the same answers, a line each.
struct Plain;

impl Prompt for Plain {
    fn choose(&mut self, title: &str, options: &[&str]) -> Result<usize, NoAnswer> {
        let mut question = format!("\n{title}\n");
        for (n, option) in options.iter().enumerate() {
            question.push_str(&format!("  {}  {option}\n", n + 1));
        }
        loop {
            let line = self.line(&question)?;
            match line.parse::<usize>() {
                Ok(number) if (1..=options.len()).contains(&number) => return Ok(number - 1),
                _ => question = format!("Please choose 1 to {}.", options.len()),
            }
        }
    }

    fn line(&mut self, question: &str) -> Result<String, NoAnswer> {
        self.plain_line(question).map(|line| line.to_string())
    }

    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>, NoAnswer> {
        // A person may type it although what is said goes elsewhere.
        let _hidden = Hidden::on_stdin();
        self.plain_line(question)
    }
}

impl Plain {
    fn plain_line(&mut self, question: &str) -> Result<Zeroizing<String>, NoAnswer> {
        let mut out = io::stdout();
        write!(out, "{question} ")
            .and_then(|()| out.flush())
            .map_err(|_| NoAnswer::Quit)?;
        let mut line = Zeroizing::new(String::with_capacity(256));
        let read = io::stdin().lock().read_line(&mut line);
        // The line end that a person's Enter would have shown.
        writeln!(out).map_err(|_| NoAnswer::Quit)?;
        match read {
            Ok(1..) => Ok(Zeroizing::new(line.trim().to_owned())),
            _ => Err(NoAnswer::Quit),
        }
    }
}

/// Asks on standard error for a line that is not shown, when standard output goes elsewhere.
///
/// # Errors
/// If standard input or standard error fails.
pub fn secret_beside_output(question: &str) -> io::Result<Zeroizing<String>> {
    let _hidden = Hidden::on_stdin();
    write!(io::stderr(), "{question} ")?;
    let mut line = Zeroizing::new(String::with_capacity(256));
    io::stdin().lock().read_line(&mut line)?;
    writeln!(io::stderr())?;
    Ok(Zeroizing::new(line.trim().to_owned()))
}

/// While this lives, a terminal on standard input does not show what is typed.
struct Hidden(rustix::termios::Termios);

impl Hidden {
    /// `None` if standard input is no terminal.
    fn on_stdin() -> Option<Hidden> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden).ok()?;
        Some(Hidden(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
