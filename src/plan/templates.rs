//! Templates: which published version new vms derive from, and when a new one is made. A version never changes once it
//! is published, so vms that derive from it are safe from any edit of the image.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::objects::{Edits, fields};
use super::{Action, ActionId, Change, Effect, Ground, Inputs, Planner, PublishSource, Reason, Remark, Verb};
use crate::model::address::{Address, Kind};
use crate::model::id::TemplateName;
use crate::model::lab::{DiskSource, Template};
use crate::observe::ImageFact;
use crate::state::{Entry, PublishedDisk, TemplateVersion, Thing};

/// The version that new vms of a template derive from.
#[derive(Debug, Clone)]
pub(super) struct CurrentVersion {
    pub(super) version: u32,
    pub(super) disks: Vec<PathBuf>,
    /// The action that publishes it, where it is not there yet.
    pub(super) published_by: Option<ActionId>,
}

impl CurrentVersion {
    fn recorded(number: u32, version: &TemplateVersion) -> Self {
        let disks = version.disks.iter().map(|disk| disk.path.clone()).collect();
        Self { version: number, disks, published_by: None }
    }
}

/// What an image's bytes mean for the version that was published from it.
enum Freshness {
    Same,
    /// Another time stamp, the same bytes.
    Touched {
        bytes: u64,
        mtime_ns: i64,
    },
    Different,
    Missing,
}

impl Planner<'_> {
    pub(super) fn plan_templates(&mut self) {
        let desired = self.inputs.desired;
        self.note_spoilt_bases();
        for (name, template) in &desired.templates {
            let current = self.plan_template(name, template);
            if let Some(current) = current {
                self.note_behind(name, &current);
                self.current_versions.insert(name.clone(), current);
            }
        }
    }

    /// Who stands on an older version keeps it until somebody says otherwise.
    fn note_behind(&mut self, name: &TemplateName, current: &CurrentVersion) {
        let (recorded, moves) = (self.inputs.recorded, &self.moves.templates);
        let vms = recorded.behind(moves.get(name).unwrap_or(name), current.version).count();
        if vms > 0 && current.published_by.is_none() {
            let what = Remark::Behind { template: name.clone(), vms, version: current.version };
            self.note(&Address::new(Kind::Template, name), what);
        }
    }

    fn plan_template(&mut self, name: &TemplateName, template: &Template) -> Option<CurrentVersion> {
        let address = Address::new(Kind::Template, name);
        if self.is_held(&address) {
            return None;
        }
        let fetched = self.inputs.site.storage.fetched();
        let images: Option<Vec<Named<'_>>> = template.disks.iter().map(|disk| named(disk, &fetched)).collect();
        let recorded_name = self.moves.templates.get(name).unwrap_or(name).clone();
        let versions = (recorded_name.clone(), 0)..=(recorded_name.clone(), u32::MAX);
        let latest = self.inputs.recorded.versions.range(versions).next_back();
        let latest = latest.map(|((_, number), version)| (*number, version));
        let mut actions = Vec::new();
        if recorded_name != *name {
            let rename = self.action(Vec::new(), Entry::RenameTemplate { from: recorded_name, to: name.clone() });
            actions.push(rename);
        }
        let Some(images) = images else {
            // Its versions come by command, from a vm on which somebody has installed it.
            if latest.is_none() {
                self.wait(&address, Remark::NotInstalled { template: name.clone() });
            }
            self.record_template(&address, template, actions, None);
            return latest.map(|(number, version)| CurrentVersion::recorded(number, version));
        };
        let mut why = None;
        let current = match latest.map(|(number, version)| (number, version, self.freshness(&images, version))) {
            Some((number, version, freshness)) if freshness.iter().all(|f| !matches!(f, Freshness::Different)) => {
                self.take_note_of_images(&address, name, number, &freshness, &mut actions);
                Some(CurrentVersion::recorded(number, version))
            }
            _ if images.iter().any(|image| {
                let fact = || self.inputs.observed.images.get(&image.path);
                image.url.is_none() && matches!(fact(), None | Some(ImageFact::Missing))
            }) =>
            {
                self.refuse(&address, Ground::ImageMissing);
                None
            }
            older => {
                let is_first = older.is_none();
                let number = self.next_version(name, older.map_or(1, |(number, ..)| number + 1), &images);
                if !is_first && !self.may_publish_anew(&address, name, number) {
                    return None;
                }
                why = Some(if is_first { Reason::Published } else { Reason::PublishedAnew { version: number } });
                Some(self.publish(name, number, &images, &mut actions))
            }
        };
        self.record_template(&address, template, actions, why);
        current
    }

    /// Refuses a new version under vms that derive from the old one; answers whether it may be made.
    fn may_publish_anew(&mut self, address: &Address, name: &TemplateName, number: u32) -> bool {
        let derived = self.inputs.recorded.vms.values().filter(
            |known| matches!(&known.vm.source, crate::model::lab::VmSource::Derive(template) if template == name),
        );
        let derived = derived.count();
        if derived == 0 || self.allowed(address) {
            return true;
        }
        self.refuse(address, Ground::ImageChanged { derived, version: number });
        false
    }

    fn freshness(&self, images: &[Named<'_>], version: &TemplateVersion) -> Vec<Freshness> {
        if images.len() != version.disks.len() {
            return vec![Freshness::Different];
        }
        images.iter().zip(&version.disks).map(|(image, published)| self.freshness_of(image, published)).collect()
    }

    fn freshness_of(&self, image: &Named<'_>, published: &PublishedDisk) -> Freshness {
        // What the manifest says it holds is what it must hold before it is published anew.
        let is_as_written = image.sha256 == Some(published.source_sha256());
        let is_source = image.path == published.source;
        match self.inputs.observed.images.get(&image.path) {
            // What is fetched is known by its digest, wherever it comes from.
            _ if image.url.is_some() && is_as_written => Freshness::Same,
            _ if image.url.is_some() => Freshness::Different,
            // A file that is not there is no other image where only another checkout was looked at.
            None | Some(ImageFact::Missing) if is_source => Freshness::Missing,
            None | Some(ImageFact::Missing) => Freshness::Different,
            Some(ImageFact::There { .. }) if is_as_written => Freshness::Same,
            Some(ImageFact::There { bytes, sha256: None, .. }) if *bytes == published.source_bytes => Freshness::Same,
            Some(ImageFact::There { bytes, mtime_ns, sha256: Some(sha256) }) if sha256 == published.source_sha256() => {
                let stamp = (published.source_bytes, published.source_mtime_ns);
                match is_source && (*bytes, *mtime_ns) != stamp {
                    true => Freshness::Touched { bytes: *bytes, mtime_ns: *mtime_ns },
                    false => Freshness::Same,
                }
            }
            Some(ImageFact::There { .. }) => Freshness::Different,
        }
    }

    fn take_note_of_images(
        &mut self,
        address: &Address,
        name: &TemplateName,
        version: u32,
        freshness: &[Freshness],
        actions: &mut Vec<Action>,
    ) {
        for (slot, freshness) in (0..).zip(freshness) {
            match freshness {
                Freshness::Touched { bytes, mtime_ns } => {
                    let effect =
                        Entry::Image { template: name.clone(), version, slot, bytes: *bytes, mtime_ns: *mtime_ns };
                    let action = self.action(Vec::new(), effect);
                    actions.push(action);
                }
                Freshness::Missing => self.note(address, Remark::ImageGone { version }),
                Freshness::Same | Freshness::Different => {}
            }
        }
    }

    /// The first number from `from` on whose place is free. What stands there with the wanted bytes is of an apply that was
    /// cut short; what stands there with others may have disks over it that our records do not tell of, or belongs to a
    /// template that has another name by now.
    fn next_version(&self, name: &TemplateName, from: u32, images: &[Named<'_>]) -> u32 {
        let Inputs { desired, recorded, observed, site, .. } = self.inputs;
        let known: BTreeSet<&PathBuf> =
            recorded.versions.values().flat_map(|version| &version.disks).map(|disk| &disk.path).collect();
        let is_free = |number: &u32| {
            images.iter().enumerate().all(|(slot, image)| {
                let path = site.storage.published_disk(&desired.lab, name, *number, slot);
                let digest = observed.unrecorded.get(&path);
                let is_wanted = |digest: &String| match image.url {
                    Some(_) => image.sha256 == Some(digest),
                    None => observed.holds(&image.path, digest),
                };
                !known.contains(&path) && digest.is_none_or(is_wanted)
            })
        };
        (from..).find(is_free).unwrap_or(from)
    }

    fn publish(
        &mut self,
        name: &TemplateName,
        version: u32,
        images: &[Named<'_>],
        actions: &mut Vec<Action>,
    ) -> CurrentVersion {
        let (lab, storage) = (&self.inputs.desired.lab, &self.inputs.site.storage);
        let disks: Vec<PublishSource> = (0..)
            .zip(images)
            .map(|(slot, image): (usize, &Named<'_>)| PublishSource {
                image: image.path.clone(),
                path: storage.published_disk(lab, name, version, slot),
                sha256: image.sha256.map(str::to_owned),
                url: image.url.map(str::to_owned),
            })
            .collect();
        let paths = disks.iter().map(|disk| disk.path.clone()).collect();
        let action = self.action(Vec::new(), Effect::Publish { template: name.clone(), version, disks });
        let published_by = Some(action.id);
        actions.push(action);
        CurrentVersion { version, disks: paths, published_by }
    }

    fn record_template(
        &mut self,
        address: &Address,
        template: &Template,
        mut actions: Vec<Action>,
        why: Option<Reason>,
    ) {
        // Where it stands in the manifest is shown by `explain`; a line that moves is no change.
        let wanted = Thing::Template(Template { origin: crate::model::lab::Origin::default(), ..template.clone() });
        let recorded = self.inputs.recorded.objects.get(address);
        let same =
            recorded.is_some_and(|before| before.thing == wanted || is_of_another_checkout(&before.body, template));
        let body = recorded.map_or_else(|| wanted.body(), |before| before.body_of(&wanted));
        if same && actions.is_empty() {
            self.plan.unchanged.push(address.clone());
            return;
        }
        let edits = Edits::new(recorded.map(|before| fields(&before.body)).unwrap_or_default(), fields(&body));
        let verb = match recorded {
            None => Verb::Create,
            Some(_) if same && why.is_none() => Verb::Record,
            Some(_) => Verb::Update,
        };
        let reasons = match (why, verb) {
            (Some(why), _) => vec![why],
            (None, Verb::Create) => vec![Reason::New],
            (None, Verb::Record) => vec![Reason::ImageTouched],
            (None, _) => edits.reasons(),
        };
        if !same {
            let needs = actions.iter().map(|action| action.id).collect();
            let record = self.action(needs, Entry::Object { address: address.clone(), body: Some(body) });
            actions.push(record);
        }
        let Edits { before, after } = edits;
        self.plan.changes.push(Change {
            address: address.clone(),
            verb,
            reasons,
            before,
            after,
            touches: None,
            actions,
        });
    }
}

/// Whether only the folder differs in which the images are: an image is its content, which was compared before.
fn is_of_another_checkout(before: &str, template: &Template) -> bool {
    let before = serde_json::from_str::<Template>(before).ok();
    before.is_some_and(|before| {
        let origin = crate::model::lab::Origin::default();
        same_but_for_folders(&before.disks, &template.disks)
            && Template { disks: before.disks.clone(), origin, ..template.clone() } == before
    })
}

/// Whether two lists of disks differ only in the folders of their images.
pub(super) fn same_but_for_folders(one: &[DiskSource], other: &[DiskSource]) -> bool {
    let same = |(one, other): (&DiskSource, &DiskSource)| match (one, other) {
        (DiskSource::Image { path, sha256 }, DiskSource::Image { path: there, sha256: other }) => {
            path.file_name() == there.file_name() && sha256 == other
        }
        (DiskSource::Fetched { sha256, .. }, DiskSource::Fetched { sha256: other, .. }) => sha256 == other,
        (one, other) => one == other,
    };
    one.len() == other.len() && one.iter().zip(other).all(same)
}

/// An image that a manifest names, and where it lies.
struct Named<'a> {
    path: PathBuf,
    sha256: Option<&'a str>,
    url: Option<&'a str>,
}

/// `None` of a disk that begins empty.
fn named<'a>(source: &'a DiskSource, fetched: &Path) -> Option<Named<'a>> {
    match source {
        DiskSource::Image { path, sha256 } => Some(Named { path: path.clone(), sha256: sha256.as_deref(), url: None }),
        DiskSource::Fetched { url, sha256 } => {
            Some(Named { path: fetched.join(sha256), sha256: Some(sha256), url: Some(url) })
        }
        DiskSource::Empty { .. } => None,
    }
}
