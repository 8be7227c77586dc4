//! `qhost -F -xml` in, execution hosts and what they offer out. For the check of a cluster's set-up; plans use `queue`.

use super::XmlError;
use super::xml::{Part, read};

/// One execution host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecHost {
    pub name: String,
    /// Processors, memory and so on, as the host measures them; `-` of a host that does not answer is left out.
    pub values: Vec<(String, String)>,
    /// Resources that jobs can ask for, and what is left of them.
    pub resources: Vec<(String, String)>,
}

impl ExecHost {
    pub fn value(&self, name: &str) -> Option<&str> {
        find(&self.values, name)
    }

    pub fn resource(&self, name: &str) -> Option<&str> {
        find(&self.resources, name)
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Reads an answer; the pseudo host `global` is left out.
pub(super) fn parse(xml: &str) -> Result<Vec<ExecHost>, XmlError> {
    let mut hosts: Vec<ExecHost> = Vec::new();
    let mut label = String::new();
    read(xml, "qhost", |part| match part {
        Part::Open { name: "host", attributes } => {
            hosts.push(ExecHost {
                name: attributes.get("name").unwrap_or_default().into_owned(),
                ..ExecHost::default()
            });
        }
        Part::Open { attributes, .. } => label = attributes.get("name").unwrap_or_default().into_owned(),
        Part::Close { name, text } => {
            let Some(host) = hosts.last_mut() else { return };
            let pair = (std::mem::take(&mut label), text.into_owned());
            match name {
                "hostvalue" if pair.1 != "-" => host.values.push(pair),
                "resourcevalue" => host.resources.push(pair),
                _ => {}
            }
        }
    })?;
    hosts.retain(|host| host.name != "global");
    Ok(hosts)
}
