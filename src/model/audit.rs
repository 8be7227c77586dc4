//! What the audit keeps of each act, as values: who asked, from where, what for, and on what. Texts in it are templates with
//! fields: a command's own words, never a name that somebody gave.

use serde::{Deserialize, Serialize};

use super::address::Address;

/// Somebody who asks, as the kernel knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub uid: u32,
    /// `None` of an account without a name.
    pub login: Option<String>,
}

/// Who asks, and how they came here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub account: Account,
    /// Who logged in and became that account, as by `sudo`.
    pub behind: Option<Account>,
    pub via: Via,
}

/// From where somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    Terminal,
    Ssh,
    /// The daemon's.
    Socket,
    /// Nobody sits there: cron, a timer, CI.
    Program,
    /// As a newer labwright calls it.
    #[serde(other)]
    Other,
}

/// One act, before it is done or when it was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    pub actor: Actor,
    pub asked: Asked,
    /// What it is about, by the names of now.
    pub about: Vec<Address>,
    pub verdict: Verdict,
}

impl Act {
    /// The same about these things too.
    #[must_use]
    pub fn about_also<'a>(&self, things: impl Iterator<Item = &'a Address>) -> Self {
        let mut act = self.clone();
        act.about.extend(things.cloned());
        act.about.sort();
        act.about.dedup();
        act
    }
}

/// What was asked for, without anybody's name in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The command, such as `vm start`.
    pub command: String,
    /// Its options, without their values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// It was let begin; how it went is in the history.
    Begun,
    Refused {
        /// The kind of reason, for programs.
        why: String,
    },
    /// As a newer labwright calls it.
    #[serde(other)]
    Other,
}

/// Commands that have commands of their own.
const FAMILIES: [&str; 10] =
    ["claim", "get", "host", "permission", "privacy", "session", "state", "template", "vm", "web"];

impl Asked {
    /// What a command line asks for; its operands and the values of its options may name somebody.
    pub fn of(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let plain = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
        let first = words.next().filter(plain).unwrap_or_default();
        let second = words.clone().next().filter(plain).filter(|_| FAMILIES.contains(&first));
        let command = second.map_or_else(|| first.to_owned(), |second| format!("{first} {second}"));
        let options = words.filter(|word| word.starts_with("--") && word.len() > 2);
        let name = |option: &str| option.split('=').next().unwrap_or_default().to_owned();
        Self { command, options: options.map(name).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_named_in_what_was_asked_for() {
        let of = |line: &str| {
            let Asked { command, options } = Asked::of(line);
            [vec![command], options].concat().join(" ")
        };
        assert_eq!(of("vm start doraz/mine --isolate"), "vm start --isolate");
        assert_eq!(of("vm derive gsr --name=mine --owner doraz"), "vm derive --name --owner");
        assert_eq!(of("apply labs/doraz --yes"), "apply --yes");
        assert_eq!(of("history --user doraz -n 3"), "history --user");
        assert_eq!(of("get vms doraz/mine"), "get vms");
        assert_eq!(of("'doraz x'"), "");
        assert_eq!(of(""), "");
    }
}
