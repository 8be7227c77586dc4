//! Slips of people who write manifests: keys of other tools, a forgotten blank or quote, characters that only look like
//! YAML's. Each gives the words for a finding, with what to paste instead.

use super::values::shorten;

/// Keys that people write for ours: of what kind of record, theirs, ours.
const OTHER_KEYS: &[(&str, &[&str], &str)] = &[
    ("a manifest", &["name", "course"], "lab"),
    ("a manifest", &["groups", "students", "classes", "people"], "user_groups"),
    ("a manifest", &["networks", "network", "nets"], "vm_groups"),
    ("a manifest", &["images", "bases"], "templates"),
    ("a manifest", &["machines", "virtual_machines", "guests", "servers"], "vms"),
    ("a manifest", &["rights", "access", "acl"], "permissions"),
    ("a manifest", &["exams", "exam", "schedule"], "sessions"),
    ("a manifest", &["renamed", "renames", "rename"], "moved"),
    ("a user group", &["users", "user", "students", "list"], "members"),
    ("a user group", &["csv", "file", "from", "import"], "roster"),
    ("a user group", &["quota", "quotas"], "limits"),
    ("a roster", &["path", "csv", "name"], "file"),
    ("a roster", &["delimiter", "sep"], "separator"),
    ("a roster", &["charset"], "encoding"),
    ("`columns`", &["login", "username", "name", "account"], "user"),
    ("`limits`", &["vms", "running", "max_vms", "max_running_vm", "max_running_vms"], "running_vms"),
    ("`limits`", &["disk", "disks", "space", "max_storage", "disk_space"], "storage"),
    ("a vm group", &["range", "ranges", "ip", "ips", "addresses", "network", "cidr", "pool", "ip_pool"], "ip_range"),
    ("a vm group", &["router", "default_gateway", "gw"], "gateway"),
    ("a vm group", &["nameserver", "nameservers", "name_servers", "dns_servers"], "dns"),
    ("a vm group", &["netmask", "mask"], "subnet"),
    ("a disk", &["file", "path", "qcow2", "source"], "image"),
    ("a disk", &["capacity", "disk_size"], "size"),
    ("a disk", &["checksum", "digest", "sha", "hash"], "sha256"),
    ("a template", &["image", "images", "disk"], "disks"),
    ("a vm", &["image", "images", "disk"], "disks"),
    ("a vm", &["template", "from", "base", "source", "parent", "derived_from"], "derive"),
    ("a vm", &["users", "user_group", "user_groups", "group", "foreach", "each"], "for_each"),
    ("a vm", &["number", "amount", "replicas", "instances", "copies"], "count"),
    ("a vm", &["autostart", "running", "power", "start"], "state"),
    ("a session", &["begin", "begins", "from", "starts", "opens"], "start"),
    ("a session", &["until", "to", "ends", "stop", "finish", "closes"], "end"),
    ("a session", &["vm", "machines", "families", "for"], "vms"),
    ("a session", &["allow", "allowed", "whitelist", "firewall"], "egress"),
    ("a permission", &["who", "for", "subject", "user", "group"], "to"),
    ("a permission", &["what", "object", "vm", "template", "vm_group"], "on"),
    ("a permission", &["rights", "can", "may", "grant", "permissions"], "allow"),
    ("a permission", &["isolated", "isolate"], "force_isolated"),
    ("`to`", &["user_group", "group_name"], "group"),
    ("`on`", &["group"], "vm_group"),
    ("a rename", &["old"], "from"),
    ("a rename", &["new"], "to"),
];

/// The same for what templates, vms and their defaults have in common.
const OTHER_MACHINE_KEYS: &[(&[&str], &str)] = &[
    (&["ram", "mem"], "memory"),
    (&["cpu", "cores", "vcpus", "vcpu", "processors"], "cpus"),
    (&["network", "net"], "vm_group"),
    (&["iso", "cd", "dvd"], "cdrom"),
    (&["user"], "owner"),
    (&["isolate", "isolation"], "isolated"),
    (&["bios", "boot"], "firmware"),
];

/// The key that was meant by one that other tools have.
pub(super) fn meant_key(what: &str, key: &str, known: &[&'static str]) -> Option<&'static str> {
    let key = key.to_lowercase().replace('-', "_");
    let of_record = OTHER_KEYS.iter().filter(|(record, ..)| *record == what).map(|(_, theirs, ours)| (*theirs, *ours));
    let is_machine = matches!(what, "a template" | "a vm" | "`defaults`");
    let of_machine = OTHER_MACHINE_KEYS.iter().filter(|_| is_machine).copied();
    let (_, ours) = of_record.chain(of_machine).find(|(theirs, _)| theirs.contains(&&*key))?;
    known.iter().copied().find(|name| *name == ours)
}

/// What to write for a key that was meant, with the value that is there.
pub(super) fn with_value(key: &str, value: Option<&str>) -> String {
    match (key, value.map(shorten)) {
        ("disks", Some(value)) => format!("`disks: [{}]`", disk(&value)),
        ("to", Some(value)) => format!("`to: {{ group: {value} }}` or `to: {{ user: {value} }}`"),
        ("vms" | "members" | "allow" | "egress" | "dns", Some(value)) => format!("`{key}: [{value}]`"),
        ("state", _) => "`state: running`".to_owned(),
        (key, Some(value)) if value.contains('[') => format!("`{key}: \"{value}\"`"),
        (key, Some(value)) if !value.is_empty() => format!("`{key}: {value}`"),
        (key, _) => format!("`{key}`"),
    }
}

/// What to write where one word stands for a record.
pub(super) fn record_for(what: &str, word: &str) -> Option<String> {
    if let Some((_, c, name)) = odd_character(word) {
        return Some(format!("in it stands {name} (U+{:04X}): {}", u32::from(c), instead_of(c)));
    }
    let word = shorten(word);
    match what {
        "`to`" => Some(format!("write `{{ group: {word} }}` or `{{ user: {word} }}`")),
        "`on`" => Some(format!("write `{{ template: {word} }}`, `{{ vm: {word} }}` or `{{ vm_group: {word} }}`")),
        "a disk" => Some(format!("write `{}`", disk(&word))),
        "`limits`" => Some(format!("write `{{ running_vms: {word} }}`")),
        "a user group" => Some(format!("write `{{ roster: {word} }}`, or `{{ members: [{word}] }}`")),
        "a vm group" => Some(format!("write `{{ ip_range: {word} }}`")),
        "a vm" => Some(format!("write `{{ derive: {word} }}`")),
        _ => None,
    }
}

fn disk(value: &str) -> String {
    let is_size = value.starts_with(|c: char| c.is_ascii_digit()) && !value.contains(['.', '/']);
    if is_size { format!("{{ size: {value} }}") } else { format!("{{ image: {value} }}") }
}

/// A character that looks like one of YAML's and is none, with its place and its name.
pub(super) fn odd_character(text: &str) -> Option<(usize, char, &'static str)> {
    let name = |c: char| match c {
        '\u{a0}' | '\u{202f}' => Some("a no-break space"),
        '\u{2000}'..='\u{200a}' | '\u{205f}' | '\u{3000}' | '\u{1680}' => Some("a space of a typesetter"),
        '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{ad}' => Some("a character that cannot be seen"),
        '\u{ff1a}' => Some("a wide colon"),
        '\u{ff0c}' => Some("a wide comma"),
        _ => None,
    };
    text.char_indices().find_map(|(at, c)| Some((at, c, name(c)?)))
}

const QUOTES: [char; 9] = ['“', '”', '„', '‟', '‘', '’', '‚', '«', '»'];

/// What to write for a text in the quotes of a word processor.
pub(super) fn plain_quotes(text: &str) -> Option<String> {
    let inner = text.trim_matches(QUOTES);
    let quoted = inner.len() < text.len() && !inner.is_empty() && !inner.contains(QUOTES);
    quoted.then(|| format!("these are the quotes of a word processor: write `{}`", shorten(inner)))
}

/// A slip in a line that is no YAML: the message, what to write instead, and where in the line it is.
pub(super) fn in_line(line: &str) -> Option<(String, String, usize)> {
    odd(line).or_else(|| placeholder(line)).or_else(|| zone_in_braces(line)).or_else(|| no_blank(line))
}

fn odd(line: &str) -> Option<(String, String, usize)> {
    let (at, c, name) = odd_character(line)?;
    let message =
        format!("here stands {name} (U+{:04X}), which YAML does not take for what it looks like", u32::from(c));
    Some((message, instead_of(c), at))
}

fn instead_of(odd: char) -> String {
    let text = match odd {
        '\u{ff1a}' => "write `:` and a space",
        '\u{ff0c}' => "write `,`",
        _ => "delete it and type an ordinary space; text copied from PDF or web pages has such characters",
    };
    text.to_owned()
}

/// `name: {user}-exam`, which begins a group of keys.
fn placeholder(line: &str) -> Option<(String, String, usize)> {
    let mut from = 0;
    loop {
        let at = from + line[from..].find(": {")? + 2;
        from = at;
        let value = &line[at..];
        let close = value.find('}')?;
        let is_word = value[1..close].bytes().all(|b| b.is_ascii_lowercase()) && close > 1;
        let goes_on = value[close + 1..].starts_with(|c: char| c.is_ascii_alphanumeric() || "-_.{".contains(c));
        if is_word && goes_on {
            let end = value.find([',', ' ', '#']).unwrap_or(value.len());
            let mut value = &value[..end];
            if value.matches('}').count() > value.matches('{').count() {
                value = &value[..value.len() - 1];
            }
            let message = "a value that begins with `{` needs quotes, or YAML takes it for a group of keys";
            let key = key_before(&line[..at - 2]);
            return Some((message.to_owned(), format!("write `{key}: \"{value}\"`"), at));
        }
    }
}

/// `{ start: 2027-01-12T09:00[Europe/Bucharest] }`: within braces `[` begins a list.
fn zone_in_braces(line: &str) -> Option<(String, String, usize)> {
    let bracket = line.find('[').filter(|at| line[..*at].ends_with(|c: char| c.is_ascii_digit() || c == 'Z'))?;
    let start = line[..bracket].rfind([' ', ',', '{']).map_or(0, |at| at + 1);
    let end = bracket + line[bracket..].find(']')? + 1;
    let is_time = line[start..bracket].contains('T') && line[..start].contains('{');
    let message = "within `{ }` a time with a zone needs quotes, since `[` would begin a list";
    is_time.then(|| (message.to_owned(), format!("write `\"{}\"`", &line[start..end]), start))
}

/// `memory:2G`.
fn no_blank(line: &str) -> Option<(String, String, usize)> {
    let text = line.trim_start_matches([' ', '-']);
    let start = line.len() - text.len();
    let (key, value) = text.trim_end().split_once(':')?;
    let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit());
    let slip = is_key && !value.is_empty() && !value.starts_with([' ', '/', '\t']) && !value.contains(": ");
    let message = "a space is missing after the `:`";
    slip.then(|| (message.to_owned(), format!("write `{key}: {value}`"), start + key.len()))
}

/// `name: “{user}-exam”`: quotes of a word processor, which are letters to YAML; `at` is where it stumbled.
pub(super) fn quote(line: &str, at: usize) -> Option<(String, String, usize)> {
    let begins = |(place, c): &(usize, char)| QUOTES.contains(c) && line[..*place].ends_with([' ', '[', '{', ',']);
    let (place, _) = line.get(..at)?.char_indices().find(begins)?;
    let message = "these are the quotes of a word processor, which YAML takes for letters";
    let end = line[place..].char_indices().skip(1).find(|(_, c)| QUOTES.contains(c)).map(|(end, _)| place + end)?;
    let inner = line[place..end].trim_start_matches(QUOTES);
    Some((message.to_owned(), format!("write `\"{}\"`", shorten(inner)), place))
}

/// `lab net`, and a key that YAML understands in the line after it.
pub(super) fn no_colon(line: &str, next: &str) -> Option<(String, String, usize)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (key, value) = line.trim().split_once(' ')?;
    let is_key = !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let slip = is_key && !line.contains([':', '#', '{', '[']) && indent(line) == indent(next);
    let message = format!("a `:` is missing after `{key}`");
    slip.then(|| (message, format!("write `{key}: {}`", shorten(value.trim())), indent(line) + key.len()))
}

/// `description: LAN: the exam`: a colon in a value that has no quotes; `at` is the colon's place in the line.
pub(super) fn colon_in_value(line: &str, at: usize) -> Option<(String, String)> {
    let before = line.get(..at)?;
    let start = before.rfind([',', '{']).map_or(0, |at| at + 1);
    let (key, begin) = before[start..].split_once(": ")?;
    let rest = &line[at..];
    let in_braces = before.contains('{');
    let end = if in_braces { rest.find([',', '}']).unwrap_or(rest.len()) } else { rest.len() };
    let value = format!("{begin}{}", &rest[..end]);
    let value = value.split(" #").next().unwrap_or_default().trim();
    let message = "this `:` stands inside a value that has no quotes";
    let key = key.trim_start_matches([' ', '-']);
    (!value.contains('"')).then(|| (message.to_owned(), format!("write `{key}: \"{}\"`", shorten(value))))
}

fn key_before(text: &str) -> &str {
    let start = text.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |at| at + 1);
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_paste() {
        let hint = |line: &str| in_line(line).map(|(_, hint, _)| hint);
        let says = |line: &str, written: &str| assert_eq!(hint(line).unwrap(), format!("write `{written}`"), "{line}");
        says("    name: {user}-exam", "name: \"{user}-exam\"");
        says("  x: { derive: d, name: {user}-{n} }", "name: \"{user}-{n}\"");
        says("  x: { name: {user}-exam}", "name: \"{user}-exam\"");
        says("  - memory:2G", "memory: 2G");
        says("  f: { start: 2027-01-12T09:00[Europe/Bucharest], x: 1 }", "\"2027-01-12T09:00[Europe/Bucharest]\"");
        assert!(hint("    memory:\u{a0}2G").unwrap().starts_with("delete it"));
        for sound in [
            "    memory: 2G",
            "  x: { derive: d }",
            "  to: {user}",
            "  - http://x",
            "a: [{ size: 5G }]",
            "  start: \"x\"",
        ] {
            assert_eq!(hint(sound), None, "{sound}");
        }
        let missing = |line: &str, next: &str| no_colon(line, next).map(|(_, hint, at)| (hint, at));
        assert_eq!(missing("  memory 2G", "  cpus: 1"), Some(("write `memory: 2G`".to_owned(), 8)));
        for (line, next) in [("  some words", "cpus: 1"), ("a: b c", "cpus: 1"), ("- one two", "- x: 1"), ("", "x: 1")]
        {
            assert_eq!(missing(line, next), None, "{line}");
        }
        let quoted = |line: &str| quote(line, line.find('}').unwrap()).map(|(_, hint, _)| hint);
        assert_eq!(quoted("  name: “{user}-exam”").unwrap(), "write `\"{user}-exam\"`");
        assert_eq!(quoted("  name: it’s {user}"), None);
        let colon = |line: &str| colon_in_value(line, line.rfind(':').unwrap()).unwrap().1;
        assert_eq!(colon("    description: LAN: the exam # x"), "write `description: \"LAN: the exam\"`");
        assert_eq!(colon("  x: { description: LAN: the exam, cpus 1 }"), "write `description: \"LAN: the exam\"`");
    }
}
