//! Listings: one row type per listing, shown as a table, JSON, YAML, CSV or bare names.

use clap::ValueEnum;
use serde::Serialize;

use super::{escaped, paint, ui};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    // For people; it fits the terminal.
    #[default]
    Table,
    // All columns in full.
    Wide,
    Json,
    Yaml,
    // All columns, for a spreadsheet.
    Csv,
    // Names alone, one per line.
    Name,
}

/// One line of a listing. JSON and YAML carry the type's fields, table and CSV its columns.
pub trait Row: Serialize + Sized + 'static {
    const COLUMNS: &'static [Column<Self>];

    /// What `-o name` prints, and what a row is picked by.
    fn name(&self) -> String {
        (Self::COLUMNS[0].cell)(self)
    }
}

/// One column of a listing.
pub struct Column<R> {
    name: &'static str,
    cell: fn(&R) -> String,
    room: Room,
}

/// Where a table has a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Room {
    /// A terminal that is too narrow for all columns goes without it, the lowest first.
    Yields(u8),
    Always,
    /// Only with `-o wide`.
    Wide,
}

/// A column that every table has.
pub const fn column<R>(name: &'static str, cell: fn(&R) -> String) -> Column<R> {
    Column { name, cell, room: Room::Always }
}

/// One that a table has only with `-o wide`.
pub const fn wide<R>(name: &'static str, cell: fn(&R) -> String) -> Column<R> {
    Column { name, cell, room: Room::Wide }
}

/// One that a table leaves out where the terminal is too narrow for all, the lowest `turn` first.
pub const fn yielding<R>(turn: u8, name: &'static str, cell: fn(&R) -> String) -> Column<R> {
    Column { name, cell, room: Room::Yields(turn) }
}

/// The word that YAML and JSON use for a value.
pub fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// A value as programs read it.
pub fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string_pretty(value).expect("a value that is shown has only string keys") + "\n"
}

/// The same as YAML.
pub fn yaml<T: Serialize + ?Sized>(value: &T) -> String {
    serde_yaml::to_string(value).expect("a value that is shown has only string keys")
}

pub fn render<R: Row>(rows: &[R], format: Format) -> String {
    match format {
        Format::Table => table(rows, false, ui::terminal_width()),
        Format::Wide => table(rows, true, None),
        Format::Json => json(rows),
        Format::Yaml => yaml(rows),
        Format::Csv => csv(rows),
        Format::Name => rows.iter().map(|row| format!("{}\n", escaped(&row.name()))).collect(),
    }
}

/// Between two columns.
const GAP: &str = "   ";

/// A column that has to give way is not made narrower than this.
const NARROW: usize = 8;

/// Columns padded to their widest cell; an empty listing still shows its columns. Where it would be wider than `width`, columns
/// that may yield are left out, and then the widest ones are cut: a line is never broken in two.
fn table<R: Row>(rows: &[R], with_wide: bool, width: Option<usize>) -> String {
    let shown = R::COLUMNS.iter().filter(|column| with_wide || column.room != Room::Wide);
    let mut columns = Filled(shown.map(|column| Cells::of(column, rows)).collect());
    if let Some(width) = width {
        let mut yielding: Vec<&Column<R>> =
            R::COLUMNS.iter().filter(|column| matches!(column.room, Room::Yields(_))).collect();
        yielding.sort_by_key(|column| column.room);
        for column in yielding {
            if columns.width() > width {
                columns.leave_out(column.name);
            }
        }
        columns.squeeze(width);
    }
    columns.text()
}

/// A heading and the cells below it.
struct Cells {
    name: &'static str,
    cells: Vec<String>,
}

impl Cells {
    fn of<R>(column: &Column<R>, rows: &[R]) -> Self {
        // One line of a table is one line of text, whatever a program said.
        let cell = |row| escaped(&(column.cell)(row)).split_whitespace().collect::<Vec<_>>().join(" ");
        Self { name: column.name, cells: rows.iter().map(cell).collect() }
    }

    fn width(&self) -> usize {
        self.cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0).max(self.name.chars().count())
    }
}

struct Filled(Vec<Cells>);

impl Filled {
    fn leave_out(&mut self, name: &str) {
        self.0.retain(|column| column.name != name);
    }

    fn width(&self) -> usize {
        self.0.iter().map(Cells::width).sum::<usize>() + GAP.len() * self.0.len().saturating_sub(1)
    }

    /// Makes the widest column narrower, again and again, until all fit or nothing more can be cut; then cuts the cells.
    fn squeeze(&mut self, width: usize) {
        let floors: Vec<usize> = self.0.iter().map(|column| NARROW.max(column.name.chars().count())).collect();
        let mut widths: Vec<usize> = self.0.iter().map(Cells::width).collect();
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > width {
            let can_shrink = (0..widths.len()).filter(|&at| widths[at] > floors[at]);
            let Some(widest) = can_shrink.max_by_key(|&at| widths[at]) else { break };
            widths[widest] -= 1;
        }
        for (column, width) in self.0.iter_mut().zip(widths) {
            column.cells.iter_mut().for_each(|cell| *cell = shortened(cell, width));
        }
    }

    fn text(&self) -> String {
        let rows = self.0.first().map_or(0, |column| column.cells.len());
        let line = |cells: Vec<String>| format!("{}\n", cells.join(GAP).trim_end());
        let heading = self.0.iter().map(|column| format!("{:<1$}", column.name.to_uppercase(), column.width()));
        let mut text = line(heading.collect());
        for at in 0..rows {
            let cells = self.0.iter().map(|column| {
                let cell = format!("{:<1$}", column.cells[at], column.width());
                if column.name == "state" { paint::state(&cell) } else { cell }
            });
            text.push_str(&line(cells.collect()));
        }
        text
    }
}

/// A text of at most `width` characters; of a path the end is what tells it from others.
fn shortened(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let kept = width.saturating_sub(1);
    if text.starts_with('/') {
        let end: String = text.chars().skip(count - kept).collect();
        return format!("…{end}");
    }
    let start: String = text.chars().take(kept).collect();
    format!("{start}…")
}

fn csv<R: Row>(rows: &[R]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let mut write = |record: Vec<String>| {
        writer.write_record(record).expect("memory takes all, and every row has the same columns");
    };
    write(R::COLUMNS.iter().map(|column| column.name.to_owned()).collect());
    let cell = |column: &Column<R>, row| escaped(&(column.cell)(row)).into_owned();
    rows.iter().for_each(|row| write(R::COLUMNS.iter().map(|column| cell(column, row)).collect()));
    String::from_utf8(writer.into_inner().expect("memory takes all")).expect("cells are UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Disk {
        vm: &'static str,
        state: &'static str,
        path: &'static str,
        note: &'static str,
    }

    impl Row for Disk {
        const COLUMNS: &'static [Column<Self>] = &[
            column("vm", |disk| disk.vm.to_owned()),
            column("state", |disk| disk.state.to_owned()),
            column("path", |disk| disk.path.to_owned()),
            yielding(1, "note", |disk| disk.note.to_owned()),
            wide("extra", |_| "x".to_owned()),
        ];
    }

    const DISKS: [Disk; 2] = [
        Disk { vm: "ada", state: "on", path: "/srv/lab/storage/vms/ada/disk-0.qcow2", note: "two\nlines" },
        Disk { vm: "bea", state: "on", path: "/srv/b", note: "" },
    ];

    fn shown(width: Option<usize>) -> String {
        table(&DISKS, false, width)
    }

    #[test]
    fn a_table_is_as_wide_as_it_must_be_where_nobody_limits_it() {
        let text = shown(None);
        assert_eq!(text.lines().count(), 3, "a cell of two lines is one line of the table: {text}");
        assert!(text.contains("/srv/lab/storage/vms/ada/disk-0.qcow2   two lines\n"), "{text}");
        assert!(!text.contains("EXTRA"), "{text}");
        assert!(render(&DISKS, Format::Wide).contains("EXTRA"));
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_and_then_shorter_cells() {
        assert_eq!(
            shown(Some(60)),
            "VM    STATE   PATH\n\
             ada   on      /srv/lab/storage/vms/ada/disk-0.qcow2\n\
             bea   on      /srv/b\n"
        );
        assert_eq!(
            shown(Some(30)),
            "VM    STATE   PATH\n\
             ada   on      …da/disk-0.qcow2\n\
             bea   on      /srv/b\n"
        );
        for width in [20, 24, 25, 37, 48] {
            assert!(shown(Some(width)).lines().all(|line| line.chars().count() <= width.max(22)), "{width}");
        }
    }

    #[test]
    fn names_stand_alone() {
        assert_eq!(render(&DISKS, Format::Name), "ada\nbea\n");
    }
}
