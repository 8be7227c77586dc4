//! What was found beside what was expected.

/// One way of looking at all rows of a table.
pub(crate) struct Column {
    pub(crate) title: String,
    pub(crate) cells: Vec<Cell>,
}

pub(crate) struct Cell {
    pub(crate) row: String,
    pub(crate) found: String,
    pub(crate) expected: String,
}

impl Cell {
    pub(crate) fn new(row: &str, found: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { row: row.to_owned(), found: found.into(), expected: expected.into() }
    }
}

impl Column {
    pub(crate) fn deviations(&self) -> Vec<String> {
        let other = self.cells.iter().filter(|cell| cell.found != cell.expected);
        other.map(|c| format!("{}, {}: {}, expected was {}", self.title, c.row, c.found, c.expected)).collect()
    }
}

/// The columns side by side; all have the same rows.
pub(crate) fn render(columns: &[Column]) -> String {
    const ROW: usize = 50;
    let width = |column: &Column| column.title.len().max(23) + 3;
    let mut lines = Vec::new();
    let titles: String = columns.iter().map(|c| format!("{:<1$}", c.title, width(c))).collect();
    lines.push(format!("{:<ROW$}{titles}", "").trim_end().to_owned());
    for (number, cell) in columns[0].cells.iter().enumerate() {
        let cells: String = columns
            .iter()
            .map(|column| {
                let cell = &column.cells[number];
                format!("{:<1$}", format!("{:<10} | {}", cell.found, cell.expected), width(column))
            })
            .collect();
        lines.push(format!("{:<ROW$}{cells}", cell.row).trim_end().to_owned());
    }
    lines.join("\n")
}
