//! Looks for what fits in one file system, within bounds: whoever made its folders may have made them endless.

use std::collections::BTreeSet;
use std::io;

use super::names::{below, written};
use super::read::Out;
use super::{DEPTH_MAX, FILE_BYTES_MAX, Left, NEWEST_MAX, Record};
use crate::model::file_pattern::fits;

/// Looks at what a name stands for.
pub(super) type Look<'a> = dyn Fn() -> Result<Found, String> + 'a;

/// What reading a file system comes down to. Paths are names with `/` between them; the top has none.
pub(super) trait FileSystem {
    /// Names in a folder, each with a way to look at it, until the callback has enough.
    fn list(&self, folder: &[u8], each: &mut dyn FnMut(&[u8], &Look<'_>) -> bool) -> Result<(), String>;

    /// The first so many bytes of a file.
    fn read(&self, file: &[u8], bytes_max: usize) -> Result<Vec<u8>, String>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    /// Seconds since 1970.
    pub(super) modified: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Folder,
    Link,
    Special,
}

/// A place in a file system: as it is there, and as it is written.
#[derive(Debug, Clone, Default)]
struct Place {
    path: Vec<u8>,
    written: String,
}

impl Place {
    fn below(&self, name: &[u8]) -> Option<Self> {
        // What reads FAT would take a stroke in a name for two names.
        let written = written(name).filter(|_| !name.contains(&b'/'))?;
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(name);
        Some(Self { path, written: below(&self.written, &written)? })
    }
}

/// The search through one file system.
pub(super) struct Walk<'a, 'o> {
    pub(super) files: &'a dyn FileSystem,
    pub(super) out: &'a mut Out<'o>,
    /// What was told already: two patterns may fit one file.
    pub(super) told: BTreeSet<String>,
}

/// Names that fit a step in one folder.
type Fitting = Vec<(Place, Found)>;

impl Walk<'_, '_> {
    /// Takes what fits a pattern, of which these steps are left.
    pub(super) fn take_fitting(&mut self, steps: &[String]) -> io::Result<()> {
        self.follow(&Place::default(), steps)
    }

    fn follow(&mut self, folder: &Place, steps: &[String]) -> io::Result<()> {
        let Some((step, rest)) = steps.split_first().filter(|_| !self.is_lost()) else { return Ok(()) };
        for (place, found) in self.fitting(folder, |name| fits(step, name))? {
            match found.kind {
                _ if rest.is_empty() => self.take(&place, &found, DEPTH_MAX)?,
                Kind::Folder => self.follow(&place, rest)?,
                Kind::Link => self.leave(&place, Left::Link)?,
                Kind::File | Kind::Special => {}
            }
        }
        Ok(())
    }

    /// What is in a folder and fits, by name. That not all of it could be seen is told.
    fn fitting(&mut self, folder: &Place, fits: impl Fn(&str) -> bool) -> io::Result<Fitting> {
        let (fitting, left) = self.seen(folder, fits);
        for (place, why) in left {
            self.leave(&place, why)?;
        }
        Ok(fitting)
    }

    /// The same, with what could not be seen.
    fn seen(&mut self, folder: &Place, fits: impl Fn(&str) -> bool) -> (Fitting, Vec<(Place, Left)>) {
        let (mut fitting, mut left) = (Vec::new(), Vec::new());
        let (looks, looks_max) = (&mut self.out.looks, self.out.looks_max);
        let listed = self.files.list(&folder.path, &mut |name, look| {
            *looks += 1;
            if *looks > looks_max {
                return false;
            }
            if name == b"." || name == b".." || !fits(&String::from_utf8_lossy(name)) {
                return true;
            }
            match (folder.below(name), look()) {
                (Some(place), Ok(found)) => fitting.push((place, found)),
                (Some(place), Err(error)) => left.push((place, Left::Broken { error })),
                (None, _) => left.push((folder.clone(), Left::Name)),
            }
            true
        });
        if *looks > looks_max {
            left.push((folder.clone(), Left::TooManyNames));
        }
        if let Err(error) = listed {
            left.push((folder.clone(), Left::Broken { error }));
        }
        fitting.sort_by(|(one, _), (other, _)| one.written.cmp(&other.written));
        (fitting, left)
    }

    fn take(&mut self, place: &Place, found: &Found, depth: usize) -> io::Result<()> {
        match found.kind {
            Kind::File => self.take_file(place, found),
            Kind::Link => self.leave(place, Left::Link),
            Kind::Special => self.leave(place, Left::Special),
            Kind::Folder if self.is_lost() => Ok(()),
            Kind::Folder if depth == 0 => self.leave(place, Left::TooDeep),
            Kind::Folder => {
                for (place, found) in self.fitting(place, |_| true)? {
                    self.take(&place, &found, depth - 1)?;
                }
                Ok(())
            }
        }
    }

    fn take_file(&mut self, place: &Place, found: &Found) -> io::Result<()> {
        if found.bytes > FILE_BYTES_MAX {
            return self.leave(place, Left::TooLarge { bytes: found.bytes });
        }
        if let Some(why) = self.out.refuses(found.bytes) {
            return self.leave(place, why);
        }
        if !self.told.insert(place.written.clone()) {
            return Ok(());
        }
        let bytes_max = usize::try_from(found.bytes).unwrap_or(usize::MAX);
        match self.files.read(&place.path, bytes_max) {
            Ok(content) => self.out.file(place.written.clone(), found.modified, &content),
            Err(error) => self.out.say(&Record::Left { path: place.written.clone(), why: Left::Broken { error } }),
        }
    }

    /// Whether it has looked at all that it may look at.
    fn is_lost(&self) -> bool {
        self.out.looks > self.out.looks_max
    }

    fn leave(&mut self, place: &Place, why: Left) -> io::Result<()> {
        // That something was not seen is told whatever else was.
        let is_unseen = matches!(why, Left::TooManyNames | Left::Broken { .. });
        if self.told.insert(place.written.clone()) && (is_unseen || self.out.may_tell()) {
            self.out.say(&Record::Left { path: place.written.clone(), why })?;
        }
        Ok(())
    }

    /// Every file, by folder.
    pub(super) fn tell_all(&mut self) -> io::Result<()> {
        let mut folders = vec![(Place::default(), 0)];
        while let Some((folder, depth)) = folders.pop().filter(|_| !self.is_lost()) {
            for (place, Found { kind, bytes, modified }) in self.fitting(&folder, |_| true)? {
                match kind {
                    Kind::File => self.out.say(&Record::Listed { path: place.written, bytes, modified })?,
                    Kind::Folder if depth < DEPTH_MAX => folders.push((place, depth + 1)),
                    Kind::Folder => self.leave(&place, Left::TooDeep)?,
                    Kind::Link | Kind::Special => {}
                }
            }
        }
        Ok(())
    }

    /// The files that were written last, in the homes where there are any.
    pub(super) fn tell_newest(&mut self) -> io::Result<()> {
        let top = Place::default();
        let homes = self.seen(&top, |name| name == "home" || name == "root").0;
        let mut folders: Vec<(Place, usize)> = homes.into_iter().map(|(place, _)| (place, 0)).collect();
        if folders.is_empty() {
            folders.push((top, 0));
        }
        let mut files = Vec::new();
        while let Some((folder, depth)) = folders.pop() {
            // What cannot be seen now was told when it was looked for.
            for (place, found) in self.seen(&folder, |_| true).0 {
                match found.kind {
                    Kind::File => files.push((found.modified, place.written, found.bytes)),
                    Kind::Folder if depth < DEPTH_MAX => folders.push((place, depth + 1)),
                    Kind::Folder | Kind::Link | Kind::Special => {}
                }
            }
        }
        files.sort_by(|one, other| other.cmp(one));
        for (modified, path, bytes) in files.into_iter().take(NEWEST_MAX) {
            self.out.say(&Record::Newest { path, bytes, modified })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::volumes::{DISK_BYTES_MAX, FILES_MAX, HearError, hear};

    /// Each folder has these in it, and itself again.
    struct Endless {
        folders: &'static [&'static str],
        files: usize,
        bytes: u64,
        reads: Cell<usize>,
    }

    impl FileSystem for Endless {
        fn list(&self, _: &[u8], each: &mut dyn FnMut(&[u8], &Look<'_>) -> bool) -> Result<(), String> {
            let found = |kind| move || Ok(Found { kind, bytes: self.bytes, modified: None });
            let goes_on = self.folders.iter().all(|name| each(name.as_bytes(), &found(Kind::Folder)));
            let _ = goes_on && (0..self.files).all(|n| each(format!("f{n}").as_bytes(), &found(Kind::File)));
            Ok(())
        }

        fn read(&self, _: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
            self.reads.set(self.reads.get() + 1);
            Ok(vec![0; bytes_max])
        }
    }

    /// What all files below `home` come to.
    fn left(folders: &'static [&'static str], files: usize, bytes: u64) -> (usize, BTreeSet<String>) {
        let files = Endless { folders, files, bytes, reads: Cell::new(0) };
        let mut answer = Vec::new();
        let mut out = Out::new(&mut answer);
        let mut walk = Walk { files: &files, out: &mut out, told: BTreeSet::new() };
        walk.take_fitting(&["home".to_owned()]).unwrap();
        walk.out.end().unwrap();
        drop(out);
        let mut why = BTreeSet::new();
        hear::<HearError>(&mut answer.as_slice(), &mut |record, content| {
            io::copy(content, &mut io::sink())?;
            if let Record::Left { why: left, .. } = record {
                why.insert(serde_json::to_value(left).unwrap()["kind"].to_string());
            }
            Ok(())
        })
        .unwrap();
        (files.reads.get(), why)
    }

    #[test]
    fn a_search_through_what_does_not_end_ends_and_says_so() {
        let words = |words: &[&str]| words.iter().map(|word| format!("\"{word}\"")).collect::<BTreeSet<_>>();
        assert_eq!(left(&["home"], 0, 0), (0, words(&["too_deep"])));
        assert_eq!(left(&["home", "a"], 0, 0), (0, words(&["too_deep", "too_many_names"])));
        let (reads, why) = left(&["home"], FILES_MAX, 1);
        assert_eq!((reads, why), (FILES_MAX, words(&["too_many_files", "too_many_names"])));
        let (reads, why) = left(&["home"], 10, FILE_BYTES_MAX);
        assert_eq!(reads as u64, DISK_BYTES_MAX / FILE_BYTES_MAX);
        assert!(why.contains("\"too_much\""), "{why:?}");
        assert_eq!(left(&["home"], 10, u64::MAX), (0, words(&["too_deep", "too_large"])));
    }
}
