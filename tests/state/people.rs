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
    // A number may have any letters of hex in a row, "ada" too.
    let is_named = ["\"ada", "ada-", "/ada", "root"].iter().any(|name| names.contains(name));
    assert!(!is_named, "people and vms stand in it as numbers: {names}");
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
    // Whatever a directory service calls somebody, no terminal is written over.
    state
        .execute("INSERT INTO audit_names (id, kind, name) VALUES ('4567', 'person', 'x' || char(27) || '[2J')", [])
        .unwrap();
    state
        .execute(
            "INSERT INTO audit (at, version, actor, via, asked, about, verdict)
             VALUES ('2020-01-01T08:00:00Z', 1, '4567', 'ssh', '{}', '[]', '{\"verdict\":\"begun\"}')",
            [],
        )
        .unwrap();
    for format in ["table", "csv", "json", "yaml", "wide"] {
        let shown = must(&sandbox, &format!("labwright --site ../site.yaml history --audit -o {format}"));
        assert!(shown.contains("[2J") && !shown.contains('\u{1b}'), "{format}: {shown}");
    }
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
        .execute_batch("DROP TABLE session_record; DROP TABLE submissions; DROP TABLE keeps; DROP TABLE roster; DROP TABLE audit; DROP TABLE audit_names; DROP TABLE audit_gate; ALTER TABLE disks DROP COLUMN instance; PRAGMA user_version = 5")
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
    assert!(code == Some(5) && said.contains("is not running"), "{said}");
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
    assert_eq!(acts(&sandbox, "--audit -n 1"), ["root,state backup,,let"], "it is known who has a copy");
    // One that an older program left open to all is closed by the next command.
    must(&sandbox, "chmod 644 ../site/state.db && chgrp root ../site/state.db && labwright --site ../site.yaml freeze");
    assert_eq!(must(&sandbox, "stat -c '%a %G' ../site/state.db"), format!("640 {group}\n"));
    let stranger = "setpriv --reuid=54321 --regid=54321 --clear-groups labwright --site ../site.yaml";
    assert_ne!(ask(&sandbox, &format!("{stranger} history")).0, Some(0));
    // What says when the file was last read in full names nobody.
    let open = "find ../site ../copy.db -type f -perm /007 ! -name state.db.checked ! -path '*/scheduler/*'";
    assert_eq!(must(&sandbox, &format!("{open} ! -path '*/templates/*'")), "");
}

/// Disks in full count with their size, others with what is written on them, and those that went count apart.
#[test]
fn nobody_stores_more_than_they_may() {
    let sandbox = Sandbox::new("/dev/shm", None);
    must(&sandbox, "qemu-img create -q -f qcow2 -o cluster_size=2M images/huge.qcow2 1E");
    must(&sandbox, "sed -i 's/^  students:/&\\n    limits: { storage: 3M }/' lab.yaml");
    let huge = "  huge: { owner: teacher, vm_group: room, disks: [{ image: images/huge.qcow2 }], memory: 256M }";
    must(&sandbox, &format!("sed -i 's|^vms:|{huge}\\n\\n&|' lab.yaml && labwright validate"));
    must(&sandbox, "labwright --site ../site.yaml state init && labwright --site ../site.yaml apply --yes");
    let derive = |words: &str| ask(&sandbox, &format!("labwright --site ../site.yaml vm derive {words}"));
    for name in ["one", "two"] {
        let (code, said) = derive(&format!("base --name {name} --owner ada --clone"));
        assert_eq!(code, Some(0), "{said}");
    }
    let (code, said) = derive("base --name three --owner ada --clone");
    assert!(code == Some(4) && said.contains("ada may store 3M: 2M are in use or to be, and 1M would come"), "{said}");
    assert!(said.contains("`labwright quota ada` shows it"), "{said}");
    assert!(!must(&sandbox, "labwright --site ../site.yaml get claims").contains("three"), "nothing is left of it");
    // The limit is the site's, and so is what is told: in another lab it is the number that refuses there.
    must(
        &sandbox,
        "cp -r . ../other && sed -i 's/^lab: course/lab: other/; s/10\\.1\\.0/10.2.0/g; s/vbr0/vbr2/' ../other/lab.yaml",
    );
    let there = "labwright --site ../site.yaml --color never";
    must(&sandbox, &format!("{there} apply ../other --yes"));
    let told = must(&sandbox, &format!("{there} quota ada --lab ../other -o csv | tail -1"));
    assert!(told.starts_with("ada,other,0 of 2,2M of 3M,0,"), "{told}");
    let (code, said) = ask(&sandbox, &format!("{there} vm derive base --name too --owner ada --clone --lab ../other"));
    assert!(code == Some(4) && said.contains("ada may store 3M: 2M are in use or to be, and 1M would come"), "{said}");
    // A disk of 1 EiB, of which nothing is written.
    let (code, said) = derive("huge --name huge --owner bea --clone");
    assert!(code == Some(4) && said.contains("1073741824G would come"), "{said}");
    let quota = |user: &str| must(&sandbox, &format!("labwright --site ../site.yaml quota {user} -o csv | tail -1"));
    assert_eq!(
        quota("ada").trim(),
        "ada,course,0 of 2,2M of 3M,0,\"base: derive 0, clone 1M (too much); huge: derive 0, clone 1073741824G (too much)\""
    );
    assert!(quota("bea").contains("base: derive 0, clone 1M; huge"), "{}", quota("bea"));
    let (code, said) = ask(&sandbox, "labwright --site ../site.yaml quota zed");
    assert!(code == Some(1) && said.contains("lab `course` has no user `zed`"), "{said}");
    // What is derived takes what is written on it, what is set aside counts apart, and root may mean more.
    assert_eq!(derive("base --name four --owner ada").0, Some(0));
    assert_eq!(derive("base --name three --owner ada --clone --allow vm/ada/three").0, Some(0));
    for name in ["one", "two"] {
        must(&sandbox, &format!("labwright --site ../site.yaml vm delete ada/{name}"));
    }
    assert!(quota("ada").starts_with("ada,course,0 of 2,1M of 3M,2M,"), "{}", quota("ada"));
    // Five at once, and room for one: another's clone counts from when it is begun.
    let derive = "labwright --site ../site.yaml vm derive base --name at-once-$n --owner ada --clone";
    must(&sandbox, &format!("for n in 1 2 3 4 5; do {derive} & done >/dev/null 2>&1; wait"));
    assert!(quota("ada").starts_with("ada,course,0 of 2,2M of 3M,2M,"), "{}", quota("ada"));
}

/// All that is known of one person and of nobody else; and then nothing of them, in no byte.
#[test]
fn a_person_is_shown_what_is_known_and_is_forgotten() {
    let sandbox = Sandbox::new("/dev/shm", None);
    let run = |line: &str| must(&sandbox, &format!("labwright --site ../site.yaml {line}"));
    let roster = "Username,Full name,Matrikelnummer\nlovelace,Augusta King,4711815\nbabbage,Charles B.,4711816\n";
    std::fs::write(sandbox.path("lab/students.csv"), roster).unwrap();
    run("state init");
    assert!(!run("apply --yes").contains("Augusta"), "a plan shows no names");
    must(&sandbox, "labwright --site ../site.yaml plan -o ../plan && ! grep -a 'Augusta\\|4711815' ../plan");
    let users = run("get users -o csv");
    assert!(users.contains("lovelace,Augusta King,4711815,students"), "{users}");
    run("vm derive base --name mine --owner lovelace");
    run("permission grant babbage run vm/lovelace/mine");
    run("freeze --why \"lovelace's thesis\"");
    run("thaw");
    assert_eq!(ask(&sandbox, "labwright --site ../site.yaml vm screen lovelace-work -o x.png").0, Some(5));

    run("privacy export lovelace -o ../all.json");
    assert_eq!(must(&sandbox, "stat -c '%a %u' ../all.json"), "600 0\n");
    let all = std::fs::read_to_string(sandbox.path("all.json")).unwrap();
    for word in ["4711815", "lovelace-work", "lovelace/mine", "disk-0.qcow2", "vm screen", "vm derive"] {
        assert!(all.contains(word), "{word} is missing:\n{all}");
    }
    assert!(!all.contains("babbage") && !all.contains("4711816"), "somebody else is in it:\n{all}");
    let (code, said) = ask(&sandbox, "labwright --site ../site.yaml privacy export lovelace -o ../all.json");
    assert!(code == Some(1) && said.contains("what is there is left as it is"), "{said}");
    std::fs::remove_file(sandbox.path("all.json")).unwrap();

    let erase = "labwright --site ../site.yaml privacy erase lovelace --yes";
    let (code, said) = ask(&sandbox, erase);
    assert!(code == Some(4) && said.contains("lab `course` has user/lovelace"), "{said}");
    run("permission revoke babbage vm/lovelace/mine");
    run("vm delete lovelace/mine");
    must(&sandbox, "sed -i /lovelace/d students.csv");
    run("apply --yes --allow user-group/students");
    assert!(!run("get users").contains("Augusta"), "who left is in no listing");
    let (code, said) = ask(&sandbox, erase);
    assert!(code == Some(4) && said.contains("were set aside, and are kept until 20"), "{said}");
    run("purge --older-than 0 --yes");
    let (code, said) = ask(&sandbox, &erase.replace(" --yes", ""));
    assert!(code == Some(4) && said.contains("not confirmed"), "{said}");
    let (code, said) = ask(&sandbox, erase);
    assert!(code == Some(0) && said.contains("lovelace is forgotten"), "{said}");
    for word in ["lovelace", "4711815", "Augusta"] {
        let (_, found) = ask(&sandbox, &format!("grep -rla {word} ../site; find ../site -name '*{word}*'"));
        assert_eq!(found, "", "{word}");
    }
    // What was done is still there.
    let history = run("history -n 50");
    assert_eq!(history.lines().count(), 12, "a heading and eleven entries: {history}");
    for command in
        ["vm derive base --name mine --owner (erased)", "permission grant babbage run (erased)", "vm delete (erased)"]
    {
        assert!(history.contains(command), "{command} is missing:\n{history}");
    }
    assert!(run("history --audit -n 50").contains("vm/erased "), "{}", run("history --audit -n 50"));
    run("state check");
    run("plan --detailed-exitcode");
    assert!(run("get users").contains("babbage"));
}
