//! What is kept of people: who asked for what, and that it is only ever added to.

use rusqlite::Connection;

use crate::sandbox::Sandbox;
use crate::{Small, ask, must};

/// A lab that is applied.
fn applied() -> Sandbox {
    let sandbox = Sandbox::new("/dev/shm", None);
    must(&sandbox, "labwright --site ../site.yaml state init && labwright --site ../site.yaml apply --yes");
    sandbox
}

/// The audit without its numbers and times.
fn acts(sandbox: &Sandbox, of: &str) -> Vec<String> {
    let table =
        must(sandbox, &format!("labwright --site ../site.yaml history {of} -o csv | tail -n +2 | cut -d, -f3,5-"));
    table.lines().map(str::to_owned).collect()
}

#[test]
fn who_asked_for_what_is_kept_also_where_it_was_refused() {
    let sandbox = applied();
    let run = |line: &str| must(&sandbox, &format!("labwright --site ../site.yaml {line}"));
    run("vm derive base --name mine --owner ada");
    run("freeze --why \"ada's exam\"");
    let line = "labwright --site ../site.yaml vm delete ada/mine";
    assert_eq!(ask(&sandbox, line).0, Some(4));
    assert_eq!(ask(&sandbox, "labwright --site ../site.yaml vm derive base --name new --owner bea").0, Some(4));
    assert_eq!(
        acts(&sandbox, "--vm ada/mine"),
        [
            "root,vm derive --name --owner,vm/ada/mine,3: \"1 done, 0 failed, 0 skipped\"",
            "root,vm derive --name --owner,vm/ada/mine,2: \"1 done, 0 failed, 0 skipped\"",
        ]
        .map(|line| line.replace("3: \"", "\"3: ").replace("2: \"", "\"2: "))
    );
    let all = acts(&sandbox, "--audit");
    assert_eq!(all[0], "root,vm derive --name --owner,,refused: frozen");
    assert_eq!(all[1], "root,vm delete,,refused: frozen");
    assert!(all[2].starts_with("root,freeze --why,lab/course,"), "{all:?}");
    assert!(!all.concat().contains("exam"), "no word that somebody typed: {all:?}");
    // What was done to vms of a person is theirs to ask about; others' is not in it.
    let of_ada = acts(&sandbox, "--user ada");
    assert_eq!(of_ada.len(), 3, "two for a vm of their own, and the apply that made the written one: {of_ada:?}");
    assert!(acts(&sandbox, "--user bea").iter().all(|line| !line.contains("ada/mine")));
    let json = run("history --vm ada-work -o json");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["who"]["login"], &json[0]["who"]["uid"]), (&"root".into(), &0.into()));
    assert!(json[0]["via"].is_string() && json[0]["verdict"] == "begun", "{json}");
}

#[test]
fn the_audit_is_only_ever_added_to() {
    let sandbox = applied();
    let state = Connection::open(sandbox.path("site/state.db")).unwrap();
    for line in [
        "UPDATE audit SET actor = 'x'",
        "DELETE FROM audit",
        "DELETE FROM audit_names",
        "UPDATE audit_names SET name = 'x'",
        "UPDATE audit_names SET owner = 'x' WHERE owner IS NOT NULL",
    ] {
        let refused = state.execute(line, []).unwrap_err().to_string();
        assert!(refused.contains("only ever added to"), "{line}: {refused}");
    }
    let names: String =
        state.query_row("SELECT group_concat(about || asked || verdict) FROM audit", [], |row| row.get(0)).unwrap();
    assert!(!names.contains("ada") && !names.contains("root"), "people and vms stand in it as numbers: {names}");
    // What is older than the site keeps goes, with the names that nothing else needs.
    state
        .execute_batch(
            "INSERT INTO audit_names (id, kind, name) VALUES ('0123', 'person', 'zoe');
             INSERT INTO audit (at, version, actor, via, asked, about, verdict)
             VALUES ('2020-01-01T08:00:00Z', 1, '0123', 'new', '{\"command\":\"plan\"}', '[{\"comet\":\"1\"}]', '{\"verdict\":\"odd\"}')",
        )
        .unwrap();
    assert_eq!(acts(&sandbox, "--user zoe"), ["zoe,plan,,a newer labwright's"]);
    let kept = acts(&sandbox, "--user ada");
    must(&sandbox, "echo 'audit: 30d' >>../site.yaml && labwright --site ../site.yaml purge");
    let zoe: i64 =
        state.query_row("SELECT COUNT(*) FROM audit_names WHERE name = 'zoe'", [], |row| row.get(0)).unwrap();
    assert_eq!(zoe, 0);
    assert_eq!(acts(&sandbox, "--user ada"), kept);
}

/// A state of the release before, which had no audit.
#[test]
fn an_older_state_gets_an_audit() {
    let sandbox = applied();
    let state = Connection::open(sandbox.path("site/state.db")).unwrap();
    state
        .execute_batch("DROP TABLE audit; DROP TABLE audit_names; DROP TABLE audit_gate; PRAGMA user_version = 5")
        .unwrap();
    drop(state);
    must(&sandbox, "labwright --site ../site.yaml vm derive base --name mine --owner ada");
    assert_eq!(acts(&sandbox, "--user ada").len(), 2);
    assert!(sandbox.path("site/state.db.v5").exists(), "the older file is kept");
    assert_eq!(must(&sandbox, "labwright --site ../site.yaml history -o name"), "3\n2\n1\n");
    must(&sandbox, "labwright --site ../site.yaml state check");
}

/// Looking at a guest leaves no trace but this one.
#[test]
fn what_cannot_be_written_down_is_done_for_root_alone() {
    let small = Small::new("4m");
    small.run("labwright --site ../site.yaml apply --yes");
    let nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups";
    let look = "labwright --site ../site.yaml vm screen ada-work -o /dev/null";
    let (code, said) = small.ask(&format!("{nobody} {look}"));
    assert!(code == Some(4) && said.contains("who asked cannot be written down; nothing was done"), "{said}");
    small.run("mount -o remount,ro ../small");
    let (code, said) = small.ask(look);
    assert!(code == Some(1) && said.contains("is not running"), "{said}");
    assert!(said.contains("warning: this is done, and it is not in the audit that you asked for it"), "{said}");
    small.run("mount -o remount,rw ../small");
    let (_, said) = small.ask(look);
    assert!(!said.contains("warning"), "{said}");
    let acts = small.run("labwright --site ../site.yaml history --vm ada-work -o csv | grep -c 'vm screen'");
    assert_eq!(acts.trim(), "1");
}

/// The state names everybody: root's, the service account's group looks, and copies are whose they are.
#[test]
fn nobody_else_reads_the_state() {
    let sandbox = applied();
    must(&sandbox, "labwright --site ../site.yaml state backup ../copy.db");
    let group = must(&sandbox, "id -gn $(sed -n 's/^service_user: *//p' ../site.yaml)");
    let group = group.trim();
    assert_eq!(must(&sandbox, "stat -c '%a %G' ../site/state.db ../copy.db"), format!("640 {group}\n600 root\n"));
    // One that an older program left open to all is closed by the next command.
    must(&sandbox, "chmod 644 ../site/state.db && chgrp root ../site/state.db && labwright --site ../site.yaml freeze");
    assert_eq!(must(&sandbox, "stat -c '%a %G' ../site/state.db"), format!("640 {group}\n"));
    let stranger = "setpriv --reuid=54321 --regid=54321 --clear-groups labwright --site ../site.yaml";
    assert_ne!(ask(&sandbox, &format!("{stranger} history")).0, Some(0));
    // What says when the file was last read in full names nobody.
    let open = "find ../site ../copy.db -type f -perm /007 ! -name state.db.checked ! -path '*/scheduler/*'";
    assert_eq!(must(&sandbox, &format!("{open} ! -path '*/templates/*'")), "");
}
