//! An nftables table as a value: written as one command, so that it stands whole or not at all, and compared with what
//! the kernel lists.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::listing::{ListedChain, Listing, canonical};

/// A table of the `bridge` family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub owned: bool,
    pub counters: Vec<String>,
    pub chains: Vec<Chain>,
}

/// A chain; with a hook it sees frames, without one other chains jump to it. Every rule ends with its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: &'static str,
    pub hook: Option<&'static str>,
    pub rules: Vec<String>,
}

impl Table {
    /// The table as one line for `nft -i`, which carries out each line as one transaction.
    pub fn command(&self) -> String {
        let mut text = format!("add table bridge {} {{ ", self.name);
        if self.owned {
            text.push_str("flags owner; ");
        }
        for counter in &self.counters {
            write!(text, "counter {counter} {{ }} ; ").expect("a string takes all text");
        }
        for chain in &self.chains {
            write!(text, "chain {} {{ ", chain.name).expect("a string takes all text");
            if let Some(hook) = chain.hook {
                write!(text, "type filter hook {hook}; policy accept; ").expect("a string takes all text");
            }
            for rule in &chain.rules {
                write!(text, "{rule}; ").expect("a string takes all text");
            }
            text.push_str("} ; ");
        }
        text.push('}');
        text
    }

    /// Whether a listing of nft is this table.
    pub fn stands_in(&self, listing: &str) -> bool {
        self.difference(&Listing::read(listing)).is_none()
    }

    /// What stands otherwise than it was written, in words; the first thing of several. Everything is compared: the table's
    /// flags, which could put it to sleep, its counters, and each chain's hook and rules, word for word in one spelling.
    pub(super) fn difference(&self, listing: &Listing) -> Option<String> {
        let flags: &[&str] = if self.owned { &["owner"] } else { &[] };
        let counters: BTreeSet<&str> = self.counters.iter().map(String::as_str).collect();
        if listing.flags != flags {
            return Some(format!("its flags are `{}` in place of `{}`", listing.flags.join(", "), flags.join(", ")));
        }
        if !listing.counters.keys().map(String::as_str).eq(counters) {
            return Some(format!("its counters are {:?}", listing.counters.keys().collect::<Vec<_>>()));
        }
        if let Some(other) = listing.others.first() {
            return Some(format!("it has `{other}`"));
        }
        let chains = |chains: Vec<&str>| chains.join(", ");
        let (written, listed) = (
            chains(self.chains.iter().map(|chain| chain.name).collect()),
            chains(listing.chains.iter().map(|chain| chain.name.as_str()).collect()),
        );
        if written != listed {
            return Some(format!("its chains are {listed} in place of {written}"));
        }
        self.chains.iter().zip(&listing.chains).find_map(|(chain, listed)| chain.difference(listed))
    }
}

impl Chain {
    fn hook_line(&self) -> Option<String> {
        self.hook.map(|hook| format!("type filter hook {hook}; policy accept;"))
    }

    fn difference(&self, listed: &ListedChain) -> Option<String> {
        let name = self.name;
        let (written, stands) = (self.hook_line(), &listed.hook);
        if written != *stands {
            let line = |hook: &Option<String>| hook.clone().unwrap_or_else(|| "no hook".to_owned());
            return Some(format!("chain {name} has `{}` in place of `{}`", line(stands), line(&written)));
        }
        let (written, stands) = (self.rules.len(), listed.rules.len());
        if written != stands {
            return Some(format!("chain {name} has {stands} rules in place of {written}"));
        }
        let mut rules = self.rules.iter().zip(&listed.rules).enumerate();
        rules.find_map(|(number, (written, stands))| {
            let written = canonical(written);
            (written != *stands)
                .then(|| format!("rule {} of chain {name} is `{stands}` in place of `{written}`", number + 1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let rules = vec![
            "ether type arp limit rate over 200/second burst 200 packets counter drop".to_owned(),
            "ether type ip ip frag-off & 0x1fff != 0x0 drop".to_owned(),
            "ip daddr { 10.0.0.2, 224.0.0.0/4 } ip saddr 10.0.0.5/32 meta mark set meta mark | 0x00010000 accept"
                .to_owned(),
            "counter name \"ready\" continue".to_owned(),
        ];
        let jump = vec!["iifname \"lwa\" jump g".to_owned()];
        Table {
            name: "lw_t".to_owned(),
            owned: true,
            counters: vec!["ready".to_owned()],
            chains: vec![
                Chain { name: "g", hook: None, rules },
                Chain { name: "p", hook: Some("prerouting priority -300"), rules: jump },
            ],
        }
    }

    /// As nft 1.0.6 says it.
    const LISTING: &str = "table bridge lw_t { # progname nft\n\tflags owner\n\n\tcounter ready {\n\t\tpackets 17 bytes 476\n\t}\n\n\
        \tchain g {\n\t\tether type arp limit rate over 200/second burst 200 packets counter packets 3 bytes 126 drop\n\
        \t\tip frag-off & 8191 != 0 drop\n\
        \t\tip daddr { 224.0.0.0/4, 10.0.0.2 } ip saddr 10.0.0.5 meta mark set meta mark | 0x00010000 accept\n\
        \t\tcounter name \"ready\" continue\n\t}\n\n\
        \tchain p {\n\t\ttype filter hook prerouting priority -300; policy accept;\n\t\tiifname \"lwa\" jump g\n\t}\n}\n";

    #[test]
    fn one_line_is_one_transaction() {
        insta::assert_snapshot!(table().command());
    }

    #[test]
    fn two_spellings_are_one_table() {
        assert_eq!(table().difference(&Listing::read(LISTING)), None);
        // As nft 1.1.3 says it.
        let other = LISTING.replace("8191 != 0 ", "0x1fff != 0x0 ").replace("# progname nft", "# progname (null)");
        assert_eq!(table().difference(&Listing::read(&other)), None);
        assert_eq!(Listing::read(LISTING).counters["ready"], 17);
    }

    #[test]
    fn whatever_is_changed_is_noticed_and_named() {
        let changes = [
            ("flags owner", "flags owner,dormant"),
            ("\tflags owner\n", ""),
            ("counter ready {", "counter other {"),
            ("\tchain p {", "\tset s {\n\t\ttype ifname\n\t}\n\n\tchain p {"),
            ("\tchain p {", "\tchain q {"),
            ("hook prerouting", "hook forward"),
            ("type filter", "type route"),
            ("priority -300", "priority 300"),
            ("policy accept", "policy drop"),
            ("\t\ttype filter hook prerouting priority -300; policy accept;\n", ""),
            ("ether type arp", "ether type ip6"),
            ("rate over", "rate"),
            ("200/second", "200/minute"),
            ("burst 200 packets", "burst 20 packets"),
            ("!= 0", "== 0"),
            ("8191", "8190"),
            ("10.0.0.2 }", "10.0.0.3 }"),
            ("224.0.0.0/4, ", ""),
            ("ip saddr 10.0.0.5", "ip saddr 10.0.0.0/29"),
            ("ip saddr 10.0.0.5 ", ""),
            ("| 0x00010000", "| 0x00020000"),
            ("\"ready\" continue", "\"ready\" accept"),
            ("iifname \"lwa\"", "iifname \"xxa\""),
            ("iifname \"lwa\"", "oifname \"lwa\""),
            ("jump g", "goto g"),
            ("\t\tiifname \"lwa\" jump g\n", ""),
            ("\t\tiifname \"lwa\" jump g\n", "\t\taccept\n\t\tiifname \"lwa\" jump g\n"),
        ];
        let mut said = Vec::new();
        for (from, to) in changes {
            assert!(LISTING.contains(from), "{from}");
            let difference = table().difference(&Listing::read(&LISTING.replacen(from, to, 1)));
            said.push(difference.unwrap_or_else(|| panic!("nobody sees that `{from}` became `{to}`")));
        }
        insta::assert_snapshot!(said.join("\n"));
        assert!(!table().stands_in(""));
    }
}
