//! Tables for people: a line of headings and lines below them, in columns as wide as what is in them.

/// Where a column's cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers and sums.
    Right,
}

/// Draws a table. Its last line has no end, and no line ends in spaces.
pub fn draw<const N: usize>(columns: [(&str, Align); N], rows: &[[String; N]]) -> String {
    let width = |index: usize| {
        let cells = rows.iter().map(|row| row[index].chars().count());
        cells.chain([columns[index].0.len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for ((cell, width), (_, align)) in cells.iter().zip(widths).zip(columns) {
            if !line.is_empty() {
                line += "  ";
            }
            line += &match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            };
        }
        line.truncate(line.trim_end().len());
        line
    };
    let headings = line(columns.map(|(name, _)| name));
    let lines = rows
        .iter()
        .map(|row| line(std::array::from_fn(|index| row[index].as_str())));
    std::iter::once(headings)
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            ["1".to_owned(), "Zoë".to_owned(), "5.00".to_owned()],
            ["1007".to_owned(), "Ken Wood".to_owned(), "-100.00".to_owned()],
        ];
        let columns = [
            ("ACCOUNT", Align::Right),
            ("HOLDER", Align::Left),
            ("SUM", Align::Right),
        ];
        assert_eq!(
            draw(columns, &rows),
            "ACCOUNT  HOLDER        SUM\n      1  Zoë          5.00\n   1007  Ken Wood  -100.00"
        );
        assert_eq!(draw([("A", Align::Left), ("B", Align::Left)], &[]), "A  B");
    }
}
