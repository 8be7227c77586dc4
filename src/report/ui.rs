//! Where everything is printed: data to stdout, the rest to stderr. Colour is added by the terminal's wish alone, and
//! nothing that the user or a program wrote reaches the terminal with its control characters.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use indicatif::{ProgressBar, ProgressStyle};

use super::escaped;
use crate::error::chain;
use crate::exit::Exit;

/// The user's end of a command.
#[derive(Debug, Default)]
pub struct Ui {
    bar: Option<ProgressBar>,
}

/// Why a command did not do what was asked, in the shape in which it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// What was tried and did not work.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

/// The service account's group is the one that disks and runs belong to.
const DENIED: &str = "this account may not look there: run it with `sudo`, or have an admin add you to the group of the service \
                      account (`labwright`, unless site.yaml names another)";

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hint: None }
    }

    /// An error and its sources, none of them said twice. Who may not look is told who may.
    pub fn from_error(exit: Exit, error: &dyn std::error::Error) -> Self {
        let mut failure = Self::new(exit, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            let (words, last) = (cause.to_string(), failure.causes.last());
            // SQLite's message, then its code with the same message.
            if !last.unwrap_or(&failure.message).ends_with(&words) && last.is_none_or(|last| !words.ends_with(last)) {
                failure.causes.push(words);
            }
            source = cause.source();
        }
        let is_denied = failure.causes.last().unwrap_or(&failure.message).contains("Permission denied");
        if is_denied && !nix::unistd::geteuid().is_root() {
            failure.hint = Some(DENIED.to_owned());
        }
        failure
    }

    /// What went wrong in several places, each told with its causes.
    pub fn of_all<E: std::error::Error>(exit: Exit, message: impl Into<String>, errors: &[E]) -> Self {
        let causes = errors.iter().map(|error| chain(error)).collect();
        Self { exit, message: message.into(), causes, hint: None }
    }

    /// Says what was tried, in front of what went wrong.
    #[must_use]
    pub fn within(mut self, message: impl Into<String>) -> Self {
        let cause = std::mem::replace(&mut self.message, message.into());
        self.causes.insert(0, cause);
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn render(&self) -> String {
        let mut text = format!("error: {}\n", escaped(&self.message));
        for cause in &self.causes {
            writeln!(text, "  caused by: {}", escaped(cause)).expect("a string takes all");
        }
        if let Some(hint) = &self.hint {
            writeln!(text, "hint: {}", escaped(hint)).expect("a string takes all");
        }
        text
    }
}

impl Ui {
    /// Data: what a pipe behind us wants. Newline included by the caller.
    pub fn data(&self, text: &str) {
        write_or_leave("standard output", &mut anstream::stdout().lock(), text);
    }

    /// Data that takes the place of what was shown before: the terminal's screen is cleared and filled as far as it goes. What
    /// goes elsewhere is kept, with an empty line in between.
    pub fn redraw(&self, text: &str) {
        let Some((_, height)) = terminal_size::terminal_size_of(std::io::stdout()) else {
            return self.data(&format!("\n{text}"));
        };
        // Not a colour, so that nobody takes it out.
        write_or_leave("standard output", &mut std::io::stdout().lock(), "\x1b[H\x1b[J");
        self.data(&fitted(text, usize::from(height.0)));
    }

    /// Whether what goes to stderr may be styled.
    pub fn is_styled(&self) -> bool {
        anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never
    }

    /// A line for the person who looks on.
    pub fn say(&self, line: &str) {
        let line = escaped(line);
        match &self.bar {
            Some(bar) => bar.println(&line),
            None => write_or_leave("standard error", &mut anstream::stderr().lock(), &format!("{line}\n")),
        }
    }

    /// The last word of a command: why it did not do what was asked, if it did not.
    pub fn ended(&mut self, ended: Result<Exit, Failure>) -> Exit {
        ended.unwrap_or_else(|failure| {
            self.progress_done();
            self.say_rendered(&failure.render());
            failure.exit
        })
    }

    /// Several lines, already made fit for a terminal.
    pub fn say_rendered(&self, text: &str) {
        write_or_leave("standard error", &mut anstream::stderr().lock(), text);
    }

    /// Whether anybody is there who could answer.
    pub fn can_ask(&self) -> bool {
        std::io::stdin().is_terminal()
    }

    /// Asks for a `yes`; anything else is a no. Without a terminal nobody can answer: `None`.
    pub fn confirm(&self, question: &str) -> Option<bool> {
        if !self.can_ask() {
            return None;
        }
        write_or_leave(
            "standard error",
            &mut anstream::stderr().lock(),
            &format!("{question} Only `yes` is accepted: "),
        );
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim() == "yes")
    }

    /// The same, where without a `yes` nothing is done: `undone` says what then was not, such as `changed`.
    pub fn confirmed(&self, question: &str, undone: &str) -> Result<(), Failure> {
        if self.confirm(question) == Some(true) {
            return Ok(());
        }
        let refused = Failure::new(Exit::Refused, format!("not confirmed; nothing was {undone}"));
        Err(refused.hint("add `--yes` where nobody is watching"))
    }

    /// Progress of `wanted` things; on a terminal a bar, else nothing (the lines of `say` tell the story).
    pub fn progress(&mut self, what: &str, done: usize, wanted: usize) {
        if !self.draws() {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        bar.set_length(wanted as u64);
        bar.set_position(done as u64);
        bar.set_message(what.to_owned());
    }

    /// Whether a bar would be seen.
    pub fn draws(&self) -> bool {
        std::io::stderr().is_terminal()
    }

    pub fn progress_done(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// What a command line that was not understood comes to; clap's own words are the message, and help and version no errors.
pub fn usage(error: &clap::Error) -> Exit {
    let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
    drop(error.print());
    exit
}

/// The two pipes of a process that talks to another of ours, which is no person.
pub fn pipes() -> (std::io::StdinLock<'static>, std::io::StdoutLock<'static>) {
    (std::io::stdin().lock(), std::io::stdout().lock())
}

/// Columns of the terminal that data goes to; `None` where it goes to a file or a program, which want all of it.
pub(super) fn terminal_width() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size_of(std::io::stdout())?;
    Some(usize::from(width.0)).filter(|width| *width > 0)
}

/// A line for people, broken between words where their terminal ends; what goes on has `indent` blanks before it.
pub fn broken(line: &str, indent: usize) -> String {
    terminal_width().map_or_else(|| line.to_owned(), |width| broken_at(line, indent, width))
}

fn broken_at(line: &str, indent: usize, width: usize) -> String {
    let (mut text, mut used) = (String::new(), 0);
    for (at, word) in line.split(' ').enumerate() {
        let length = word.chars().count();
        if used > indent && used + 1 + length > width {
            text.truncate(text.trim_end().len());
            text.extend(["\n", &" ".repeat(indent)]);
            used = indent;
        } else if at > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += length;
    }
    text
}

/// As many lines as a screen of this height shows at once, with room for the cursor.
fn fitted(text: &str, height: usize) -> String {
    let (lines, room) = (text.lines().count(), height.saturating_sub(1).max(1));
    if lines <= room {
        return text.to_owned();
    }
    let shown: String = text.split_inclusive('\n').take(room - 1).collect();
    format!("{shown}… {} more lines\n", lines - (room - 1))
}

/// When colours are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set; and anywhere with CLICOLOR_FORCE.
    #[default]
    Auto,
    Always,
    Never,
}

impl Colour {
    /// Holds for everything that is printed from now on.
    pub fn set(self) {
        let choice = match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// A reader that went away (`labwright get vms | head`) is no reason to complain; what could not be written for another
/// reason, as to a full disk, is.
fn write_or_leave(what: &str, stream: &mut dyn std::io::Write, text: &str) {
    let Err(error) = stream.write_all(text.as_bytes()).and_then(|()| stream.flush()) else { return };
    if error.kind() != std::io::ErrorKind::BrokenPipe {
        let failure = Failure::from_error(Exit::Failed, &error).within(format!("cannot write to {what}"));
        // Should that fail too, the exit code is all that is left.
        drop(std::io::Write::write_all(&mut std::io::stderr(), failure.render().as_bytes()));
    }
    std::process::exit(i32::from(Exit::Failed as u8));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_broken_between_words() {
        assert_eq!(broken_at("ok    a: one two", 6, 40), "ok    a: one two");
        assert_eq!(broken_at("ok    a: one two", 6, 12), "ok    a: one\n      two");
        assert_eq!(broken_at("      /a/very/long/path is", 6, 12), "      /a/very/long/path\n      is");
    }

    #[test]
    fn what_is_drawn_fits_the_screen() {
        assert_eq!(fitted("a\nb\nc\n", 4), "a\nb\nc\n");
        assert_eq!(fitted("a\nb\nc\n", 3), "a\n… 2 more lines\n");
        assert_eq!(fitted("a\nb\n", 1), "… 2 more lines\n");
    }
}
