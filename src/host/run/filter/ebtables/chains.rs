//! A run's chains in the kernel: written, read back, removed.

use super::super::difference;
use super::super::listing::value;
use super::rules::{MARK, Rules};
use crate::host::command::{self, CommandError};
use crate::model::id::RunId;

/// Program that prints all rules as they were written.
pub const SAVE: &str = "ebtables-nft-save";
const RESTORE: &str = "ebtables-nft-restore";
/// ebtables reads the table, then changes it; when somebody else was faster, the kernel may refuse the change.
const ATTEMPTS_MAX: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum EbtablesError {
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("the chains `{MARK}{run}-*` of ebtables do not read back as they were written: {difference}")]
    Differs { run: RunId, difference: String },
}

/// The chains of one run. They outlive this value: `remove` takes them away.
#[derive(Debug)]
pub(in crate::host::run::filter) struct Chains {
    run: RunId,
    rules: Rules,
}

impl Chains {
    pub(in crate::host::run::filter) fn new(run: &RunId, rules: Rules) -> Self {
        Self { run: run.clone(), rules }
    }

    /// Writes them. Where some of them stand already, they do so twice then.
    pub(in crate::host::run::filter) fn add(&self) -> Result<(), EbtablesError> {
        command::run(RESTORE, &["--noflush"], &script(&self.rules))?;
        Ok(())
    }

    /// Writes them in place of what may stand there under their name.
    pub(in crate::host::run::filter) fn replace(&self) -> Result<(), EbtablesError> {
        self.remove()?;
        self.add()
    }

    /// Reads them back and compares.
    pub(in crate::host::run::filter) fn verify(&self) -> Result<(), EbtablesError> {
        let read = || Ok::<_, CommandError>(shape(of_run(&command::run(SAVE, &["-t", "nat"], "")?, &self.run)));
        let written = shape(script(&self.rules).lines());
        let whole = difference(read, |stands| first_difference(&written, stands))?;
        whole.map(drop).map_err(|difference| EbtablesError::Differs { run: self.run.clone(), difference })
    }

    /// Takes away what of them is there.
    pub(in crate::host::run::filter) fn remove(&self) -> Result<(), EbtablesError> {
        Ok(remove_chains(&self.run)?)
    }
}

/// All of a run as one transaction. The policy of each chain is to go back to where it was jumped to from, which its last
/// rule never lets happen.
fn script(rules: &Rules) -> String {
    let mut lines = vec!["*nat".to_owned()];
    lines.extend(rules.chains.iter().map(|(name, _)| format!(":{name} RETURN")));
    lines.push(format!("-A PREROUTING -i {} -j {}", rules.tap, rules.from()));
    lines.push(format!("-A POSTROUTING -o {} -j {}", rules.tap, rules.to()));
    for (name, rules) in &rules.chains {
        lines.extend(rules.iter().map(|rule| format!("-A {name} {rule}")));
    }
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}

/// The lines of a listing that are a run's: its chains, their rules, and the jumps to them.
fn of_run<'a>(listing: &'a str, run: &RunId) -> Vec<&'a str> {
    listing.lines().filter(|line| run_of_line(line).as_ref() == Some(run)).collect()
}

/// The run that a line of a listing belongs to: by the chain it names or stands in, else by the chain it jumps to.
fn run_of_line(line: &str) -> Option<RunId> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let place = match words.as_slice() {
        [chain, ..] if chain.starts_with(':') => chain.strip_prefix(':'),
        ["-A", "PREROUTING" | "POSTROUTING", .., "-j", target] => Some(*target),
        ["-A", chain, ..] => Some(*chain),
        _ => None,
    };
    run_of_chain(place?)
}

/// `labwright-k3f9-104-from` is a chain of k3f9-104.
fn run_of_chain(chain: &str) -> Option<RunId> {
    chain.strip_prefix(MARK)?.rsplit_once('-')?.0.parse().ok()
}

/// What is compared: the chains with their policies, and every rule with its place. Chains are listed by name, rules in the
/// order of their chains.
fn shape<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
    let mut shape: Vec<(String, String)> = lines
        .into_iter()
        .filter_map(|line| {
            let rule = line.strip_prefix("-A ").or_else(|| line.starts_with(':').then_some(line))?;
            let (chain, rule) = rule.split_once(' ')?;
            Some((chain.to_owned(), canonical(rule)))
        })
        .collect();
    // Stable: rules of one chain keep their order.
    shape.sort_by(|(one, _), (other, _)| one.cmp(other));
    shape
}

/// A rule in one spelling. ebtables lists its options in another order than they were written, and a network of one address
/// as this address.
fn canonical(rule: &str) -> String {
    let mut options: Vec<Vec<String>> = Vec::new();
    let mut not = None;
    for word in rule.split_whitespace() {
        match options.last_mut() {
            _ if word == "!" => not = Some("!".to_owned()),
            Some(option) if !word.starts_with('-') => option.extend(not.take().into_iter().chain([value(word)])),
            _ => options.push(vec![word.to_owned()]),
        }
    }
    options.sort();
    options.concat().join(" ")
}

fn first_difference(written: &[(String, String)], stands: &[(String, String)]) -> Option<String> {
    let name = |entry: Option<&(String, String)>| {
        entry.map_or_else(|| "nothing".to_owned(), |(chain, rule)| format!("`{chain} {rule}`"))
    };
    (0..written.len().max(stands.len()))
        .map(|at| (written.get(at), stands.get(at)))
        .find(|(written, stands)| written != stands)
        .map(|(written, stands)| format!("{} in place of {}", name(stands), name(written)))
}

/// The runs that have chains here, as far as ebtables is installed.
pub fn runs_with_chains() -> Result<Vec<RunId>, CommandError> {
    let listing = match command::run(SAVE, &["-t", "nat"], "") {
        Err(CommandError::Missing { .. }) => return Ok(Vec::new()),
        listing => listing?,
    };
    let mut runs: Vec<RunId> = listing.lines().filter_map(run_of_line).collect();
    runs.sort();
    runs.dedup();
    Ok(runs)
}

/// Takes away all chains of a run and the jumps to them.
pub fn remove_chains(run: &RunId) -> Result<(), CommandError> {
    let mut attempt = 1;
    loop {
        let listing = command::run(SAVE, &["-t", "nat"], "")?;
        let script = removal(&of_run(&listing, run));
        let Some(script) = script else { return Ok(()) };
        match command::run(RESTORE, &["--noflush"], &script) {
            Ok(_) => return Ok(()),
            Err(CommandError::Failed { .. }) if attempt < ATTEMPTS_MAX => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Jumps first, then the rules, which jump as well, then the chains. `None`: there is nothing.
fn removal(lines: &[&str]) -> Option<String> {
    let chains: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(':')?.split(' ').next()).collect();
    let jump = |line: &&str| line.starts_with("-A PREROUTING ") || line.starts_with("-A POSTROUTING ");
    let jumps = lines.iter().copied().filter(jump).map(|line| line.replacen("-A", "-D", 1));
    let flushes = chains.iter().map(|chain| format!("-F {chain}"));
    let removals = chains.iter().map(|chain| format!("-X {chain}"));
    let commands: Vec<String> = jumps.chain(flushes).chain(removals).collect();
    (!commands.is_empty()).then(|| format!("*nat\n{}\nCOMMIT\n", commands.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "*nat\n:PREROUTING ACCEPT\n:POSTROUTING ACCEPT\n:labwright-k3f9-1-from RETURN\n\
        :labwright-k3f9-1-to RETURN\n:labwright-k3f9-12-from RETURN\n:libvirt-J-vnet0 ACCEPT\n\
        -A PREROUTING -i vnet0 -j libvirt-J-vnet0\n-A PREROUTING -i lwk3f91 -j labwright-k3f9-1-from\n\
        -A PREROUTING -i lwk3f912 -j labwright-k3f9-12-from\n-A POSTROUTING -o lwk3f91 -j labwright-k3f9-1-to\n\
        -A labwright-k3f9-1-from -p IPv4 --ip-src 10.0.0.2 -j mark --mark-or 0x10000 --mark-target ACCEPT\n\
        -A labwright-k3f9-1-from -j DROP\n-A labwright-k3f9-1-to -j DROP\n-A labwright-k3f9-12-from -j DROP\n";

    fn rules() -> Rules {
        let from = vec!["-p IPv4 --ip-src 10.0.0.2/32 -j mark --mark-or 0x10000 --mark-target ACCEPT", "-j DROP"];
        let chain = |name: &str, rules: Vec<&str>| (name.to_owned(), rules.into_iter().map(str::to_owned).collect());
        let chains = vec![chain("labwright-k3f9-1-from", from), chain("labwright-k3f9-1-to", vec!["-j DROP"])];
        Rules { tap: "lwk3f91".to_owned(), chains }
    }

    #[test]
    fn whatever_is_changed_is_noticed_and_named() {
        let run: RunId = "k3f9-1".parse().unwrap();
        let written = shape(script(&rules()).lines());
        let difference = |listing: &str| first_difference(&written, &shape(of_run(listing, &run)));
        assert_eq!(difference(LISTING), None);
        let changes = [
            ("-A labwright-k3f9-1-to -j DROP\n", ""),
            ("-A labwright-k3f9-1-from -j DROP\n", "-A labwright-k3f9-1-from -j ACCEPT\n"),
            ("-A labwright-k3f9-1-to -j DROP\n", "-A labwright-k3f9-1-to -j ACCEPT\n-A labwright-k3f9-1-to -j DROP\n"),
            ("-A PREROUTING -i lwk3f91 -j labwright-k3f9-1-from\n", ""),
            ("-A PREROUTING -i lwk3f91 ", "-A PREROUTING -i xxk3f91 "),
            ("-A POSTROUTING -o lwk3f91 ", "-A POSTROUTING "),
            (":labwright-k3f9-1-to RETURN", ":labwright-k3f9-1-to ACCEPT"),
            ("10.0.0.2", "10.0.0.3"),
            ("--ip-src 10.0.0.2", "--ip-dst 10.0.0.2"),
            ("--ip-src 10.0.0.2", "--ip-src ! 10.0.0.2"),
            ("--mark-or 0x10000", "--mark-or 0x20000"),
            ("--mark-target ACCEPT", "--mark-target CONTINUE"),
        ];
        let mut said = Vec::new();
        for (from, to) in changes {
            assert!(LISTING.contains(from), "{from}");
            let difference = difference(&LISTING.replacen(from, to, 1));
            said.push(difference.unwrap_or_else(|| panic!("nobody sees that `{from}` became `{to}`")));
        }
        insta::assert_snapshot!(said.join("\n"));
    }

    #[test]
    fn the_order_of_options_is_a_matter_of_spelling() {
        let written = "-p ARP --arp-ip-src 10.0.0.2/32 -s ! 02:00:00:00:00:01 -j DROP";
        assert_eq!(canonical(written), canonical("-p ARP ! -s 02:00:00:00:00:01 --arp-ip-src 10.0.0.2 -j DROP"));
        assert_ne!(canonical(written), canonical("-p ARP -s 02:00:00:00:00:01 --arp-ip-src 10.0.0.2 -j DROP"));
    }

    #[test]
    fn a_removal_names_the_run_and_nothing_else() {
        insta::assert_snapshot!(removal(&of_run(LISTING, &"k3f9-1".parse().unwrap())).unwrap(), @r"
        *nat
        -D PREROUTING -i lwk3f91 -j labwright-k3f9-1-from
        -D POSTROUTING -o lwk3f91 -j labwright-k3f9-1-to
        -F labwright-k3f9-1-from
        -F labwright-k3f9-1-to
        -X labwright-k3f9-1-from
        -X labwright-k3f9-1-to
        COMMIT
        ");
        assert_eq!(removal(&of_run(LISTING, &"k3f9-2".parse().unwrap())), None);
    }
}
