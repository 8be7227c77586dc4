//! What people do by the daemon beside their vms' power and whole labs: CDs in drives, templates that are installed and published,
//! disks that were set aside. Owners of a lab do it for the lab, students with what is theirs.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::life::cd;
use crate::owners::{folder_of, served};
use crate::serve::Served;
use crate::world::{text, wait_until};

const COURSE: &str = "lab: course
user_groups:
  crew: { members: [doraz] }
vm_groups:
  own: { ip_range: 192.168.107.2-192.168.107.20, gateway: 192.168.107.1, bridge: vbr7 }
templates:
  tiny: { owner: eva, vm_group: own, disks: [{ image: IMAGES/tiny.qcow2 }], memory: 128M }
  bare: { owner: eva, vm_group: own, disks: [{ size: 64M }], memory: 128M }
permissions:
  - { to: { group: crew }, on: { template: tiny }, allow: [derive] }
";

/// The course, applied by its owner, with a CD that only root can change.
fn course() -> (Served, PathBuf) {
    let served = served();
    let at = text(&folder_of(&served, "eva", COURSE));
    served.lab.must(&["host", "setup", "--lab", &at]);
    let (said, code) = served.says("eva", &format!("apply {at} --yes"));
    assert!(code == 0 && said.contains("0 failed"), "{said}");
    let images = served.lab.world.folder.path().join("images");
    std::fs::write(images.join("tools.iso"), [vec![0; 16 * 2048 + 1], b"CD001".to_vec(), vec![0; 2048]].concat())
        .unwrap();
    (served, images)
}

fn of_course(served: &Served, who: &str, line: &str) -> (String, i32) {
    served.says(who, &format!("{line} --lab course"))
}

/// What the latest run of a vm was given.
fn latest_spec(served: &Served) -> String {
    let runs = std::fs::read_dir(served.lab.world.folder.path().join("site/runs")).unwrap();
    let specs = runs.map(|run| run.unwrap().path().join("spec.json")).filter(|spec| spec.exists());
    let written = |spec: &PathBuf| spec.metadata().unwrap().modified().unwrap();
    std::fs::read_to_string(specs.max_by_key(written).unwrap()).unwrap()
}

fn is_off(served: &Served, vm: &str) -> bool {
    served.lab.must(&["get", "vms", vm, "-o", "json", "--lab", &text(&home(served))]).contains("\"state\": \"off\"")
}

fn home(served: &Served) -> PathBuf {
    served.lab.world.folder.path().join("home-eva/course")
}

#[test]
fn a_cd_lies_in_a_drive_and_comes_from_where_only_root_writes() {
    let (served, images) = course();
    let says = |who: &str, line: &str| of_course(&served, who, &line.replace("IMAGES", &text(&images)));
    assert_eq!(says("doraz", "vm derive tiny --name mine").1, 0);
    no_other_cd(&served, &images);

    let (said, code) = says("doraz", "vm set doraz/mine --cdrom IMAGES/tools.iso");
    assert!(code == 0 && said.contains("1 to update"), "{said}");
    assert_eq!(says("doraz", "vm start doraz/mine --wait").1, 0);
    let spec = latest_spec(&served);
    assert!(spec.contains(&format!("\"cdrom\":\"{}/tools.iso\"", text(&images))), "{spec}");
    let (said, code) = says("doraz", "vm set doraz/mine --eject");
    assert!(code == 0 && said.contains("take effect at its next start"), "{said}");
    assert_eq!(says("doraz", "vm restart doraz/mine").1, 0);
    wait_until("it runs without", || latest_spec(&served).contains("\"cdrom\":null"));

    let (said, code) = says("doraz", "vm collect doraz/mine -o x");
    assert!(code == 4 && said.contains("`sudo labwright vm collect doraz/mine -o FOLDER"), "{said}");
}

/// Root opens no file for anybody, and says of none whether it is there.
fn no_other_cd(served: &Served, images: &Path) {
    let outside = images.with_file_name("outside.iso");
    std::fs::copy(images.join("tools.iso"), &outside).unwrap();
    symlink(&outside, images.join("link.iso")).unwrap();
    symlink(outside.parent().unwrap(), images.join("folder")).unwrap();
    for (name, mode) in [("open.iso", 0o666), ("shared/a.iso", 0o644)] {
        let file = images.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::copy(&outside, &file).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
    }
    std::fs::set_permissions(images.join("shared"), PermissionsExt::from_mode(0o777)).unwrap();
    let (no_file, of_others) = ("is no file below the image roots of the lab", "others than root can change");
    for (file, told) in [
        (text(&outside), no_file),
        ("/etc/shadow".to_owned(), no_file),
        ("/etc/none".to_owned(), no_file),
        (text(&images.join("link.iso")), no_file),
        (text(&images.join("folder/outside.iso")), no_file),
        (text(&images.join("none.iso")), no_file),
        (text(&images.join("open.iso")), of_others),
        (text(&images.join("shared/a.iso")), of_others),
        (text(&images.join("tiny.qcow2")), "is no image of a CD"),
    ] {
        // As the daemon is asked, whatever a client makes of the path; of the lab's owner it takes no other file.
        for who in ["doraz", "eva"] {
            let body = format!("{{\"cdrom\":\"{file}\"}}");
            let (status, said) = served.raw(who, "POST /v1/labs/course/vms/doraz%2Fmine/edit", &body);
            assert!(status.starts_with("40") && said.contains(told), "{who}: {file}: {status} {said}");
        }
        let body = format!("{{\"cdrom\":\"{file}\"}}");
        let (status, said) = served.raw("eva", "POST /v1/labs/course/templates/bare/install", &body);
        assert!(status.starts_with("40") && said.contains(told), "{file}: {status} {said}");
    }
    assert_eq!(served.says("eva", "get claims -o name --lab course").0.lines().count(), 1, "nothing came of it");
    let tools = format!("{{\"cdrom\":\"{}\"}}", text(&images.join("tools.iso")));
    let (status, said) = served.raw("badmin", "POST /v1/labs/course/vms/doraz%2Fmine/edit", &tools);
    assert!(status == "404" && !said.contains("iso"), "{status} {said}");
    // A disk that was made from a template is not installed, and a CD is for a start.
    for (wanted, told) in [("start", "so there is nothing to install"), ("stop", "a CD is for a start")] {
        let body = format!("{{\"wanted\":\"{wanted}\",{}", &tools[1..]);
        let (status, said) = served.raw("doraz", "POST /v1/labs/course/vms/doraz%2Fmine/power", &body);
        assert!(status.starts_with("40") && said.contains(told), "{status} {said}");
    }
}

#[test]
fn a_template_is_installed_published_and_updated_by_its_owner() {
    let (served, images) = course();
    std::fs::copy(cd(&served.lab), images.join("tools.iso")).unwrap();
    let says = |who: &str, line: &str| of_course(&served, who, &line.replace("IMAGES", &text(&images)));
    let done = |who: &str, line: &str| {
        let (said, code) = says(who, line);
        assert_eq!(code, 0, "{who}: {line}: {said}");
        said
    };
    for line in ["template install bare --cdrom IMAGES/tools.iso", "template publish eva/bare --as bare"] {
        let (said, code) = says("doraz", line);
        assert!(code != 0 && (said.contains("that you may know of") || said.contains("has no vm")), "{line}: {said}");
    }
    let said = done("eva", "template install bare --cdrom IMAGES/tools.iso --isolate");
    assert!(said.contains("next: `labwright vm vnc eva/bare`"), "{said}");
    assert!(latest_spec(&served).contains("\"installs\":true"), "{}", latest_spec(&served));
    let (said, code) = says("eva", "template publish eva/bare --as bare");
    assert!(code == 4 && said.contains("vm `eva/bare` is not off; nothing was changed"), "{code} {said}");
    wait_until("it has booted from the CD", || {
        says("eva", "get vms eva/bare -o json").0.contains("\"state\": \"ready\"")
    });
    done("eva", "vm stop eva/bare");
    wait_until("it is off", || is_off(&served, "eva/bare"));
    let said = done("eva", "template publish eva/bare --as bare --note first");
    assert!(said.contains("version 1 of template bare is published of eva/bare"), "{said}");
    done("eva", "vm derive bare --name old");
    done("eva", "template publish eva/bare --as bare");

    let versions = done("eva", "template versions bare -o json");
    let versions: serde_json::Value = serde_json::from_str(&versions).unwrap();
    assert_eq!((&versions[0]["note"], &versions[0]["vms"]), (&"first".into(), &serde_json::json!(["eva/old"])));
    assert!(done("eva", "template tree bare").contains("version 2, the latest, of vm eva/bare"));
    let of_student = done("doraz", "template versions -o json");
    assert!(of_student.contains("\"template\": \"tiny\"") && !of_student.contains("bare"), "{of_student}");
    assert!(!of_student.contains(&text(&images)) && !of_student.contains("site/"), "no places: {of_student}");

    let (said, code) = says("eva", "template update bare");
    assert!(code == 4 && said.contains("1 vm stand on an older version of bare: eva/old"), "{said}");
    done("eva", "template update bare --yes");
    let said = done("eva", "template update bare --yes");
    assert!(said.contains("no vm that is meant stands on an older version"), "{said}");
    let versions: serde_json::Value = serde_json::from_str(&done("eva", "template versions bare -o json")).unwrap();
    assert_eq!(versions[1]["vms"], serde_json::json!(["eva/old"]));
}

#[test]
fn disks_that_were_set_aside_are_their_owners_to_have_back() {
    let (served, _) = course();
    let done = |who: &str, line: &str| {
        let (said, code) = of_course(&served, who, line);
        assert_eq!(code, 0, "{who}: {line}: {said}");
        said
    };
    done("doraz", "vm derive tiny --name mine");
    done("doraz", "vm reimage doraz/mine");
    let aside = |who: &str| done(who, "get aside -o json");
    let of_student: serde_json::Value = serde_json::from_str(&aside("doraz")).unwrap();
    assert_eq!((&of_student[0]["vm"], &of_student[0]["by"]), (&"doraz/mine".into(), &serde_json::Value::Null));
    assert!(aside("eva").contains("doraz/mine"), "the lab is hers");
    // Of whom the lab knows nothing, and who knows of it and not of the vm.
    for who in ["badmin", "nobody at all"] {
        let [there, not_there] = ["mine", "none"].map(|name| {
            let line = format!("POST /v1/labs/course/vms/doraz%2F{name}/restore");
            let (status, said) = served.raw(who, &line, "{}");
            (status, said.replace(&format!("doraz/{name}"), "VM"))
        });
        assert_eq!(there, not_there, "{who}");
        assert_eq!(there.0, "404", "{who}");
    }
    let (said, code) = of_course(&served, "doraz", "restore doraz/mine --as then");
    assert!(code == 4 && said.contains("`sudo labwright restore doraz/mine --as then"), "{said}");
    let said = done("doraz", "restore doraz/mine");
    assert!(said.contains("is back in its place") && said.contains("has what the vm had until now"), "{said}");

    let (said, code) = of_course(&served, "doraz", "hold doraz/mine --why mine");
    assert!(code == 4 && said.contains("that you may plan and apply"), "{said}");
    let said = done("eva", "hold doraz/mine --until 2098-01-12 --why appeal");
    assert!(said.contains("no purge deletes a disk of vm/doraz/mine before 2098-01-12 is over"), "{said}");
    assert!(aside("eva").contains("held until 2098-01-12: appeal"));
    done("eva", "hold doraz/mine --release");
    let (said, code) = of_course(&served, "eva", "hold doraz/mine --release");
    assert!(code == 1 && said.contains("are not held; nothing was changed"), "{said}");

    // One that has left is back when it is made again, which an apply does: that is for the lab's owner.
    done("doraz", "vm delete doraz/mine");
    let (said, code) = of_course(&served, "doraz", "restore doraz/mine --set 1");
    assert!(code != 0 && said.contains("that you may know of"), "{said}");
    assert_eq!(of_course(&served, "eva", "restore doraz/mine").1, 4, "it has two sets");
}
