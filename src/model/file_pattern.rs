//! Which files of a guest's disk are meant: `home/*/answer*`, from the top of a file system on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::address::glob;

/// Deeper than anybody's work lies.
const STEPS_MAX: usize = 32;
/// As long as the kernel lets a path be (limits.h).
const BYTES_MAX: usize = 4096;

/// A path in which `*` stands for anything within one name. A folder that fits means all that is below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FilePattern(Vec<String>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    #[error("a pattern names at least one file, such as `home/*/answer*`")]
    Empty,
    #[error("`..` and `.` lead nowhere in a pattern: it is read from the top of the file system")]
    Dots,
    #[error(
        "`**` stands for no more than `*` does: write one `*` for each folder, or name the folder, which means all below it"
    )]
    Stars,
    #[error("a pattern has no control characters")]
    Control,
    #[error("a pattern is at most {BYTES_MAX} bytes long and {STEPS_MAX} folders deep")]
    Long,
}

impl FilePattern {
    /// What each name on the way must fit, from the top.
    pub fn steps(&self) -> &[String] {
        &self.0
    }
}

/// Whether a name fits one step of a pattern.
pub fn fits(step: &str, name: &str) -> bool {
    glob(step, name)
}

impl FromStr for FilePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let steps: Vec<String> = text.split('/').filter(|step| !step.is_empty()).map(str::to_owned).collect();
        if text.chars().any(char::is_control) {
            Err(InvalidPattern::Control)
        } else if steps.iter().any(|step| step == "." || step == "..") {
            Err(InvalidPattern::Dots)
        } else if text.contains("**") {
            Err(InvalidPattern::Stars)
        } else if steps.len() > STEPS_MAX || text.len() > BYTES_MAX {
            Err(InvalidPattern::Long)
        } else if steps.is_empty() {
            Err(InvalidPattern::Empty)
        } else {
            Ok(Self(steps))
        }
    }
}

impl TryFrom<String> for FilePattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<FilePattern> for String {
    fn from(pattern: FilePattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for FilePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_read_from_the_top_and_leads_nowhere_else() {
        let shown = |text: &str| text.parse::<FilePattern>().map(|pattern| pattern.to_string());
        assert_eq!(shown("/home/*/answer*").unwrap(), "home/*/answer*");
        assert_eq!(shown("etc//hosts/").unwrap(), "etc/hosts");
        for (text, error) in [
            ("", InvalidPattern::Empty),
            ("/", InvalidPattern::Empty),
            ("home/../etc/shadow", InvalidPattern::Dots),
            ("./answer", InvalidPattern::Dots),
            ("home/**/answer", InvalidPattern::Stars),
            ("home/a\nb", InvalidPattern::Control),
            (&"a/".repeat(33), InvalidPattern::Long),
            (&"a".repeat(4097), InvalidPattern::Long),
        ] {
            assert_eq!(shown(text), Err(error), "{text}");
        }
    }
}
