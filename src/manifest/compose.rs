//! Files into one manifest: the same name twice is an error that shows both places. Then what the manifest names outside
//! itself is looked at: rosters are read, image files are glanced at.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::accommodations::{self, Accommodations};
use super::columns::Format;
use super::containers::Named;
use super::decode::{At, Decode as _, Decoder, Spanned};
use super::files::{self, Budget, Files, Found, LoadError, ManifestFile};
use super::foreign;
use super::ignore::{IGNORE_FILE, Ignore};
use super::images::{self, Checksum, Checksums, ImageFacts};
use super::language::{
    Defaults, DiskDecl, LabFile, MovedDecl, PermissionDecl, RosterDecl, SessionDecl, TemplateDecl, UserDecl,
    UserGroupDecl, VmDecl, VmGroupDecl,
};
use super::room::Room;
use super::roster::{self, Roster};
use super::tree;
use super::words::{FilePath, ImagePlace};
use crate::model::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::model::id::{FamilyName, LabName, SessionName, TemplateName, UserGroupName, UserName, VmGroupName};
use crate::model::rules::Rule;
use crate::model::seed::SshKey;

/// A file that begins so is cloud-init's, whatever it is called.
const CLOUD_CONFIG: &str = "#cloud-config";

/// A lab as its files say it, in the order of the files.
#[derive(Debug, Clone, Default)]
pub struct Manifest {
    /// Absolute.
    pub folder: PathBuf,
    /// What `At::file` counts.
    pub files: Vec<ManifestFile>,
    pub lab: Option<Spanned<LabName>>,
    pub defaults: Option<Spanned<Defaults>>,
    pub users: Named<UserName, UserDecl>,
    pub user_groups: Named<UserGroupName, UserGroupDecl>,
    pub vm_groups: Named<VmGroupName, VmGroupDecl>,
    pub templates: Named<TemplateName, TemplateDecl>,
    pub vms: Named<FamilyName, VmDecl>,
    pub permissions: Vec<Spanned<PermissionDecl>>,
    pub sessions: Named<SessionName, SessionDecl>,
    pub moved: Vec<Spanned<MovedDecl>>,
    /// The rosters that could be read.
    pub rosters: BTreeMap<UserGroupName, Roster>,
    /// What the files say that sessions name, as far as it could be read.
    pub accommodations: BTreeMap<SessionName, Accommodations>,
    /// What can be seen of the files that `image` and `cdrom` name, by absolute path.
    pub images: BTreeMap<PathBuf, ImageFacts>,
    /// The public keys of the files that `ssh_keys` name, and the texts that `user_data` names, by path.
    pub(super) keys: BTreeMap<PathBuf, Vec<SshKey>>,
    pub(super) user_data: BTreeMap<PathBuf, String>,
}

impl Manifest {
    /// A place, for a diagnostic.
    pub fn span(&self, at: At) -> Span {
        let file = &self.files[at.file as usize];
        Span::new(&file.source, at.start as usize..at.end as usize)
    }

    /// The absolute path that a written path means: relative to the file that names it.
    pub fn path(&self, written: &Spanned<FilePath>) -> PathBuf {
        self.path_from(written.at, &written.0)
    }

    /// The same of an image; `None` of one on the web.
    pub fn image(&self, written: &Spanned<ImagePlace>) -> Option<PathBuf> {
        match &written.value {
            ImagePlace::File(path) => Some(self.path_from(written.at, &path.0)),
            ImagePlace::Web(_) => None,
        }
    }

    pub(super) fn path_from(&self, at: At, written: &str) -> PathBuf {
        let folder = &self.files[at.file as usize].folder;
        let mut path = PathBuf::new();
        for component in folder.join(written).components() {
            match component {
                Component::ParentDir => {
                    path.pop();
                }
                Component::CurDir => {}
                other => path.push(other),
            }
        }
        path
    }
}

impl Manifest {
    /// The images that it names, and of which it states a checksum.
    pub fn images_wanted(&self) -> BTreeMap<PathBuf, bool> {
        let mut wanted: BTreeMap<PathBuf, bool> = BTreeMap::new();
        let templates = self.templates.iter().map(|(_, t)| (&t.disks, &t.cdrom));
        let vms = self.vms.iter().map(|(_, vm)| (&vm.disks, &vm.cdrom));
        for (disks, cdrom) in templates.chain(vms) {
            for DiskDecl { image, sha256, .. } in disks.iter().map(|disk| &disk.value) {
                let Some(path) = image.as_ref().and_then(|image| self.image(image)) else { continue };
                *wanted.entry(path).or_default() |= sha256.is_some();
            }
            if let Some(cdrom) = cdrom {
                wanted.entry(self.path(cdrom)).or_default();
            }
        }
        wanted
    }
}

/// What `load` found.
#[derive(Debug)]
#[must_use = "the findings are for the user: report them"]
pub struct Loaded {
    pub manifest: Manifest,
    pub diagnostics: Diagnostics,
}

/// Reads all manifests below `folder`, their rosters, and the headers of the images they name.
pub fn load(folder: &Path) -> Result<Loaded, LoadError> {
    load_with(folder, Checksums::Small)
}

/// Reads a lab and computes the checksums of all its images, where the manifest states one.
pub fn load_with(folder: &Path, checksums: Checksums) -> Result<Loaded, LoadError> {
    let absolute =
        std::path::absolute(folder).map_err(|source| LoadError::Folder { path: folder.to_owned(), source })?;
    let mut loader = Loader::new(absolute, folder.to_owned(), Files::Disk, checksums);
    let mut ignore = loader.read_ignore()?;
    let found = files::find(folder, &mut ignore)?;
    ignore.note_unused(&mut loader.diagnostics);
    loader.load(found)
}

/// Reads a lab from memory: paths below its folder, and their bytes. Images cannot be seen.
pub fn load_memory(files: &BTreeMap<PathBuf, Vec<u8>>) -> Loaded {
    let folder = Path::new("/");
    let absolute = files.iter().map(|(path, bytes)| (folder.join(path), bytes.clone())).collect();
    let is_manifest = |path: &&PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(files::is_manifest);
    let found = Found { manifests: files.keys().filter(is_manifest).cloned().collect(), ..Found::default() };
    let loader = Loader::new(folder.to_owned(), PathBuf::new(), Files::Memory(&absolute), Checksums::Small);
    loader.load(found).expect("files in memory can be read")
}

/// Reads the manifest of one text, without its rosters and images.
fn read_document(file: &ManifestFile, number: u32, room: &mut Room, diagnostics: &mut Diagnostics) -> Option<LabFile> {
    let source = &file.source;
    match tree::parse(source) {
        Ok(Some(root)) => {
            if let Some(finding) = foreign::finding(&root, source, &file.relative) {
                diagnostics.push(finding);
                return None;
            }
            let mut decoder = Decoder { file: number, source, diagnostics, context: 0..0, room };
            LabFile::decode(&root, &mut decoder)
        }
        Ok(None) => None,
        Err(mut finding) => {
            if foreign::is_likely(&source.text) {
                let hint = finding.hint.take().map(|hint| format!("{hint}; ")).unwrap_or_default();
                finding.hint = Some(hint + &foreign::left_out(&file.relative));
            }
            diagnostics.push(*finding);
            None
        }
    }
}

pub(super) struct Loader<'a> {
    pub(super) files: Files<'a>,
    checksums: Checksums,
    pub(super) manifest: Manifest,
    pub(super) diagnostics: Diagnostics,
    /// The folder as the user named it.
    shown: PathBuf,
    pub(super) budget: Budget,
    room: Room,
}

impl<'a> Loader<'a> {
    pub(super) fn new(folder: PathBuf, shown: PathBuf, files: Files<'a>, checksums: Checksums) -> Self {
        let manifest = Manifest { folder, ..Manifest::default() };
        Self {
            files,
            checksums,
            manifest,
            diagnostics: Diagnostics::default(),
            shown,
            budget: Budget::default(),
            room: Room::default(),
        }
    }

    pub(super) fn load(mut self, found: Found) -> Result<Loaded, LoadError> {
        self.note_unread(&found);
        let mut documents = Vec::new();
        for relative in found.manifests {
            let path = self.manifest.folder.join(&relative);
            let name = self.shown_name(&path);
            let bytes = files::read_bytes(self.files, &path, &name, &mut self.budget, &mut self.diagnostics)
                .map_err(|source| LoadError::File { path: path.clone(), source })?;
            let Some(source) = bytes.and_then(|bytes| files::text(&name, bytes, &mut self.diagnostics)) else {
                continue;
            };
            if source.text.starts_with(CLOUD_CONFIG) {
                continue;
            }
            let number = self.add_file(source, &path);
            let file = &self.manifest.files[number as usize];
            documents.extend(read_document(file, number, &mut self.room, &mut self.diagnostics));
        }
        let labs: Vec<Spanned<LabName>> = documents.iter().filter_map(|document| document.lab.clone()).collect();
        if let Some(finding) = self.several_labs(&labs) {
            // What else is wrong comes from reading them as one.
            self.diagnostics = Diagnostics::default();
            self.diagnostics.push(finding);
            return Ok(Loaded { manifest: self.manifest, diagnostics: self.diagnostics });
        }
        self.compose(documents);
        self.read_rosters();
        self.read_accommodations();
        self.read_seed_files();
        self.look_at_images();
        Ok(Loaded { manifest: self.manifest, diagnostics: self.diagnostics })
    }

    /// What the lab's folder says is none of the lab's.
    pub(super) fn read_ignore(&mut self) -> Result<Ignore, LoadError> {
        let path = self.manifest.folder.join(IGNORE_FILE);
        let name = self.shown_name(&path);
        let bytes = match files::read_bytes(self.files, &path, &name, &mut self.budget, &mut self.diagnostics) {
            Ok(bytes) => bytes,
            // That the folder is none is said when it is looked through.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => None,
            Err(source) => return Err(LoadError::File { path, source }),
        };
        let source = bytes.and_then(|bytes| files::text(&name, bytes, &mut self.diagnostics));
        Ok(source.map_or_else(Ignore::default, |source| Ignore::parse(source, &mut self.diagnostics)))
    }

    /// Says which files look like input and are not read.
    fn note_unread(&mut self, found: &Found) {
        for path in &found.not_text {
            let message = format!("the name of `{}` is not UTF-8", path.display());
            let hint = "rename the file, or the folder that it is in: `convmv -f latin1 -t utf-8 -r --notest .`";
            self.diagnostics.push(Diagnostic::new(Rule::NotText, message).hint(hint));
        }
        if let Some((names, are)) = some_paths(&found.lost_links, "leads", "lead") {
            let message = format!("{names} {are} to no folder that is read: nowhere, or back up");
            let hint = format!("mend the link or remove it; one that is not the lab's goes into `{IGNORE_FILE}`");
            self.diagnostics.push(Diagnostic::new(Rule::Unread, message).hint(hint));
        }
        if found.manifests.is_empty() {
            let message = format!("there is no `*.yaml` or `*.yml` file below {}", self.shown.display());
            let hint = match found.alike.first() {
                Some(alike) => format!(
                    "did you mean `{}`? rename it: `mv {} {}`",
                    alike.display(),
                    self.shown.join(alike).display(),
                    self.shown.join(meant_name(alike)).display()
                ),
                None => format!("write one with `labwright init {}`, or name the lab's folder", self.shown.display()),
            };
            self.diagnostics.push(Diagnostic::new(Rule::NoLab, message).hint(hint));
        } else if let Some((names, look)) =
            some_paths(&found.alike, "looks like a manifest and is", "look like manifests and are")
        {
            let message = format!("{names} {look} not read");
            let hint = format!(
                "only `*.yaml` and `*.yml` are: rename what belongs to the lab, list the rest in `{IGNORE_FILE}`"
            );
            self.diagnostics.push(Diagnostic::new(Rule::Unread, message).hint(hint));
        }
    }

    /// A finding, where labs stand side by side and not one lab in several files.
    fn several_labs(&self, labs: &[Spanned<LabName>]) -> Option<Diagnostic> {
        const SHOWN: usize = 4;
        let folder = |lab: &Spanned<LabName>| &self.manifest.files[lab.at.file as usize].folder;
        let (first, others) = labs.split_first()?;
        let other = others.iter().find(|other| folder(other) != folder(first))?;
        let mut names: Vec<String> = labs.iter().take(SHOWN).map(|lab| format!("`{}`", lab.value)).collect();
        if labs.len() > SHOWN {
            names.push("…".to_owned());
        }
        let message = format!("{} labs are below {}: {}", labs.len(), self.shown.display(), names.join(", "));
        let named = self.shown_name(folder(if folder(first) == &self.manifest.folder { other } else { first }));
        let hint =
            format!("name the folder of one, as in `labwright validate {named}`; list an old copy in `{IGNORE_FILE}`");
        let (place, second) = (self.manifest.span(first.at), self.manifest.span(other.at));
        Some(Diagnostic::new(Rule::SeveralLabs, message).at(place).related(second, "another one").hint(hint))
    }

    /// A path as the user would write it.
    pub(super) fn shown_name(&self, path: &Path) -> String {
        let shown = match path.strip_prefix(&self.manifest.folder) {
            Ok(relative) => self.shown.join(relative),
            Err(_) => path.to_owned(),
        };
        let text = shown.display().to_string();
        text.strip_prefix("./").map_or(text.clone(), str::to_owned)
    }

    fn add_file(&mut self, source: Arc<Source>, path: &Path) -> u32 {
        let relative = path.strip_prefix(&self.manifest.folder).unwrap_or(path).display().to_string();
        let folder = path.parent().unwrap_or(&self.manifest.folder).to_owned();
        self.manifest.files.push(ManifestFile { source, relative, folder });
        u32::try_from(self.manifest.files.len() - 1).expect("the number of files is limited")
    }

    fn compose(&mut self, documents: Vec<LabFile>) {
        let mut labs = Vec::new();
        let mut defaults = Vec::new();
        for document in documents {
            labs.extend(document.lab);
            defaults.extend(document.defaults);
            self.manifest.users.0.extend(document.users.0);
            self.manifest.user_groups.0.extend(document.user_groups.0);
            self.manifest.vm_groups.0.extend(document.vm_groups.0);
            self.manifest.templates.0.extend(document.templates.0);
            self.manifest.vms.0.extend(document.vms.0);
            self.manifest.permissions.extend(document.permissions);
            self.manifest.sessions.0.extend(document.sessions.0);
            self.manifest.moved.extend(document.moved);
        }
        self.once("lab", labs.iter().map(|lab| lab.at));
        self.once("defaults", defaults.iter().map(|defaults| defaults.at));
        self.manifest.lab = labs.into_iter().next();
        self.manifest.defaults = defaults.into_iter().next();
        let manifest = &mut self.manifest;
        let mut doubles = Vec::new();
        doubles.extend(take_doubles(&mut manifest.users, "user"));
        doubles.extend(take_doubles(&mut manifest.user_groups, "user group"));
        doubles.extend(take_doubles(&mut manifest.vm_groups, "vm group"));
        doubles.extend(take_doubles(&mut manifest.templates, "template"));
        doubles.extend(take_doubles(&mut manifest.vms, "vm or family"));
        doubles.extend(take_doubles(&mut manifest.sessions, "session"));
        for (what, first, second) in doubles {
            let second = self.manifest.span(second);
            let diagnostic =
                Diagnostic::new(Rule::DuplicateName, format!("a second {what} is called `{}`", second.text()))
                    .related(self.manifest.span(first), "here for the first time")
                    .at(second)
                    .hint("rename one of the two, or remove it");
            self.diagnostics.push(diagnostic);
        }
        if self.manifest.lab.is_none() && !self.diagnostics.has_errors() {
            self.no_lab();
        }
    }

    /// Notes that a key of the whole lab stands in several files.
    fn once(&mut self, key: &str, places: impl Iterator<Item = At>) {
        let places: Vec<Span> = places.map(|at| self.manifest.span(at)).collect();
        let Some((first, others)) = places.split_first() else { return };
        for other in others {
            let message = format!("`{key}` is written in two files; all files below a folder form one lab");
            let diagnostic = Diagnostic::new(Rule::DuplicateName, message)
                .at(other.clone())
                .related(first.clone(), "here for the first time")
                .hint("keep it in one file; put another lab into a folder of its own");
            self.diagnostics.push(diagnostic);
        }
    }

    fn no_lab(&mut self) {
        let message = "no file says what the lab is called";
        let hint = "add a line `lab: my-lab` on top of one file";
        let diagnostic = Diagnostic::new(Rule::NoLab, message).hint(hint);
        let place = self.manifest.files.first().map(|file| Span::new(&file.source, 0..1));
        self.diagnostics.push(match place {
            Some(place) => diagnostic.at(place),
            None => diagnostic,
        });
    }

    fn read_rosters(&mut self) {
        let groups = std::mem::take(&mut self.manifest.user_groups);
        for (name, group) in groups.iter() {
            if let Some(decl) = &group.roster {
                let roster = self.read_roster(decl);
                self.manifest.rosters.extend(roster.map(|roster| (name.value.clone(), roster)));
            }
        }
        self.manifest.user_groups = groups;
    }

    fn read_roster(&mut self, decl: &RosterDecl) -> Option<Roster> {
        let (written, format) = match decl {
            RosterDecl::File(file) => (file, Format { file: &file.0, ..Format::default() }),
            RosterDecl::Described(described) => {
                let format = Format {
                    file: &described.file.0,
                    columns: described.columns.as_ref().map(|columns| &columns.value),
                    separator: described.separator.as_ref().map(|separator| separator.value),
                    encoding: described.encoding.as_ref().map(|encoding| encoding.value),
                };
                (&described.file, format)
            }
        };
        let path = self.manifest.path(written);
        let name = self.shown_name(&path);
        let bytes = match files::read_bytes(self.files, &path, &name, &mut self.budget, &mut self.diagnostics) {
            Ok(bytes) => bytes?,
            Err(error) => {
                let message = format!("the roster `{name}` cannot be read: {error}");
                let hint = format!("a path is relative to the file that names it; we looked at {}", path.display());
                let place = self.manifest.span(written.at);
                self.diagnostics.push(Diagnostic::new(Rule::RosterUnreadable, message).at(place).hint(hint));
                return None;
            }
        };
        if let Some((what, cure)) = roster::other_format(&bytes) {
            let message = format!("the roster `{name}` is no CSV file; it looks like {what}");
            let place = self.manifest.span(written.at);
            self.diagnostics.push(Diagnostic::new(Rule::RosterUnreadable, message).at(place).hint(cure));
            return None;
        }
        let source = Arc::new(Source::new(name, roster::decode_text(&bytes, format.encoding)));
        let file = self.add_file(Arc::clone(&source), &path);
        Some(roster::read(&source, file, &format, &mut self.room, &mut self.diagnostics))
    }

    fn read_accommodations(&mut self) {
        let sessions = std::mem::take(&mut self.manifest.sessions);
        for (name, session) in sessions.iter() {
            if let Some(file) = &session.accommodations {
                let day = self.manifest.span(session.start.at).text().to_owned();
                let found = self.read_accommodations_of(file, day.trim_matches(['"', '\'']));
                self.manifest.accommodations.extend(found.map(|found| (name.value.clone(), found)));
            }
        }
        self.manifest.sessions = sessions;
    }

    /// A file that is not there, or not for whoever looks, is no mistake of the manifest's.
    fn read_accommodations_of(&mut self, written: &Spanned<FilePath>, day: &str) -> Option<Accommodations> {
        let path = self.manifest.path(written);
        let place = self.manifest.span(written.at);
        let is_disk = !matches!(self.files, Files::Memory(_));
        let misplaced = is_disk.then(|| accommodations::misplaced(&path, &self.manifest.folder)).flatten();
        if let Some((message, hint)) = misplaced {
            self.diagnostics.push(Diagnostic::new(Rule::Accommodations, message).at(place).hint(hint));
            return None;
        }
        let name = path.display().to_string();
        let bytes = match files::read_bytes(self.files, &path, &name, &mut self.budget, &mut self.diagnostics) {
            Ok(bytes) => bytes?,
            Err(error) => return Some(Accommodations::Unread { why: format!("{name} cannot be: {error}") }),
        };
        let text = accommodations::text(&bytes);
        let source = Arc::new(Source::new(name, accommodations::masked(&text)));
        let file = self.add_file(Arc::clone(&source), &path);
        Some(Accommodations::Lines(accommodations::read(&text, &source, file, day, &mut self.diagnostics)))
    }

    fn look_at_images(&mut self) {
        let look = |path: &Path, is_summed: bool| match self.files {
            Files::Disk | Files::Kept(_) if is_summed => images::look(path, Checksum::Compute(self.checksums)),
            Files::Disk | Files::Kept(_) => images::look(path, Checksum::Skip),
            Files::Memory(_) => ImageFacts::OutOfSight,
        };
        let wanted = self.manifest.images_wanted();
        self.manifest.images =
            wanted.into_iter().map(|(path, is_summed)| (path.clone(), look(&path, is_summed))).collect();
    }
}

/// Takes every entry out whose name stands before it already: what it is, the first place, the second.
fn take_doubles<K: Eq + Hash + Clone, V>(named: &mut Named<K, V>, what: &'static str) -> Vec<(&'static str, At, At)> {
    let mut first: HashMap<K, At> = HashMap::with_capacity(named.0.len());
    let mut doubles = Vec::new();
    named.0.retain(|entry| match first.get(&entry.key.value) {
        Some(at) => {
            doubles.push((what, *at, entry.key.at));
            false
        }
        None => {
            first.insert(entry.key.value.clone(), entry.key.at);
            true
        }
    });
    doubles
}

/// Paths in backticks, few of them, with the verb in its number; `None` where there are none.
fn some_paths(paths: &[PathBuf], one: &'static str, several: &'static str) -> Option<(String, &'static str)> {
    const SHOWN: usize = 4;
    let mut names: Vec<String> = paths.iter().take(SHOWN).map(|path| format!("`{}`", path.display())).collect();
    if paths.len() > SHOWN {
        names.push(format!("{} more", paths.len() - SHOWN));
    }
    let (last, before) = names.split_last()?;
    let verb = if before.is_empty() { one } else { several };
    let text = if before.is_empty() { last.clone() } else { format!("{} and {last}", before.join(", ")) };
    Some((text, verb))
}

/// What a file that looks like a manifest was to be called: `lab.yaml` for `lab.yaml.txt`.
fn meant_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let name = name.trim_start_matches('#');
    path.with_file_name(format!("{}.yaml", name.split('.').next().unwrap_or_default()))
}
