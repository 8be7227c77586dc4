//! Transcripts of the real program: what a person types, and all that comes back. Each case is a folder of `tests/cli/`:
//!
//! ```text
//! command    lines of shell, run one after the other in the lab's folder
//! expected   golden: after each line what it printed, and its exit code where that is not 0
//! lab/       files that are laid over those of `tests/cli/lab`; may be left out
//! ```
//!
//! `UPDATE=1 cargo test --test cli` writes `expected` anew; `git diff` then shows what changed for users. The cases run as
//! root, since `apply` does, and read nothing of the person who runs them: no environment, no home, no settings.

#[path = "cli/sandbox.rs"]
mod sandbox;
#[path = "cli/transcript.rs"]
mod transcript;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use sandbox::Sandbox;
use transcript::{transcript, without_durations};

macro_rules! cases {
    ($($name:ident)*) => {
        const CASES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { check(stringify!($name)); })*
    };
}

cases! {
    apply_by_a_student
    apply_edit_destroy
    apply_moved_plan
    apply_stale_plan
    apply_thought_over
    apply_unasked
    asks
    base_spoilt
    collect
    collect_candidates
    collect_hostile
    collect_kinds
    colours
    completions
    copied_folder
    export_run
    explain
    freeze
    get_listings
    get_nothing
    help
    history
    hold
    host_check_narrow
    image_derived
    image_from_the_web
    image_missing
    image_not_qcow2
    image_unusable
    import_disk
    import_job
    init
    invalid_manifest
    lab_broken
    lab_by_other_names
    lab_gone
    lab_unknown
    lock
    other_checkout
    own_vm
    plan_json
    plan_new_lab
    plan_of_a_class
    purge_keep
    purge_thought_over
    restore_as
    restore_several
    returning_student
    returning_unwritten
    scheduler_is_a_file
    session
    session_submissions
    service_user_missing
    state_corrupt
    state_gone
    state_init
    state_missing
    state_newer
    status_watch
    template_publish
    template_tree
    umask
    usage
    vm_changes
    vm_reimage
    vm_set
    vm_unknown
    vm_vnc
}

/// Namespaces of this case's thread and of all that it starts: a bridge that a case sets up is no other case's, nor the
/// machine's.
fn a_machine_of_its_own() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
        .expect("the cases need root, for namespaces of their own");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).unwrap();
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli")
}

fn check(name: &str) {
    let case = cases().join(name);
    let read = |file: &str| std::fs::read_to_string(case.join(file)).unwrap_or_default();
    let commands = read("command");
    assert!(!commands.trim().is_empty(), "{name}/command holds no command");
    a_machine_of_its_own();
    let sandbox = Sandbox::new("/tmp", Some(&case.join("lab")));
    let found: String = commands.lines().map(|line| transcript(&sandbox, line)).collect();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(case.join("expected"), found).unwrap();
        return;
    }
    let expected = read("expected");
    if found != expected {
        let diff =
            similar::TextDiff::from_lines(&expected, &found).unified_diff().header("expected", "found").to_string();
        panic!("{name} is not as expected; if that is right, run again with UPDATE=1\n{diff}");
    }
}

/// Every example is planned as it is, with an image where it looks for one.
#[test]
fn every_example_is_planned() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let sandbox = Sandbox::new("/tmp", Some(&examples));
    let image =
        "mkdir -p images && cp images/base.qcow2 images/template.qcow2 && labwright --site ../site.yaml state init";
    assert!(sandbox.shell(image).status.success());
    let names = std::fs::read_dir(&examples).unwrap().map(|entry| entry.unwrap());
    let names = names.filter(|entry| entry.path().join("lab.yaml").exists());
    let wrong: Vec<String> = names
        .map(|entry| entry.file_name().into_string().unwrap())
        .map(|name| transcript(&sandbox, &format!("labwright --site ../site.yaml plan {name}")))
        .filter(|text| !text.contains("\nplan: ") || text.contains("--- exit") || text.contains("error"))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn every_folder_is_a_case() {
    let folders = std::fs::read_dir(cases()).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    let folders: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    let mut known: BTreeSet<String> = CASES.iter().map(|&name| name.to_owned()).collect();
    known.insert("lab".to_owned());
    assert_eq!(folders, known, "a folder without a line in `cases!`, or a line without its folder");
    for name in CASES {
        let files: BTreeSet<_> =
            std::fs::read_dir(cases().join(name)).unwrap().map(|f| f.unwrap().file_name()).collect();
        let whole = ["command", "expected"].iter().all(|&file| files.contains(std::ffi::OsStr::new(file)));
        let strange = files.iter().find(|&file| file != "command" && file != "expected" && file != "lab");
        assert!(whole && strange.is_none(), "{name} needs `command` and `expected`, and has {files:?}");
    }
}

#[test]
fn a_duration_has_one_mark_however_long_it_was() {
    let text = without_durations("2 disks made (0.4 s)\n1 template published (12.3 s) (in all)\n(10 s) (1.25 s) (");
    assert_eq!(text, "2 disks made (_._ s)\n1 template published (_._ s) (in all)\n(10 s) (1.25 s) (");
}

#[test]
fn every_command_shows_its_help() {
    let sandbox = Sandbox::new("/tmp", None);
    let shown = std::fs::read_to_string(cases().join("help/command")).unwrap();
    let mut commands = vec![String::new()];
    while let Some(command) = commands.pop() {
        let line = format!("labwright{command} --help");
        assert!(shown.lines().any(|other| other == line), "`{line}` is missing in help/command");
        let help = transcript(&sandbox, &line);
        let names = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest).lines();
        let names = names.take_while(|line| !line.trim().is_empty()).filter(|line| line.starts_with("  "));
        let names = names.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        commands.extend(names.map(|name| format!("{command} {name}")));
    }
}
