//! The table on the terminal.

use crate::number::significant;
use crate::row::{Ratio, Row};
use crate::spread::Spread;

const HEADINGS: [&str; 9] = [
    "measurement",
    "state",
    "what",
    "ours",
    "Burn's",
    "limit",
    "ratio",
    "goal",
    "met?",
];
const NOTHING: &str = "-";

/// The rows as a Markdown table with aligned columns. Cells contain the median, with the lowest and
/// the highest value in parentheses.
pub fn render(rows: &[Row]) -> String {
    let cells: Vec<[String; 9]> = rows.iter().map(cells).collect();
    let mut widths = HEADINGS.map(|heading| heading.chars().count());
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let rule = widths.map(|width| "-".repeat(width));
    [HEADINGS.map(str::to_owned), rule]
        .iter()
        .chain(&cells)
        .map(|row| line(row, &widths))
        .collect()
}

fn line(cells: &[String; 9], widths: &[usize; 9]) -> String {
    let padded: Vec<String> = cells
        .iter()
        .zip(widths)
        .map(|(cell, width)| format!("{cell:width$}"))
        .collect();
    format!("| {} |\n", padded.join(" | "))
}

fn cells(row: &Row) -> [String; 9] {
    let what = match row.unit.as_ref() {
        "" => row.what.to_string(),
        unit => format!("{} [{unit}]", row.what),
    };
    let goal = row.goal.map(|goal| goal.to_string());
    let met = row.is_met().map(|is_met| if is_met { "yes" } else { "NO" });
    [
        row.measurement.to_string(),
        row.state.clone(),
        what,
        or_nothing(row.ours.as_ref().map(spread)),
        or_nothing(row.burns.as_ref().map(spread)),
        or_nothing(row.limit.as_ref().map(spread)),
        or_nothing(row.ratio.as_ref().map(ratio)),
        or_nothing(goal),
        or_nothing(met.map(str::to_owned)),
    ]
}

fn or_nothing(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| NOTHING.to_owned())
}

fn spread(spread: &Spread) -> String {
    let median = significant(spread.median);
    if spread.samples == 1 {
        return median;
    }
    let (minimum, maximum) = (significant(spread.minimum), significant(spread.maximum));
    format!("{median} ({minimum} to {maximum})")
}

fn ratio(ratio: &Ratio) -> String {
    format!("{} of {}", significant(ratio.spread.median), ratio.over)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Goal;

    #[test]
    fn columns_are_aligned_and_missing_cells_are_dashes() {
        let rows = [
            Row::new("stall", "1M", "held", "ms")
                .ours(Spread::of([0.1, 0.2, 0.3]).unwrap())
                .burns(Spread::single(250.0))
                .ratio("Burn's", Spread::single(0.0008))
                .goal(Goal::OursAtMost(0.1)),
            Row::new("memory", "1M", "peak", ""),
        ];
        let expected = "\
| measurement | state | what      | ours             | Burn's | limit | ratio            | goal        | met? |
| ----------- | ----- | --------- | ---------------- | ------ | ----- | ---------------- | ----------- | ---- |
| stall       | 1M    | held [ms] | 0.2 (0.1 to 0.3) | 250    | -     | 0.0008 of Burn's | ours <= 0.1 | NO   |
| memory      | 1M    | peak      | -                | -      | -     | -                | -           | -    |
";
        assert_eq!(render(&rows), expected);
    }
}
