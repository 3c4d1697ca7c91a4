//! How lines are laid out: sums at the right edge under each other, and tables that become narrower by leaving columns out.
//!
//! Pure: texts for a width in columns. No sum is ever broken. Sums are not grouped: what is shown may be typed back as it is, and what one
//! country takes for the thousands' mark another takes for the decimal point.

use textwrap::core::display_width;

/// Columns of a receipt, and of whatever else is shown as names and sums.
pub(crate) const PAPER: usize = 40;

/// A line across.
pub(crate) fn rule(mark: &str, width: usize) -> String {
    mark.repeat(width)
}

/// One text at the left edge and one at the right; on two lines if they have no room on one.
pub(crate) fn edges(left: &str, right: &str, width: usize) -> String {
    let (left_width, right_width) = (display_width(left), display_width(right));
    match width.checked_sub(left_width + right_width) {
        Some(gap @ 1..) => format!("{left}{:gap$}{right}", ""),
        _ => format!("{left}\n{:1$}{right}", "", width.saturating_sub(right_width)),
    }
}

/// Numbered options in as few lines as they need, down one column and then the other.
pub(crate) fn numbered(options: &[&str], width: usize) -> Vec<String> {
    let half = width / 2;
    let rows = options.len().div_ceil(2);
    let option = |n: usize| options.get(n).map(|name| format!("  {}  {name}", n + 1));
    // The last column of the screen stays free.
    if (0..options.len()).all(|n| option(n).is_none_or(|text| display_width(&text) < half)) {
        let pair = |n: usize| {
            let left = option(n).unwrap_or_default();
            let gap = half - display_width(&left);
            format!("{left}{:gap$}{}", "", option(n + rows).unwrap_or_default())
        };
        return (0..rows).map(|n| pair(n).trim_end().to_owned()).collect();
    }
    (0..options.len()).filter_map(option).collect()
}

/// A column of a table.
pub(crate) struct Column {
    heading: &'static str,
    to_the_right: bool,
    /// Among the columns that may be left out, the highest goes first; 0 stays.
    expendable: u8,
    cells: Vec<String>,
}

impl Column {
    /// Texts, which begin under each other.
    pub(crate) fn texts(heading: &'static str, expendable: u8, cells: Vec<String>) -> Column {
        Column {
            heading,
            to_the_right: false,
            expendable,
            cells,
        }
    }

    /// Numbers, which end under each other.
    pub(crate) fn numbers(heading: &'static str, expendable: u8, cells: Vec<String>) -> Column {
        Column {
            to_the_right: true,
            ..Column::texts(heading, expendable, cells)
        }
    }

    fn width(&self) -> usize {
        let cells = self.cells.iter().map(|cell| display_width(cell));
        cells.max().unwrap_or(0).max(display_width(self.heading))
    }

    fn padded(&self, cell: &str, width: usize) -> String {
        let gap = width.saturating_sub(display_width(cell));
        if self.to_the_right {
            format!("{:gap$}{cell}", "")
        } else {
            format!("{cell}{:gap$}", "")
        }
    }
}

/// Columns between two columns.
const GAP: usize = 2;

/// The lines of a table: headings and rows, without the columns for which there is no room, and at least so wide.
pub(crate) fn table(mut columns: Vec<Column>, least: usize, most: usize) -> Vec<String> {
    let width = |columns: &[Column]| {
        let widths: usize = columns.iter().map(Column::width).sum();
        widths + GAP * columns.len().saturating_sub(1)
    };
    while width(&columns) > most
        && let Some((n, _)) = columns
            .iter()
            .enumerate()
            .filter(|(_, column)| column.expendable > 0)
            .max_by_key(|(_, column)| column.expendable)
    {
        columns.remove(n);
    }
    // The first column takes what is left over.
    let spare = least.min(most).saturating_sub(width(&columns));
    let rows = columns.iter().map(|column| column.cells.len()).max().unwrap_or(0);
    let line = |cell: &dyn Fn(&Column) -> String| {
        let padded = columns.iter().enumerate().map(|(n, column)| {
            let more = if n == 0 { spare } else { 0 };
            column.padded(&cell(column), column.width() + more)
        });
        let padded: Vec<_> = padded.collect();
        padded.join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    let mut lines = vec![line(&|column| column.heading.to_owned())];
    lines.extend((0..rows).map(|row| line(&|column| column.cells.get(row).cloned().unwrap_or_default())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<Column> {
        let cells = |texts: [&str; 2]| texts.map(str::to_owned).to_vec();
        vec![
            Column::texts("Date", 1, cells(["2026-11-22", "2026-11-23"])),
            Column::texts("What", 0, cells(["deposit", "zoë"])),
            Column::numbers("Amount", 0, cells(["-1000.00", "5.00"])),
            Column::texts("Other side", 2, cells(["cash", "1007"])),
        ]
    }

    #[test]
    fn a_table_leaves_columns_out_and_never_breaks_a_number() {
        assert_eq!(
            table(columns(), 0, 80),
            [
                "Date        What       Amount  Other side",
                "2026-11-22  deposit  -1000.00  cash",
                "2026-11-23  zoë          5.00  1007",
            ]
        );
        assert_eq!(table(columns(), 0, 40)[1], "2026-11-22  deposit  -1000.00");
        assert_eq!(table(columns(), 0, 20)[2], "zoë          5.00");
        assert_eq!(table(columns(), 0, 1)[1], "deposit  -1000.00");
        assert_eq!(table(columns(), 24, 28)[2], "zoë                 5.00");
    }

    #[test]
    fn what_has_no_room_beside_gets_a_line_of_its_own() {
        assert_eq!(edges("Balance", "5.00 USD", 20), "Balance     5.00 USD");
        assert_eq!(edges("Balance", "5.00 USD", 15), "Balance\n       5.00 USD");
        assert_eq!(edges("Balance", "5.00 USD", 3), "Balance\n5.00 USD");
    }

    #[test]
    fn options_stand_in_two_columns_where_they_can() {
        assert_eq!(
            numbered(&["Balance", "Deposit", "Quit"], 30),
            ["  1  Balance     3  Quit", "  2  Deposit"]
        );
        assert_eq!(numbered(&["Balance", "Quit"], 20), ["  1  Balance", "  2  Quit"]);
    }
}
