//! A line in the bottom border of Burn's dashboard.
//!
//! Burn's renderer shows nothing before the first batch. Its processor displays only the events of batches
//! (`burn-train`, `metric/processor/full.rs`), and events that announce a training also go to progress loggers. This
//! module therefore draws on its own.
//!
//! It draws in the last row, the only row whose content is known for every terminal size. This row is the border of
//! the box "Progress" (`renderer/tui/base.rs`). The dashboard writes only what has changed since it last drew, and a
//! border never changes. So it does not overwrite this line, and this module must remove the line itself.
//!
//! Each drawing is a single write to the terminal, which restores the cursor afterwards. The dashboard's own writes
//! are just as atomic while it shows only borders.

use std::io::{self, Write as _};

/// The column of the text: after the corner and a space.
const LEFT: u16 = 3;

/// The terminal's rows and columns.
#[cfg(unix)]
fn size() -> Option<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some((size.ws_row, size.ws_col))
}

#[cfg(not(unix))]
fn size() -> Option<(u16, u16)> {
    None
}

/// The line that is currently drawn.
#[derive(Debug, Default)]
pub(super) struct Border {
    /// How many columns of the border the line covers.
    width: usize,
}

impl Border {
    pub(super) fn write(&mut self, line: &str) {
        if let Some((rows, columns)) = size() {
            draw(&self.drawn(line, rows, columns));
        }
    }

    /// Redraws the border over the line.
    pub(super) fn clear(&mut self) {
        if self.width > 0
            && let Some((rows, columns)) = size()
        {
            draw(&self.drawn("", rows, columns));
        }
    }

    /// The text to write on a terminal of this size.
    fn drawn(&mut self, line: &str, rows: u16, columns: u16) -> String {
        let room = usize::from(columns.saturating_sub(2 * LEFT));
        let line: String = line.chars().take(room).collect();
        let width = match line.is_empty() {
            true => 0,
            false => line.chars().count() + 2,
        };
        let room = usize::from(columns.saturating_sub(LEFT)).saturating_sub(width);
        let border = "\u{2500}".repeat(self.width.saturating_sub(width).min(room));
        let line = match width {
            0 => line,
            _ => format!(" {line} "),
        };
        self.width = width;
        // Saves the cursor and its colours, and prevents a wrap into the next row.
        format!("\u{1b}7\u{1b}[?7l\u{1b}[{rows};{LEFT}H\u{1b}[0m{line}{border}\u{1b}[?7h\u{1b}8")
    }
}

fn draw(what: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(what.as_bytes());
    let _ = stderr.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text between the escapes.
    fn text(drawn: &str) -> &str {
        let text = drawn.split_once("\u{1b}[0m").unwrap().1;
        text.split_once('\u{1b}').unwrap().0
    }

    #[test]
    fn a_line_is_drawn_in_the_last_row_and_the_border_comes_back_where_it_was() {
        let mut border = Border::default();
        let drawn = border.drawn("120 of 756 MB", 24, 80);
        assert!(drawn.contains("\u{1b}[24;3H"), "{drawn:?}");
        assert_eq!(text(&drawn), " 120 of 756 MB ");
        assert_eq!(
            text(&border.drawn("9 MB", 24, 80)),
            " 9 MB \u{2500}\u{2500}\u{2500}\u{2500}\u{2500}\u{2500}\u{2500}\u{2500}\u{2500}"
        );
        assert_eq!(text(&border.drawn("", 24, 80)), "\u{2500}".repeat(6));
        assert_eq!(text(&border.drawn("", 24, 80)), "");
        // Both corners stay on a terminal that is too narrow.
        assert_eq!(text(&border.drawn("120 of 756 MB", 24, 12)), " 120 of ");
        assert_eq!(text(&border.drawn("120 of 756 MB", 24, 3)), "");
    }
}
