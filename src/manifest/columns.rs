//! Which column of a roster is what: the header line against what the manifest says, or against the names that school
//! systems use. What can be read in two ways is a finding, never a choice.

use std::ops::Range;

use super::csv::{Record, Records, beginning};
use super::decode::{list, nearest};
use super::language::{Encoding, RosterColumns, Separator};
use super::secrets::is_password_column;
use super::values::shorten;
use crate::model::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::model::id::UserName;
use crate::model::rules::Rule;

/// Most columns of a roster.
const COLUMNS_MAX: usize = 256;

/// How a roster is to be read, as far as the manifest says so.
#[derive(Debug, Default)]
pub(super) struct Format<'a> {
    /// The file, as the manifest names it.
    pub(super) file: &'a str,
    pub(super) columns: Option<&'a RosterColumns>,
    pub(super) separator: Option<Separator>,
    pub(super) encoding: Option<Encoding>,
}

/// What a column can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    User,
    Uid,
    ExtraTime,
    Name,
    StudentId,
    Candidate,
    SshKey,
}

impl Meaning {
    const ALL: [Self; 7] =
        [Self::User, Self::Uid, Self::ExtraTime, Self::Name, Self::StudentId, Self::Candidate, Self::SshKey];

    /// It is only shown: where it is not clear which column it is, it is none.
    fn is_for_people(self) -> bool {
        matches!(self, Self::Name | Self::StudentId)
    }

    fn key(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Uid => "uid",
            Self::ExtraTime => "extra_time",
            Self::Name => "name",
            Self::StudentId => "student_id",
            Self::Candidate => "candidate",
            Self::SshKey => "ssh_key",
        }
    }

    /// What exports call the column, folded; for the login name as Moodle does in several languages.
    fn usual_names(self) -> &'static [&'static str] {
        match self {
            Self::User => &[
                "user",
                "username",
                "login",
                "loginname",
                "account",
                "accountname",
                "samaccountname",
                "anmeldename",
                "benutzername",
                "benutzer",
                "kennung",
                "nutzername",
                "identifiant",
                "nomdutilisateur",
                "utilizator",
                "numeutilizator",
                "usuario",
                "nombredeusuario",
                "nomeutente",
                "nomedeutilizador",
                "gebruikersnaam",
                "nazwaużytkownika",
            ],
            Self::Uid => &["uid", "uidnumber"],
            Self::ExtraTime => &["extratime"],
            Self::Name => &["name", "fullname", "displayname", "vollständigername", "nomcomplet", "numecomplet"],
            Self::StudentId => &[
                "studentid",
                "studentnumber",
                "studentno",
                "idnumber",
                "matriculationnumber",
                "matrikelnummer",
                "matrikelnr",
                "matrikel",
                "numéroétudiant",
                "matricol",
                "numărmatricol",
            ],
            Self::Candidate => &["candidate", "candidatenumber", "candidateno", "candidateid", "kandidatennummer"],
            Self::SshKey => &["sshkey", "sshpublickey", "publickey", "pubkey"],
        }
    }
}

/// Which field of a line is what.
pub(super) struct Columns {
    pub(super) count: usize,
    pub(super) user: usize,
    pub(super) uid: Option<usize>,
    pub(super) extra_time: Option<usize>,
    pub(super) name: Option<usize>,
    pub(super) student_id: Option<usize>,
    pub(super) candidate: Option<usize>,
    pub(super) ssh_key: Option<usize>,
}

impl Format<'_> {
    fn named(&self, meaning: Meaning) -> Option<&str> {
        let columns = self.columns?;
        let column = match meaning {
            Meaning::User => &columns.user,
            Meaning::Uid => &columns.uid,
            Meaning::ExtraTime => &columns.extra_time,
            Meaning::Name => &columns.name,
            Meaning::StudentId => &columns.student_id,
            Meaning::Candidate => &columns.candidate,
            Meaning::SshKey => &columns.ssh_key,
        };
        column.as_ref().map(|name| name.0.as_str())
    }

    /// The fields whose names mean this.
    fn fields_of(&self, meaning: Meaning, header: &Record<'_>) -> Vec<usize> {
        let fits = |name: &str| match self.named(meaning) {
            Some(wanted) => name.to_lowercase() == wanted.trim().to_lowercase(),
            None => meaning.usual_names().contains(&folded(name).as_str()),
        };
        header.names().enumerate().filter(|(_, name)| fits(name)).map(|(index, _)| index).collect()
    }

    /// The fields whose names mean a login name.
    pub(super) fn user_fields(&self, header: &Record<'_>) -> Vec<usize> {
        self.fields_of(Meaning::User, header)
    }

    /// The lines of a text, with the separator that the manifest names, or the file itself, or that the header line has
    /// most of; one with which there is a login name wins.
    pub(super) fn records<'s>(&self, text: &'s str) -> Records<'s> {
        let (at, told) = beginning(text);
        let written = self.separator.map(|separator| match separator {
            Separator::Comma => ',',
            Separator::Semicolon => ';',
            Separator::Tab => '\t',
        });
        let with = |separator| Records::new(text, at, separator);
        if let Some(separator) = written.or(told) {
            return with(separator);
        }
        let sense = |separator: &char| {
            let header = with(*separator).next();
            header.map(|header| (!self.fields_of(Meaning::User, &header).is_empty(), header.fields.len()))
        };
        // The last of several that are as good: a comma.
        with(['\t', ';', ','].into_iter().max_by_key(sense).unwrap_or(','))
    }

    /// The line of a manifest that says which column is the login name.
    fn line(&self, user: &str) -> String {
        let columns = Meaning::ALL.into_iter().filter(|meaning| *meaning != Meaning::User);
        let others = columns.filter_map(|meaning| Some((meaning.key(), self.named(meaning)?)));
        let columns: Vec<String> = std::iter::once(("user", user))
            .chain(others)
            .map(|(key, name)| format!("{key}: \"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")))
            .collect();
        let separator = match self.separator {
            Some(Separator::Comma) => ", separator: \",\"",
            Some(Separator::Semicolon) => ", separator: \";\"",
            Some(Separator::Tab) => ", separator: tab",
            None => "",
        };
        let encoding = match self.encoding {
            Some(Encoding::Utf8) => ", encoding: utf-8",
            Some(Encoding::Latin1) => ", encoding: latin1",
            Some(Encoding::Utf16) => ", encoding: utf-16",
            None => "",
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
        let file = if self.file.chars().all(plain) { self.file.to_owned() } else { format!("\"{}\"", self.file) };
        format!("roster: {{ file: {file}, columns: {{ {} }}{separator}{encoding} }}", columns.join(", "))
    }
}

/// A column's name as people compare it.
fn folded(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Reads the header line; `None` after a finding.
pub(super) fn find(
    header: &Record<'_>,
    format: &Format<'_>,
    separator: char,
    place: impl Fn(Range<usize>) -> Span,
    diagnostics: &mut Diagnostics,
) -> Option<Columns> {
    let mut note = |rule, bytes: &Range<usize>, message: String, hint: String| {
        diagnostics.push(Diagnostic::new(rule, message).at(place(bytes.clone())).hint(hint));
    };
    if header.fields.len() > COLUMNS_MAX {
        let message = format!("the roster has more than {COLUMNS_MAX} columns");
        note(Rule::TooBig, &header.bytes, message, "export fewer columns".to_owned());
        return None;
    }
    for field in header.fields.iter().filter(|field| is_password_column(&field.text)) {
        let message = format!("the roster has a column `{}`: secrets never stand in a manifest", shorten(&field.text));
        let hint = "export the roster without it, and change what was exposed";
        note(Rule::Secret, &field.bytes, message, hint.to_owned());
    }
    let mut found = [None; Meaning::ALL.len()];
    let mut sound = true;
    for (meaning, found) in Meaning::ALL.into_iter().zip(&mut found) {
        match format.fields_of(meaning, header)[..] {
            [index] => *found = Some(index),
            [_, _, ..] if meaning.is_for_people() && format.named(meaning).is_none() => {}
            [first, second, ..] => {
                let (one, other) = (&header.fields[first], &header.fields[second]);
                let (message, hint) = twice(meaning, format, (one.trimmed(), other.trimmed()));
                let diagnostic = Diagnostic::new(Rule::RosterColumns, message).at(place(other.bytes.clone()));
                diagnostics.push(diagnostic.related(place(one.bytes.clone()), "the other one").hint(hint));
                sound = false;
            }
            [] if meaning == Meaning::User || format.named(meaning).is_some() => {
                let (message, hint) =
                    missing(format.named(meaning).unwrap_or(meaning.key()), format, header, separator);
                let place = place(header.bytes.clone());
                diagnostics.push(Diagnostic::new(Rule::RosterColumns, message).at(place).hint(hint));
                sound = false;
            }
            [] => {}
        }
    }
    if found[2].is_none() {
        note_mistyped(header, place, diagnostics);
    }
    let [user, uid, extra_time, name, student_id, candidate, ssh_key] = found;
    // A column that is the login name is nobody's name besides.
    let [name, student_id] = [name, student_id].map(|column| column.filter(|index| Some(*index) != user));
    let count = header.fields.len();
    sound.then_some(Columns { count, user: user?, uid, extra_time, name, student_id, candidate, ssh_key })
}

fn twice(meaning: Meaning, format: &Format<'_>, (one, other): (&str, &str)) -> (String, String) {
    let (one, other) = (shorten(one), shorten(other));
    if one.to_lowercase() == other.to_lowercase() {
        let message = format!("two columns of the roster are called `{other}`, so it could be either");
        return (
            message,
            "rename one of the two in the first line of the file, or export the other columns".to_owned(),
        );
    }
    let message = format!("the roster's `{}` could be the column `{one}` or `{other}`", meaning.key());
    let hint = match meaning {
        Meaning::User => format!("say which one: `{}`", format.line(&one)),
        _ => "rename one of the two in the first line of the file".to_owned(),
    };
    (message, hint)
}

fn missing(wanted: &str, format: &Format<'_>, header: &Record<'_>, separator: char) -> (String, String) {
    let names: Vec<String> = header.names().take(20).map(shorten).collect();
    let known = names.iter().map(String::as_str);
    let first = names.first().map_or("", String::as_str);
    let likely = ["user", "login", "kennung", "account", "konto", "compte", "matric", "mail"].into_iter();
    let likely = likely.filter_map(|word| known.clone().find(|name| folded(name).contains(word))).next();
    let hint = match nearest(wanted, known.clone()) {
        Some(name) => format!("did you mean `{name}`? write `{}`", format.line(name)),
        None if names.len() == 1 && UserName::new(first).is_ok() => {
            "the first line must name the columns: put a line `user` on top".to_owned()
        }
        None if names.len() == 1 && first.contains('|') => {
            "export it with `;`, `,` or a tab between the columns".to_owned()
        }
        None => format!(
            "its columns are {}; say which of them is the login name: `{}`",
            list(known.clone()),
            format.line(likely.unwrap_or("…"))
        ),
    };
    let separator = if separator == '\t' { "tab".to_owned() } else { format!("`{separator}`") };
    (format!("the roster has no column `{}` (columns are separated by {separator} here)", shorten(wanted)), hint)
}

/// A column that was meant for the extra time and is not called so would leave somebody without it.
fn note_mistyped(header: &Record<'_>, place: impl Fn(Range<usize>) -> Span, diagnostics: &mut Diagnostics) {
    let like = |name: &str| {
        let name = folded(name);
        name.contains("extratime") || nearest(&name, ["extratime"]).is_some()
    };
    for field in header.fields.iter().filter(|field| like(field.trimmed())) {
        let message = format!("the column `{}` looks like extra times and is not read", shorten(field.trimmed()));
        let hint = "call the column `extra_time`, and write percentages of the session in it: `25%`";
        diagnostics.push(Diagnostic::new(Rule::RosterColumns, message).at(place(field.bytes.clone())).hint(hint));
    }
}
