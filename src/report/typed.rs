//! Words of a command line as a shell would take them again.

/// The command, without those of `options` that stand in it with their values.
pub fn without(options: &[&str], arguments: impl Iterator<Item = String>) -> String {
    let (mut words, mut is_value) = (Vec::new(), false);
    for word in arguments {
        let option = word.split_once('=').map_or(word.as_str(), |(option, _)| option);
        let passed_over = is_value || options.contains(&option);
        is_value = !is_value && options.contains(&word.as_str());
        if !passed_over {
            words.push(quoted(&word));
        }
    }
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_typed_again() {
        let of = |line: &str| without(&["--site", "--color"], line.split('|').map(str::to_owned));
        assert_eq!(of("--site|s.yaml|vm|stop|vm/ada-work|a*|--yes|--color=never"), "vm stop vm/ada-work 'a*' --yes");
        assert_eq!(of("apply|--site|--color|--wait"), "apply --wait");
        assert_eq!(of("freeze|--why|Ana's exam|--site=s.yaml|"), "freeze --why 'Ana'\\''s exam' ''");
    }
}
