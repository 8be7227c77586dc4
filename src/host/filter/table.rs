//! An nftables table as a value: written as one command, so that it stands whole or not at all, and compared with what
//! the kernel lists.

use std::fmt::Write as _;

/// A table of the `bridge` family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub owned: bool,
    pub counters: Vec<&'static str>,
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

    /// Whether a listing of nft is this table. Compared are the chains, where each is hooked, and every rule's verdict in
    /// order: nft's wording of matches differs between versions, the verdicts do not.
    pub fn stands_in(&self, listing: &str) -> bool {
        let own: Vec<Shape> = self
            .chains
            .iter()
            .map(|c| Shape {
                name: c.name.to_owned(),
                hook: c.hook.map(hook),
                verdicts: c.rules.iter().map(|r| verdict(r)).collect(),
            })
            .collect();
        own == shapes(listing)
    }
}

/// What is compared of a chain.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    name: String,
    hook: Option<(String, i32)>,
    verdicts: Vec<String>,
}

/// `prerouting priority dstnat - 100` is at prerouting, -400. nft has names for some priorities of the bridge family.
fn hook(text: &str) -> (String, i32) {
    let mut words = text.split_whitespace().filter(|word| *word != "priority");
    let place = words.next().unwrap_or_default().to_owned();
    let (mut sum, mut sign) = (0, 1);
    for word in words {
        match word {
            "+" => sign = 1,
            "-" => sign = -1,
            "dstnat" => sum -= 300,
            "filter" => sum -= 200,
            "out" => sum += 100,
            "srcnat" => sum += 300,
            number => sum += sign * number.parse::<i32>().unwrap_or(i32::MAX / 2),
        }
    }
    (place, sum)
}

/// The last word of a rule.
fn verdict(rule: &str) -> String {
    rule.split_whitespace().next_back().unwrap_or_default().to_owned()
}

fn shapes(listing: &str) -> Vec<Shape> {
    let mut shapes: Vec<Shape> = Vec::new();
    let mut inside_chain = false;
    for line in listing.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            shapes.push(Shape { name: name.trim_end_matches(" {").to_owned(), ..Shape::default() });
            inside_chain = true;
        } else if line == "}" {
            inside_chain = false;
        } else if let (true, false, Some(shape)) = (inside_chain, line.is_empty(), shapes.last_mut()) {
            if let Some(text) = line.strip_prefix("type filter hook ") {
                shape.hook = Some(hook(text.split(';').next().unwrap_or_default()));
            } else {
                shape.verdicts.push(verdict(line));
            }
        }
    }
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let rules = vec!["ether type arp accept".to_owned(), "drop".to_owned()];
        let jump = vec!["iifname \"lwa\" jump g".to_owned()];
        Table {
            name: "lw_t".to_owned(),
            owned: true,
            counters: vec!["ready"],
            chains: vec![
                Chain { name: "g", hook: None, rules },
                Chain { name: "p", hook: Some("prerouting priority -300"), rules: jump },
            ],
        }
    }

    const LISTING: &str = "table bridge lw_t { # progname nft\n\tflags owner\n\n\tcounter ready {\n\t\tpackets 0 bytes 0\n\t}\n\n\
        \tchain g {\n\t\tether type arp accept\n\t\tdrop\n\t}\n\n\
        \tchain p {\n\t\ttype filter hook prerouting priority dstnat; policy accept;\n\t\tiifname \"lwa\" jump g\n\t}\n}\n";

    #[test]
    fn one_line_is_one_transaction() {
        insta::assert_snapshot!(table().command(), @r#"add table bridge lw_t { flags owner; counter ready { } ; chain g { ether type arp accept; drop; } ; chain p { type filter hook prerouting priority -300; policy accept; iifname "lwa" jump g; } ; }"#);
    }

    #[test]
    fn a_listing_with_a_rule_less_or_another_verdict_is_not_the_table() {
        assert!(table().stands_in(LISTING));
        assert!(!table().stands_in(&LISTING.replace("\t\tdrop\n", "")));
        assert!(!table().stands_in(&LISTING.replace("\t\tdrop\n", "\t\taccept\n")));
        assert!(!table().stands_in(&LISTING.replace("type filter hook", "# no hook")));
        assert!(!table().stands_in(&LISTING.replace("priority dstnat", "priority dstnat + 10")));
        assert!(!table().stands_in(""));
    }
}
