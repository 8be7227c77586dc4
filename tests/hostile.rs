//! What a hostile guest can do, as tables: every attack is a raw frame with a mark of its own, sent by a real guest, on one
//! bridge and across two hosts, against either filter. It is looked for where it must not be, and what was found stands
//! beside what was expected. `tests/run hostile` prints the tables; `target/hostile/` has them afterwards.

#[path = "hostile/attacks.rs"]
mod attacks;
#[path = "hostile/column.rs"]
mod column;
#[path = "hostile/field.rs"]
mod field;
#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/life.rs"]
mod life;
#[path = "hostile/sight.rs"]
mod sight;
#[path = "hostile/table.rs"]
mod table;
#[path = "hostile/wire.rs"]
mod wire;
#[path = "system/world.rs"]
#[expect(dead_code, reason = "the system tests use more of it")]
mod world;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use labwright::model::site::Filter;

use column::{FOREIGN, column};
use field::{FAR_ISOLATED, FAR_PLAIN, Field, ISOLATED, ISOLATED_VICTIM, PLAIN, PLAIN_VICTIM};
use sight::Program;
use table::{Column, render};

#[test]
fn nftables() {
    all(Filter::Nftables, "nftables");
}

#[test]
fn ebtables() {
    all(Filter::Ebtables, "ebtables");
}

/// One field at a time: its guests share two processors.
static FIELD: Mutex<()> = Mutex::new(());

fn all(filter: Filter, name: &str) {
    let _turn = FIELD.lock().unwrap_or_else(PoisonError::into_inner);
    let field = Field::new(filter);
    let program = Program::start();
    let against = |title, from, to| column(&field, &program, title, from, to);
    let one_bridge = [
        against("plain to plain", PLAIN, PLAIN_VICTIM),
        against("isolated to plain", ISOLATED, PLAIN_VICTIM),
        against("plain to isolated", PLAIN, ISOLATED_VICTIM),
        against("isolated to isolated", ISOLATED, ISOLATED_VICTIM),
        against("no guest to isolated", FOREIGN, ISOLATED_VICTIM),
    ];
    let two_hosts = [
        against("plain to far plain", PLAIN, FAR_PLAIN),
        against("isolated to far isolated", ISOLATED, FAR_ISOLATED),
        against("plain to far isolated", PLAIN, FAR_ISOLATED),
        against("far plain to plain", FAR_PLAIN, PLAIN_VICTIM),
        against("far plain to isolated", FAR_PLAIN, ISOLATED_VICTIM),
        against("far isolated to isolated", FAR_ISOLATED, ISOLATED_VICTIM),
    ];
    let parts = [
        ("one bridge", &one_bridge[..]),
        ("two hosts, joined by a wire", &two_hosts),
        ("the bridge's table of addresses", &[life::thefts(&field)]),
        ("floods", &life::floods(&field)),
        ("what must pass, and what must not", &life::talks(&field)),
        // Last, since the bridge takes it at its word where the gateway is.
        ("what a machine on the wire tells a guest", &wire::lies(&field)),
    ];
    field.end();
    let text = page(name, &parts);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/hostile");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{name}.txt")), &text).unwrap();
    let deviations: Vec<String> =
        parts.iter().flat_map(|(_, columns)| columns.iter()).flat_map(Column::deviations).collect();
    assert!(deviations.is_empty(), "other than expected:\n{}\n\n{text}", deviations.join("\n"));
    insta::assert_snapshot!(name, text);
}

fn page(name: &str, parts: &[(&str, &[Column])]) -> String {
    let head = format!(
        "Filter: {name}. Each column: what was found, and after `|` what was expected. A frame was seen at\n\
         V the victim's tap, B the bridge of the victim's host, G a host's own IP (the gateway's or the other host's);\n\
         `dropped` is none of them, `-` is not applicable.\n"
    );
    let parts = parts.iter().map(|(title, columns)| format!("\n== {title}\n{}\n", render(columns)));
    [head].into_iter().chain(parts).collect()
}
