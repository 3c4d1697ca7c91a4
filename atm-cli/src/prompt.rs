//! Asking a person: with a terminal's comforts, or in plain lines for scripts, tests and pipes.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use bank_core::limits::{MAX_TYPED_CHARS, NOTICE_LOOK};
use crossterm::cursor::MoveTo;
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{self, Clear, ClearType};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use textwrap::core::display_width;
use zeroize::Zeroizing;

use crate::layout::numbered;
use crate::screen::{columns, say, say_notices, width};

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
    /// Lets the person choose one of at most nine options: gives its index.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn choose(&mut self, title: &str, options: &[&str]) -> Result<usize, NoAnswer>;

    /// Asks for a line of text, for which one may have to wait long. Before anything is typed, what `notices` gives is shown:
    /// where keys come one by one again and again, otherwise once.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn wait_for_line(
        &mut self,
        question: &str,
        notices: &mut dyn FnMut() -> Vec<String>,
    ) -> Result<String, NoAnswer>;

    /// Asks for a line of text.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn line(&mut self, question: &str) -> Result<String, NoAnswer> {
        self.wait_for_line(question, &mut Vec::new)
    }

    /// Asks for a line that is not shown.
    ///
    /// # Errors
    /// [`NoAnswer`].
    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>, NoAnswer>;

    /// Takes away what is shown: what comes next is for another person.
    fn clear(&mut self);
}

/// What fits standard input and output: comforts if both are a terminal, else plain lines.
pub fn for_stdin() -> Box<dyn Prompt> {
    if io::stdin().is_terminal() && io::stdout().is_terminal() {
        Box::new(Comfortable)
    } else {
        Box::new(Plain)
    }
}

/// A question within the screen's width, and its last line, behind which there is room to type.
fn wrapped(question: &str) -> (Vec<String>, String) {
    const ROOM: usize = 12;
    let mut lines: Vec<_> = question
        .split('\n')
        .flat_map(|line| textwrap::wrap(line, columns() - ROOM))
        .map(String::from)
        .collect();
    let last = lines.pop().unwrap_or_default();
    (lines, last)
}

/// On a terminal: single keys, and hidden PINs.
struct Comfortable;

impl Prompt for Comfortable {
    fn choose(&mut self, title: &str, options: &[&str]) -> Result<usize, NoAnswer> {
        say(&format!("\n{title}\n{}", numbered(options, width()).join("\n")));
        let keys = Keys::taken()?;
        draw("Type a number (Esc: back):", "");
        let chosen = loop {
            match next_key(NOTICE_LOOK) {
                Ok(Key::Char(digit)) => {
                    let number = digit.to_digit(10).unwrap_or(0) as usize;
                    if (1..=options.len()).contains(&number) {
                        draw(&format!("> {number}  {}", options[number - 1]), "");
                        break Ok(number - 1);
                    }
                }
                Ok(_) => {}
                Err(no_answer) => break Err(no_answer),
            }
        };
        drop(keys);
        println!();
        chosen
    }

    fn wait_for_line(
        &mut self,
        question: &str,
        notices: &mut dyn FnMut() -> Vec<String>,
    ) -> Result<String, NoAnswer> {
        typed(question, false, notices).map(|line| line.to_string())
    }

    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>, NoAnswer> {
        typed(question, true, &mut Vec::new)
    }

    fn clear(&mut self) {
        let _ = execute!(io::stdout(), Clear(ClearType::All), MoveTo(0, 0));
    }
}

/// What a person types up to Enter. Enter alone is no answer: it may be the one behind a choice that a single key has made.
fn typed(
    question: &str,
    secret: bool,
    notices: &mut dyn FnMut() -> Vec<String>,
) -> Result<Zeroizing<String>, NoAnswer> {
    let (before, question) = wrapped(question);
    before.iter().for_each(|line| say(line));
    // It never grows, so that no part of a secret is left behind.
    let mut line = Zeroizing::new(String::with_capacity(MAX_TYPED_CHARS * 4));
    let mut keys = Keys::taken()?;
    draw(&question, "");
    let end = loop {
        match next_key(NOTICE_LOOK) {
            Ok(Key::None) => {
                let heard = if line.is_empty() { notices() } else { Vec::new() };
                if heard.is_empty() {
                    continue;
                }
                draw("", "");
                drop(keys);
                say_notices(&heard);
                keys = Keys::taken()?;
            }
            Ok(Key::Char(c)) if line.chars().count() < MAX_TYPED_CHARS => line.push(c),
            Ok(Key::Erase) => drop(line.pop()),
            Ok(Key::EraseAll) => line.clear(),
            Ok(Key::Enter) if !line.is_empty() => break Ok(()),
            Ok(Key::Char(_) | Key::Enter) => {}
            Err(no_answer) => break Err(no_answer),
        }
        if secret {
            draw(&question, &"*".repeat(line.chars().count()));
        } else {
            draw(&question, &line);
        }
    };
    if secret {
        // How long it was is nobody's business.
        draw(&question, "********");
    }
    drop(keys);
    println!();
    end.map(|()| line)
}

/// Draws the line with a question and as much of the answer's end as there is room for.
fn draw(question: &str, answer: &str) {
    let room = columns().saturating_sub(display_width(question) + 2);
    let mut start = answer.len();
    for (at, _) in answer.char_indices().rev() {
        if display_width(&answer[at..]) > room {
            break;
        }
        start = at;
    }
    let mut screen = io::stdout().lock();
    let end = if question.is_empty() { "" } else { " " };
    // That nobody sees it will be noticed when the next key is read.
    let _ = write!(screen, "\r{question}{end}{}\u{1b}[K", &answer[start..]).and_then(|()| screen.flush());
}

/// While this lives, each key comes at once, and the screen does not show it.
struct Keys;

impl Keys {
    fn taken() -> Result<Keys, NoAnswer> {
        terminal::enable_raw_mode()
            .map(|()| Keys)
            .map_err(|_| NoAnswer::Quit)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = terminal::disable_raw_mode();
    }
}

/// What a key means.
enum Key {
    Char(char),
    Enter,
    Erase,
    EraseAll,
    /// None was pressed, or one that means nothing here.
    None,
}

/// The next key, if one is pressed within the time.
fn next_key(wait: Duration) -> Result<Key, NoAnswer> {
    match event::poll(wait) {
        Ok(true) => {}
        Ok(false) => return Ok(Key::None),
        Err(_) => return Err(NoAnswer::Quit),
    }
    let Ok(event) = event::read() else {
        return Err(NoAnswer::Quit);
    };
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press,
        ..
    }) = event
    else {
        return Ok(Key::None);
    };
    let control = modifiers.contains(KeyModifiers::CONTROL);
    match code {
        KeyCode::Char('c' | 'd') if control => Err(NoAnswer::Quit),
        KeyCode::Char('u') if control => Ok(Key::EraseAll),
        KeyCode::Char(c) if !control && !c.is_control() => Ok(Key::Char(c)),
        KeyCode::Enter => Ok(Key::Enter),
        KeyCode::Backspace | KeyCode::Delete => Ok(Key::Erase),
        KeyCode::Esc => Err(NoAnswer::Back),
        _ => Ok(Key::None),
    }
}

/// From a pipe or a file: the same questions, the same answers, a line each.
struct Plain;

impl Prompt for Plain {
    fn choose(&mut self, title: &str, options: &[&str]) -> Result<usize, NoAnswer> {
        let mut question = format!("\n{title}\n");
        for (n, option) in options.iter().enumerate() {
            question.push_str(&format!("  {}  {option}\n", n + 1));
        }
        question.push_str("Your choice:");
        loop {
            let line = self.line(&question)?;
            match line.parse::<usize>() {
                Ok(number) if (1..=options.len()).contains(&number) => return Ok(number - 1),
                _ => question = format!("Please choose 1 to {}.", options.len()),
            }
        }
    }

    fn wait_for_line(
        &mut self,
        question: &str,
        notices: &mut dyn FnMut() -> Vec<String>,
    ) -> Result<String, NoAnswer> {
        say_notices(&notices());
        self.plain_line(question).map(|line| line.to_string())
    }

    fn secret(&mut self, question: &str) -> Result<Zeroizing<String>, NoAnswer> {
        // A person may type it although what is said goes elsewhere.
        let _hidden = Hidden::on_stdin();
        self.plain_line(question)
    }

    /// What goes into a file or a pipe stays there.
    fn clear(&mut self) {}
}

impl Plain {
    fn plain_line(&mut self, question: &str) -> Result<Zeroizing<String>, NoAnswer> {
        let (before, question) = wrapped(question);
        before.iter().for_each(|line| say(line));
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
