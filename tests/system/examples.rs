//! Every example that says on top that it runs, run: one guest of each, side by side as labs of one site, so that all that
//! use the predefined vm group share it. What the others need first, they say on top: `tests/manifests.rs` sees to that.

use std::path::{Path, PathBuf};

use labwright::model::lab::PowerState;
use labwright::model::site::Site;

use crate::lab::Lab;
use crate::world::{console_at, template, text, tool};

/// The line on top of an example that runs with nothing more.
const RUNS: &str = "\n# Needs an image: `labs/quickstart/make-template examples/images` makes a small one.\n";

/// What the guests of all examples would fill if each touched its last byte; none does.
const MEMORY: &str = "256G";

fn runnable(examples: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path());
    let runs = |folder: &PathBuf| std::fs::read_to_string(folder.join("lab.yaml")).is_ok_and(|lab| lab.contains(RUNS));
    let mut folders: Vec<PathBuf> = folders.filter(runs).collect();
    folders.sort();
    folders
}

/// One vm that its manifest keeps running, if there is one.
fn a_vm(example: &Path) -> String {
    let site = Site::embedded(example, 1 << 20, 64).context();
    let (desired, _) = labwright::control::manifests::desired(example, &site).unwrap();
    let vm = desired.vms.iter().max_by_key(|(_, vm)| vm.state == PowerState::Running);
    vm.expect("an example that runs has a vm").0.to_string()
}

#[test]
fn every_example_that_runs_has_a_guest_that_answers() {
    let fill = |folder: &Path| {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        tool("cp", &["-r", &format!("{}/.", text(&examples)), &text(folder)]);
        std::fs::create_dir_all(folder.join("images")).unwrap();
        std::fs::copy(template(), folder.join("images/template.qcow2")).unwrap();
    };
    let lab = Lab::prepared(&format!(", slots: 64, memory: {MEMORY}"), fill);
    // The same people have a vm in several of them.
    let site = std::fs::read_to_string(&lab.site).unwrap();
    std::fs::write(&lab.site, site + "limits: { running_vms: 64 }\n").unwrap();
    let examples = runnable(&lab.folder);
    assert!(examples.len() >= 10, "{examples:?}");
    let folders: Vec<String> = examples.iter().map(|example| text(example)).collect();
    let named = folders.iter().flat_map(|folder| ["--lab", folder]);
    lab.must(&["host", "setup"].into_iter().chain(named).collect::<Vec<_>>());

    let mut started = Vec::new();
    for (example, folder) in examples.iter().zip(&folders) {
        let vm = a_vm(example);
        lab.must(&["apply", folder, "--yes", "--target", &format!("vm/{vm}")]);
        lab.must(&["vm", "start", &vm, "--yes", "--lab", folder]);
        started.push((folder, vm));
    }
    for (folder, vm) in started {
        lab.must(&["vm", "start", &vm, "--yes", "--wait", "--lab", folder]);
        let mapping = lab.mapping_in(folder, &vm);
        let (ip, tap) = (mapping["ip"].as_str().unwrap(), mapping["tap"].as_str().unwrap());
        let (_, addresses) = console_at(tap).run("ip -4 -o addr show eth0");
        assert!(addresses.contains(&format!("inet {ip}/")), "{folder}: {vm} has {addresses}, not {ip}");
    }
    for folder in &folders {
        lab.must(&["destroy", folder, "--yes"]);
    }
}
