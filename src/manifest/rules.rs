//! Every rule a manifest can break, with its stable code.

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    UnknownKey,
}
