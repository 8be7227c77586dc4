//! A start that its host could not take is tried again in the same job: no guest boots here.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use labwright::run::{Event, RunSpec, StopReason};
use nix::sys::signal::Signal;

use crate::world::{Run, World, wait_until};

/// An nft that fails this often before it is the host's own, in a folder that is searched first.
fn failing_nft(world: &World, times: u32) -> String {
    let folder = world.folder.path().join("bin");
    std::fs::create_dir(&folder).unwrap();
    let calls = folder.join("calls");
    let script = format!(
        "#!/bin/sh\necho >>{calls}\n[ $(wc -l <{calls}) -gt {times} ] || exit 1\nexec /usr/sbin/nft \"$@\"\n",
        calls = calls.display()
    );
    let nft = folder.join("nft");
    std::fs::write(&nft, script).unwrap();
    std::fs::set_permissions(&nft, Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

fn calls(world: &World) -> usize {
    std::fs::read_to_string(world.folder.path().join("bin/calls")).unwrap().lines().count()
}

fn start(world: &World, spec: RunSpec, path: &str) -> Run {
    world.start_by(spec, |folder: &Path| -> Command {
        let mut command = world.starter(folder);
        command.env("PATH", path);
        command
    })
}

/// What the report says of tries.
fn tries(run: &Run) -> Vec<String> {
    let told = run.events().into_iter().filter_map(|event| match event {
        Event::Warning { message } if message.contains("again") => Some(message),
        _ => None,
    });
    told.map(|message| message.split(':').next().unwrap().to_owned()).collect()
}

#[test]
fn a_start_that_its_host_cannot_take_is_tried_again_until_it_can() {
    let mut world = World::new();
    world.qemu.extra_args = vec!["-S".to_owned()];
    let spec = world.spec(2);
    let path = failing_nft(&world, 2);
    let mut run = start(&world, spec, &path);
    run.wait_for("it runs", |event| matches!(event, Event::Running { .. }));
    let expected = ["1", "2"].map(|n| format!("its host could not take it, and is tried again ({n} of 5)"));
    assert_eq!(tries(&run), expected);
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
    assert_eq!(run.leftovers(), Vec::<String>::new());
}

#[test]
fn a_start_is_given_up_after_the_fifth_try() {
    let mut world = World::new();
    let spec = world.spec(2);
    let path = failing_nft(&world, 1000);
    let mut run = start(&world, spec, &path);
    assert!(!run.end().success());
    assert_eq!((tries(&run).len(), calls(&world)), (4, 5));
    let last = run.events().pop();
    assert!(
        matches!(&last, Some(Event::Stopped { reason: StopReason::Failed { message }, .. }) if message.contains("nft")),
        "{last:?}"
    );
    assert_eq!(run.leftovers(), Vec::<String>::new());
}

#[test]
fn who_is_asked_to_stop_between_two_tries_stops() {
    let mut world = World::new();
    let spec = world.spec(2);
    let path = failing_nft(&world, 1000);
    let mut run = start(&world, spec, &path);
    wait_until("it has tried three times", || tries(&run).len() == 3);
    run.signal(Signal::SIGTERM);
    assert!(run.end().success());
    assert_eq!(run.events().pop(), Some(Event::Stopped { reason: StopReason::Asked, exit: None }));
    assert_eq!(calls(&world), 3, "a fourth try was made");
}
