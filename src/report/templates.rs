//! What is said of a template on its way from a CD to a version.

use super::plain_words::count;
use super::{escaped, times};
use crate::control::fetched::Fetched;
use crate::control::template::{Left, Made};
use crate::control::unused::Unused;
use crate::control::view::{Template, Version};
use crate::model::disk::size;
use crate::model::id::{TemplateName, VmName};

/// What to do with a vm on which somebody installs.
pub fn next(vm: &VmName, template: Option<&TemplateName>) -> String {
    let template = template.map_or("TEMPLATE", |template| template.as_str());
    format!(
        "next: `labwright vm vnc {vm}` tells where its screen is; once it is installed and off, \
         `labwright template publish {vm} --as {template}`"
    )
}

pub fn none_behind(template: &TemplateName) -> String {
    format!("no vm that is meant stands on an older version of {template} than its latest")
}

/// The vms that are to have new disks.
pub fn updates(template: &TemplateName, vms: &[VmName]) -> String {
    let names: Vec<&str> = vms.iter().map(VmName::as_str).collect();
    format!("{} stand on an older version of {template}: {}", count(vms.len(), "vm", "vms"), names.join(", "))
}

/// A line for each version that is to be deleted.
pub fn unused(versions: &[Unused]) -> Vec<String> {
    let line = |one: &Unused| {
        format!(
            "  version {} of template {}, published {}: no disk lies over it",
            one.version,
            one.template,
            times::local_text(&one.since)
        )
    };
    versions.iter().map(line).collect()
}

pub fn delete_question(number: usize) -> String {
    format!("Delete {} for good?", versions_word(number))
}

pub fn deleted(number: usize) -> String {
    format!("{} deleted", versions_word(number))
}

/// A line for each image from the web that is to be deleted, and the question.
pub fn unnamed(images: &[Fetched]) -> (Vec<String>, String) {
    let line = |one: &Fetched| format!("  {}, {}: no lab names it", one.path.display(), size(one.bytes));
    (images.iter().map(line).collect(), format!("Delete {} for good?", images_word(images.len())))
}

pub fn forgotten_images(number: usize) -> String {
    format!("{} deleted", images_word(number))
}

fn images_word(number: usize) -> String {
    count(number, "fetched image", "fetched images")
}

fn versions_word(number: usize) -> String {
    count(number, "version of a template", "versions of templates")
}

/// Who derives from what: each template, its versions, and the vms that stand on each.
pub fn tree(templates: &[Template], versions: &[Version]) -> String {
    let mut lines = Vec::new();
    for template in templates {
        lines.push(format!("{}  {}", template.name, template.owner));
        let of_it: Vec<&Version> = versions.iter().filter(|version| version.template == template.name).collect();
        lines.extend(of_it.is_empty().then(|| "  no version yet".to_owned()));
        lines.extend(of_it.into_iter().flat_map(branch));
    }
    let is_left = |version: &&Version| templates.iter().all(|template| template.name != version.template);
    let left: Vec<&Version> = versions.iter().filter(is_left).collect();
    for of_one in left.chunk_by(|one, other| one.template == other.template) {
        lines.push(format!("{}  not in the lab any more", of_one[0].template));
        lines.extend(of_one.iter().flat_map(|version| branch(version)));
    }
    lines.iter().map(|line| escaped(line).into_owned() + "\n").collect()
}

fn branch(version: &Version) -> Vec<String> {
    let latest = if version.is_latest { ", the latest" } else { "" };
    let used = version.used_bytes.map_or_else(|| "?".to_owned(), size);
    let made_of = version.made_of.as_ref().map(|vm| format!(", of vm {vm}")).unwrap_or_default();
    let first = format!("  version {}{latest}{made_of}, {used}", version.version);
    std::iter::once(first).chain(version.vms.iter().map(|vm| format!("    {vm}"))).collect()
}

pub fn published(template: &TemplateName, made: &Made) -> String {
    let Made { vm, version, disks, left } = made;
    let disks: Vec<String> = disks.iter().map(|disk| disk.display().to_string()).collect();
    let first = format!("version {version} of template {template} is published of {vm}: {}", disks.join(", "));
    first + &left.as_ref().map(left_on_it).unwrap_or_default()
}

/// What a seed has made of a vm is on all that derive from it.
fn left_on_it(left: &Left) -> String {
    let Left { users, keys } = left;
    let (accounts, keys) = (count(users.len(), "account", "accounts"), count(*keys, "key for ssh", "keys for ssh"));
    format!(
        "\nleft on it by the vm's seed: {accounts} ({}), with a password and {keys}; \
         `cloud-init clean` and `userdel -r` in the guest remove them before it is published",
        users.join(", ")
    )
}
