//! The record of an exam: whoever rewrites, takes out or adds a row of it is found out, with and without the last hash.

use rusqlite::Connection;

use crate::sandbox::Sandbox;
use crate::{ask, must};

/// A lab with an exam that was applied, and whose time was moved twice.
fn held() -> Sandbox {
    let sandbox = Sandbox::new("/dev/shm", None);
    let exam = "vms: { desk: { derive: base, for_each: students } }
sessions:
  final: { kind: exam, vms: [desk], start: \"2098-01-01T00:00[UTC]\", end: \"2099-01-01T00:00[UTC]\", extra_time: { ada: 25% } }
";
    std::fs::write(sandbox.path("lab/exam.yaml"), exam).unwrap();
    must(&sandbox, "labwright --site ../site.yaml state init && labwright --site ../site.yaml apply --yes");
    must(&sandbox, "labwright --site ../site.yaml session extend final --user ada 15m --why cable");
    must(&sandbox, "labwright --site ../site.yaml session extend final --user bea 5m");
    sandbox
}

fn rows(sandbox: &Sandbox) -> Vec<serde_json::Value> {
    let record = must(sandbox, "labwright --site ../site.yaml session record final -o json");
    assert!(["ada", "bea", "root"].iter().all(|name| !record.contains(&format!("\"{name}\""))), "{record}");
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    record["rows"].as_array().unwrap().clone()
}

fn what(rows: &[serde_json::Value]) -> Vec<&str> {
    rows.iter().filter_map(|row| row["body"]["what"].as_str()).collect()
}

#[test]
fn a_rewritten_row_of_a_record_is_found() {
    let sandbox = held();
    let written = rows(&sandbox);
    let kinds = what(&written);
    for kind in ["session", "address", "disk made", "act", "time moved"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    let moved: Vec<_> = written.iter().filter(|row| row["body"]["what"] == "time moved").collect();
    assert_eq!(moved.len(), 2);
    assert_eq!(
        (&moved[0]["body"]["why"], &moved[0]["body"]["change"]["extend"]["seconds"]),
        (&"cable".into(), &900.into())
    );
    let verify = |more: &str| ask(&sandbox, &format!("labwright --site ../site.yaml session verify final {more}"));
    let head = written.last().unwrap()["hash"].as_str().unwrap();
    let (code, said) = verify(&format!("--head {head}"));
    assert!(code == Some(0) && said.contains(&format!("head {head}")), "{said}");

    let state = Connection::open(sandbox.path("site/state.db")).unwrap();
    let row = moved[0]["number"].as_u64().unwrap();
    let rewrite = format!("UPDATE session_record SET body = replace(body, '900', '60') WHERE number = {row}");
    let refused = state.execute_batch(&rewrite).unwrap_err().to_string();
    assert!(refused.contains("only ever added to"), "{refused}");
    let refused = state.execute_batch("DELETE FROM session_record").unwrap_err().to_string();
    assert!(refused.contains("only ever added to"), "{refused}");

    // Who has the file can do more.
    let tamper = |sql: &str, undo: &str, found: &str| {
        state
            .execute_batch(&format!("DROP TRIGGER session_record_stays; DROP TRIGGER session_record_is_kept; {sql}"))
            .unwrap();
        let (code, said) = verify("");
        assert!(code == Some(1) && said.contains(found), "{sql}: {said}");
        state.execute_batch(&format!("{undo}; CREATE TRIGGER session_record_stays BEFORE UPDATE ON session_record BEGIN SELECT 1; END; CREATE TRIGGER session_record_is_kept BEFORE DELETE ON session_record BEGIN SELECT 1; END")).unwrap();
        assert_eq!(verify("").0, Some(0), "{undo}");
    };
    let back = format!(
        "UPDATE session_record SET body = replace(body, '\"seconds\":60', '\"seconds\":900') WHERE number = {row}"
    );
    tamper(&rewrite, &back, &format!("row {row} of the record"));
    state.execute_batch("CREATE TABLE kept AS SELECT * FROM session_record").unwrap();
    let all_back = "DELETE FROM session_record; INSERT INTO session_record SELECT * FROM kept";
    tamper(
        &format!("DELETE FROM session_record WHERE number = {row}"),
        all_back,
        &format!("row {} of the record", row + 1),
    );
    // The last ones can be cut off unseen, but for whoever has the last hash.
    state.execute_batch("DROP TRIGGER session_record_is_kept; DELETE FROM session_record WHERE number = (SELECT MAX(number) FROM session_record)").unwrap();
    assert_eq!(verify("").0, Some(0));
    let (code, said) = verify(&format!("--head {head}"));
    assert!(code == Some(1) && said.contains("no row of the record"), "{said}");
}

/// A state of the release before, which had no record.
#[test]
fn an_older_state_gets_a_record_from_now_on() {
    let sandbox = held();
    let state = Connection::open(sandbox.path("site/state.db")).unwrap();
    state
        .execute_batch("DROP TABLE session_record; DROP TABLE submissions; DROP TABLE keeps; PRAGMA user_version = 11")
        .unwrap();
    drop(state);
    must(&sandbox, "labwright --site ../site.yaml session extend final --user ada 1m --why again");
    assert_eq!(what(&rows(&sandbox)), ["act", "time moved"]);
    must(&sandbox, "labwright --site ../site.yaml session verify final && labwright --site ../site.yaml state check");
}
