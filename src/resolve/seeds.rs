//! Seed disks: what is written of one, with the keys and the text of the files that it names.

use super::Resolver;
use crate::manifest::{SeedDecl, Spanned};
use crate::model::rules::Rule;
use crate::model::seed::Seed;

/// More accounts than a guest of a lab needs.
const USERS_MAX: usize = 16;

impl Resolver<'_> {
    /// The seed of a template or a vm: what is written, or else what stands `below`.
    pub(super) fn seed(&mut self, written: Option<&Spanned<SeedDecl>>, below: Option<&Seed>) -> Option<Seed> {
        let keys = match written.map(|written| &written.value) {
            None => return below.cloned(),
            Some(SeedDecl::Switch(false)) => return None,
            Some(SeedDecl::Switch(true)) => return Some(below.cloned().unwrap_or_default()),
            Some(SeedDecl::Keys(keys)) => keys,
        };
        let mut users: Vec<String> = Vec::new();
        for user in &keys.users {
            if users.contains(&user.0) {
                let message = format!("the account `{}` stands here twice", user.0);
                self.note(Rule::ConflictingKeys, user.at, message, "remove one of the two");
            } else if users.len() == USERS_MAX {
                let message = format!("a seed has at most {USERS_MAX} accounts");
                self.note(Rule::TooBig, user.at, message, "make the others on the template");
                break;
            }
            users.push(user.0.clone());
        }
        Some(Seed {
            hostname: keys.hostname.as_ref().map(|pattern| pattern.0.clone()),
            users,
            sudo: keys.sudo.as_ref().is_some_and(|sudo| sudo.value),
            keyboard: keys.keyboard.as_ref().map(|keyboard| keyboard.value.clone()),
            ssh_keys: self.manifest.ssh_keys(&keys.ssh_keys),
            user_data: keys.user_data.as_ref().and_then(|file| self.manifest.user_data(file)),
        })
    }
}
