//! What one can ask of a site, whoever asks: plain values in, plain values out. Nothing here knows a command line, a terminal, a
//! signal or an exit code, nor takes the account of its own process for the person who asks.
//!
//! ```text
//! manifests   a lab's folder and a site's file as what they mean
//! ```

pub mod manifests;
