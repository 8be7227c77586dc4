//! What nft lists of a table, as a value that can be compared with what was written.
//!
//! The listing is nft's text and not its JSON. Both say the same; but nft 1.0.6 (Debian 12) reads freed memory when it puts the
//! flags of an owned table into JSON, and this nft is what holds a guest's filter. The text is also what rules are written in, so
//! that two spellings of it are all that has to be made equal (`canonical`): numbers, single addresses as networks, the
//! order in a set, what nft leaves out because the next match implies it, and the counts of packets.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// A table as it stands in the kernel.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Listing {
    /// `owner`, or `dormant` where somebody has put the table to sleep.
    pub flags: Vec<String>,
    /// Named counters, and the packets that each has counted.
    pub counters: BTreeMap<String, u64>,
    pub chains: Vec<ListedChain>,
    /// Sets, maps and what else our tables never have.
    pub others: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedChain {
    pub name: String,
    /// Type, hook, priority and policy, where it has them.
    pub hook: Option<String>,
    /// In canonical words.
    pub rules: Vec<String>,
}

/// What the line belongs to that is being read.
enum Inside {
    Table,
    Chain,
    Counter(String),
    Other,
}

impl Listing {
    /// Reads the answer to `list table`.
    pub(super) fn read(text: &str) -> Self {
        let mut listing = Self::default();
        let mut inside = Inside::Table;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            inside = match (inside, line) {
                (_, "}") => Inside::Table,
                (Inside::Table, line) => listing.begin(line),
                (inside, line) => {
                    listing.take(&inside, line);
                    inside
                }
            };
        }
        listing
    }

    /// All rules, each behind the name of its chain.
    pub(super) fn rules(&self) -> Vec<String> {
        let of = |chain: &ListedChain| {
            let name = chain.name.clone();
            chain.rules.iter().map(move |rule| format!("{name}: {rule}")).collect::<Vec<_>>()
        };
        self.chains.iter().flat_map(of).collect()
    }

    /// How many packets a counter has seen.
    pub(super) fn packets(&self, counter: &str) -> u64 {
        self.counters.get(counter).copied().unwrap_or(0)
    }

    /// A line of the table itself.
    fn begin(&mut self, line: &str) -> Inside {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["table", ..] => Inside::Table,
            ["flags", flags @ ..] => {
                self.flags.extend(flags.iter().map(|flag| flag.trim_matches([',', ';']).to_owned()));
                Inside::Table
            }
            ["chain", name, ..] => {
                self.chains.push(ListedChain { name: (*name).to_owned(), hook: None, rules: Vec::new() });
                Inside::Chain
            }
            ["counter", name, ..] => {
                self.counters.insert((*name).to_owned(), 0);
                Inside::Counter((*name).to_owned())
            }
            _ => {
                self.others.push(line.to_owned());
                if line.ends_with('{') { Inside::Other } else { Inside::Table }
            }
        }
    }

    fn take(&mut self, inside: &Inside, line: &str) {
        match inside {
            Inside::Chain => {
                let chain = self.chains.last_mut().expect("a chain was begun");
                if line.starts_with("type ") {
                    chain.hook = Some(canonical(line));
                } else {
                    chain.rules.push(canonical(line));
                }
            }
            Inside::Counter(name) => {
                let packets = line.strip_prefix("packets ").and_then(|rest| rest.split(' ').next()?.parse().ok());
                self.counters.insert(name.clone(), packets.unwrap_or(0));
            }
            Inside::Table | Inside::Other => self.others.push(line.to_owned()),
        }
    }
}

/// A rule in one spelling, whichever of two equal ones it was written or is listed in.
pub(super) fn canonical(rule: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut set: Option<Vec<String>> = None;
    let mut rest = rule.split_whitespace().peekable();
    while let Some(word) = rest.next() {
        let in_set = set.as_mut();
        match (word, in_set) {
            ("{", _) => set = Some(Vec::new()),
            ("}", Some(elements)) => {
                elements.sort();
                words.push(format!("{{ {} }}", elements.join(", ")));
                set = None;
            }
            (element, Some(elements)) => elements.push(value(element.trim_end_matches(','))),
            // The counts behind a counter.
            ("packets" | "bytes", None) if words.iter().any(|word| word == "counter") && counts(rest.peek()) => {
                rest.next();
            }
            (word, None) => words.push(value(word)),
        }
    }
    implied(&words).join(" ")
}

fn counts(word: Option<&&str>) -> bool {
    word.is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A number in decimals; one address without a length; a network as its first and last address.
pub(super) fn value(word: &str) -> String {
    if let Some(number) = word.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
        return number.to_string();
    }
    if let Ok(net) = word.parse::<Ipv4Net>() {
        return range(net.network(), net.broadcast());
    }
    let ends = word.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    ends.map_or_else(|| word.to_owned(), |(first, last)| range(first, last))
}

fn range(first: Ipv4Addr, last: Ipv4Addr) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// Without the matches on a frame's type that the match behind them implies.
fn implied(words: &[String]) -> Vec<&str> {
    let mut kept: Vec<&str> = Vec::new();
    let mut rest = words.iter().map(String::as_str).collect::<Vec<_>>().into_iter().peekable();
    while let Some(word) = rest.next() {
        kept.push(word);
        let next = rest.peek().copied().unwrap_or_default();
        let is_implied = match kept.as_slice() {
            [.., "ether", "type", "arp"] => next == "arp",
            [.., "ether", "type", "ip"] => matches!(next, "ip" | "icmp"),
            _ => false,
        };
        if is_implied {
            kept.truncate(kept.len() - 3);
        }
    }
    kept
}
