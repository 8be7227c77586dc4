//! YAML and CSV text in, documents as written out, each value with its place. Looks no names up.

pub mod rules;
