//! Listings: one row type per listing, shown as a table, JSON, YAML or CSV.

use clap::ValueEnum;
use serde::Serialize;

use super::harmless;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    Yaml,
    Csv,
}

/// One line of a listing. JSON and YAML carry the type's fields, table and CSV its cells.
pub trait Row: Serialize {
    const COLUMNS: &'static [&'static str];
    fn cells(&self) -> Vec<String>;
}

pub fn render<R: Row>(rows: &[R], format: Format) -> String {
    match format {
        Format::Table => table(R::COLUMNS, &rows.iter().map(Row::cells).collect::<Vec<_>>()),
        Format::Json => {
            let mut text = serde_json::to_string_pretty(rows).expect("a row has only string keys");
            text.push('\n');
            text
        }
        Format::Yaml => serde_yaml::to_string(rows).expect("a row has only string keys"),
        Format::Csv => csv(R::COLUMNS, rows.iter().map(Row::cells)),
    }
}

/// Columns padded to their widest cell; an empty listing still shows its columns.
fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
    let shown: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| harmless(cell).into_owned()).collect()).collect();
    let lines = || std::iter::once(&heading).chain(&shown);
    let widths: Vec<usize> =
        (0..columns.len()).map(|at| lines().map(|line| line[at].chars().count()).max().unwrap_or(0)).collect();
    lines()
        .map(|line| {
            let padded: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            format!("{}\n", padded.join("   ").trim_end())
        })
        .collect()
}

fn csv(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let write = |writer: &mut csv::Writer<Vec<u8>>, record: &[String]| {
        writer.write_record(record).expect("memory takes all, and every row has the same columns");
    };
    write(&mut writer, &columns.iter().map(ToString::to_string).collect::<Vec<_>>());
    for row in rows {
        write(&mut writer, &row);
    }
    String::from_utf8(writer.into_inner().expect("memory takes all")).expect("cells are UTF-8")
}
