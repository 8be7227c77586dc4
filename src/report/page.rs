//! The page of a check: what was tried, what was found, and what to do about it.

use super::table::{Column, Format, Row, column, render};
use super::{broken, escaped};
use crate::control::exam::HostLine;
use crate::host::machine::check::{Line, Verdict};
use crate::model::id::LabName;

/// What of a line a person reads.
pub trait OnPage: Row {
    fn verdict(&self) -> Verdict;
    /// What was tried, and where.
    fn what(&self) -> String;
    fn found(&self) -> (&str, Option<&str>);
}

/// For people a page: what was found stands whole, and what to do below it, however narrow the terminal is.
pub fn page<L: OnPage>(lines: &[L], format: Format) -> String {
    const INDENT: usize = 10;
    if format != Format::Table {
        return render(lines, format);
    }
    let one_line = |text: &str| {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        escaped(&lines.collect::<Vec<_>>().join("; ")).into_owned()
    };
    let paragraph = |line: &L| {
        let (found, mend) = line.found();
        let found = format!("{:<INDENT$}{}: {}", line.verdict().as_str(), line.what(), one_line(found));
        let mend = mend.map(|mend| format!("{:INDENT$}{}", "", one_line(mend)));
        let lines = std::iter::once(found).chain(mend);
        lines.map(|line| broken(&line, INDENT) + "\n").collect::<String>()
    };
    lines.iter().map(paragraph).collect()
}

/// The page of one host, and for people what it comes to: whether nothing is to be mended.
pub fn of_host(lines: &[Line], lab: &LabName, format: Format) -> (bool, String) {
    let red = lines.iter().filter(|line| line.verdict == Verdict::Failed).count();
    let verdict = match red {
        0 => format!("green: this host is ready for {lab}"),
        1 => "red: 1 thing to mend".to_owned(),
        many => format!("red: {many} things to mend"),
    };
    (red == 0, page(lines, format) + &last_line(verdict, format))
}

/// The same of several hosts; for people only what they should know.
pub fn of_hosts(hosts: &[String], mut lines: Vec<HostLine>, lab: &LabName, format: Format) -> (bool, String) {
    let is_green = !lines.iter().any(HostLine::is_red);
    let verdict = verdict_on_hosts(hosts, &lines, lab);
    lines.retain(|line| format != Format::Table || line.is_news());
    (is_green, page(&lines, format) + &last_line(verdict, format))
}

fn verdict_on_hosts(hosts: &[String], lines: &[HostLine], lab: &LabName) -> String {
    let all = hosts.len();
    if !lines.iter().any(HostLine::is_red) {
        return format!("green: {all} of {all} hosts are ready for {lab}");
    }
    let is_red = |host: &&String| lines.iter().any(|line| line.is_red() && line.host.as_ref() == Some(host));
    let red: Vec<&str> = hosts.iter().filter(is_red).map(String::as_str).collect();
    let named = if red.is_empty() { String::new() } else { format!(", not {}", red.join(", ")) };
    format!("red: {} of {all} hosts are ready for {lab}{named}", all - red.len())
}

fn last_line(verdict: String, format: Format) -> String {
    if format == Format::Table { verdict + "\n" } else { String::new() }
}

impl Row for Line {
    const COLUMNS: &'static [Column<Self>] = &[
        column("what", |line| line.what.clone().into_owned()),
        column("verdict", |line| line.verdict.as_str().to_owned()),
        column("found", |line| line.found.clone()),
        column("mend", |line| line.mend.clone().unwrap_or_default()),
    ];
}

impl OnPage for Line {
    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn what(&self) -> String {
        self.what.clone().into_owned()
    }

    fn found(&self) -> (&str, Option<&str>) {
        (&self.found, self.mend.as_deref())
    }
}

impl Row for HostLine {
    const COLUMNS: &'static [Column<Self>] = &[
        column("host", |line| line.host.clone().unwrap_or_else(|| "(site)".to_owned())),
        column("what", |line| line.what.clone()),
        column("verdict", |line| line.verdict.as_str().to_owned()),
        column("found", |line| line.found.clone()),
        column("mend", |line| line.mend.clone().unwrap_or_default()),
    ];
}

impl OnPage for HostLine {
    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn what(&self) -> String {
        self.host.iter().map(|host| format!("{host}: ")).chain([self.what.clone()]).collect()
    }

    fn found(&self) -> (&str, Option<&str>) {
        (&self.found, self.mend.as_deref())
    }
}
