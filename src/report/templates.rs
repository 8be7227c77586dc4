//! What is said of a template on its way from a CD to a version.

use crate::control::template::Made;
use crate::model::id::{TemplateName, VmName};

/// What to do with a vm on which somebody installs.
pub fn next(vm: &VmName, template: Option<&TemplateName>) -> String {
    let template = template.map_or("TEMPLATE", |template| template.as_str());
    format!(
        "next: `labwright vm vnc {vm}` tells where its screen is; once it is installed and off, \
         `labwright template publish {vm} --as {template}`"
    )
}

pub fn published(template: &TemplateName, made: &Made) -> String {
    let Made { vm, version, disks } = made;
    let disks: Vec<String> = disks.iter().map(|disk| disk.display().to_string()).collect();
    format!("version {version} of template {template} is published of {vm}: {}", disks.join(", "))
}
