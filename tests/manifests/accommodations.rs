//! The file with what people need of a session's time: read where it may be, refused where it must not, and never shown.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use labwright::manifest::load;
use labwright::model::accommodation::AccommodationFile;
use labwright::model::diagnostic::Diagnostics;
use labwright::model::lab::Desired;
use labwright::report::diagnostics;
use labwright::resolve::resolve;

const LAB: &str = "lab: exam
templates: { gsr: { owner: badmin, disks: [{ size: 5G }] } }
user_groups: { all: { members: [ana, ion, eva] } }
vms: { a: { derive: gsr, for_each: all, isolated: true } }
sessions:
  final: { vms: [a], start: \"2027-01-12T09:00[Europe/Bucharest]\", duration: 3h, accommodations: ../needs.csv }
";

struct Checked {
    diagnostics: Diagnostics,
    desired: Option<Desired>,
}

/// The lab with this file, of this mode, beside its folder.
fn checked(text: &str, mode: u32) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    let lab = folder.path().join("lab");
    std::fs::create_dir(&lab).unwrap();
    std::fs::write(lab.join("lab.yaml"), LAB).unwrap();
    let needs = folder.path().join("needs.csv");
    std::fs::write(&needs, text).unwrap();
    std::fs::set_permissions(&needs, std::fs::Permissions::from_mode(mode)).unwrap();
    look(&lab)
}

fn look(lab: &Path) -> Checked {
    let loaded = load(lab).unwrap();
    let resolved = resolve(&loaded.manifest, &crate::resolved::context());
    let mut diagnostics = loaded.diagnostics;
    diagnostics.append(resolved.diagnostics);
    Checked { diagnostics, desired: resolved.desired }
}

fn findings(checked: &Checked) -> Vec<String> {
    let text = diagnostics::human(&checked.diagnostics, false);
    for name in ["ana", "ion", "eva", "dan"] {
        // In a word of ours, three letters are nobody.
        assert!(text.split(|letter: char| !letter.is_alphanumeric()).all(|word| word != name), "{text}");
    }
    let place = |line: &str| line.split("needs.csv").nth(1).map(str::to_owned);
    let errors = text.lines().filter(|line| line.starts_with("error") || line.starts_with("warning[LW074"));
    errors.map(str::to_owned).zip(text.lines().filter_map(place)).map(|(what, at)| format!("{at} {what}")).collect()
}

#[test]
fn what_stands_in_it_is_read_as_it_is_written() {
    let read = |text: &str| {
        let checked = checked(text, 0o600);
        assert_eq!(findings(&checked), [""; 0], "{text}");
        let start = "2027-01-12T07:00Z".parse::<jiff::Timestamp>().unwrap();
        let desired = checked.desired.unwrap();
        let AccommodationFile::Read(people) = desired.accommodations["final"].clone() else { panic!("it is there") };
        let words = people.into_iter().map(|(user, of)| {
            let later = of.start.map(|own| (own.as_second() - start.as_second()) / 60);
            format!("{user} {:?} {:?} {later:?}", of.factor_permille, of.minutes)
        });
        words.collect::<Vec<_>>()
    };
    assert_eq!(
        read("user,factor,minutes,start\nana,1.25,,\nion,,30,10:30\n"),
        ["ana Some(1250) None None", "ion None Some(30) Some(90)"]
    );
    // As spreadsheets write it; a time in full counts in its own zone.
    assert_eq!(
        read("\u{feff}Login;Start;Minutes\r\nana;2027-01-12T08:00[UTC];\r\n\r\neva;;15\r\n"),
        ["ana None None Some(60)", "eva None Some(15) None"]
    );
}

#[test]
fn what_could_cost_somebody_their_time_is_refused() {
    let refused = |text: &str| findings(&checked(text, 0o600));
    let one = |text: &str, expected: &str| assert_eq!(refused(text), [expected], "{text}");
    one(
        "user,factor\nana,1.25\nion,25%\n",
        ":3:5 error[LW086]: `25%` is not a factor from 1 to 4: write `1.25` for a quarter more",
    );
    one("user,factor\nana,1,25\n", ":2:7 error[LW086]: the line has more fields than there are columns");
    one("user,minuts\nana,15\n", ":1:6 error[LW086]: this column is none that is read, or comes twice");
    one("user,minutes,minutes\nana,15,\n", ":1:14 error[LW086]: this column is none that is read, or comes twice");
    one("factor\n1.5\n", ":1:1 error[LW086]: the file has no column `user`, or more than one");
    one("user,minutes\nana,15\nana,30\n", ":3:1 error[LW086]: this user has a line already");
    one("user,minutes\nana,\n", ":2:1 error[LW086]: this line gives nothing");
    one("user,minutes\nana,-5\n", ":2:5 error[LW086]: `-5` is not a number of minutes up to 1440");
    one("user,start\nana,08:30\n", ":2:1 error[LW086]: an own start lies before that of session `final`");
    one(
        "user,minutes\ndan,15\n",
        ":2:1 warning[LW074]: somebody here has no vm in session `final`, so this can never matter",
    );
    assert_eq!(refused(""), [":1:1 error[LW086]: the file is empty"]);
}

#[test]
fn nobody_else_reads_it_and_nobody_misses_it() {
    let open = checked("user,minutes\nana,15\n", 0o640);
    let text = diagnostics::human(&open.diagnostics, false);
    assert!(text.contains("error[LW086]: others may read these accommodations: the file's mode is 640"), "{text}");
    // Where checks run it is not there; that is no finding, and no empty file.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("lab")).unwrap();
    std::fs::write(folder.path().join("lab/lab.yaml"), LAB).unwrap();
    let checked = look(&folder.path().join("lab"));
    assert_eq!(checked.diagnostics.list.len(), 0, "{}", diagnostics::human(&checked.diagnostics, false));
    let file = &checked.desired.unwrap().accommodations["final"];
    assert!(matches!(file, AccommodationFile::Unread { .. }), "{file:?}");
    // Below the top of the lab's repository it is for everybody who clones that.
    std::fs::create_dir(folder.path().join(".git")).unwrap();
    std::fs::write(folder.path().join("needs.csv"), "user,minutes\nana,15\n").unwrap();
    let text = diagnostics::human(&look(&folder.path().join("lab")).diagnostics, false);
    assert!(text.contains("error[LW086]: accommodations are nobody else's matter"), "{text}");
}
