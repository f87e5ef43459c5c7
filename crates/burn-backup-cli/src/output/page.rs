//! Text output: lines, fields and tables. Control characters from a backup are replaced, so that they can't move the
//! terminal's cursor.

use std::fmt::Display;

use comfy_table::{CellAlignment, Table, presets};

use super::units::plain;

/// The style of a text on a terminal with colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextStyle {
    Strong,
    Good,
    Warning,
    Bad,
    Faint,
}

/// Marks from the Unicode private use area, which ordinary text does not contain. [`Page::finish`] replaces them.
const FIRST: u32 = 0xE900;
const END: char = '\u{E9FF}';

impl TextStyle {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Strong, "\x1b[1m"),
        (Self::Good, "\x1b[32m"),
        (Self::Warning, "\x1b[33m"),
        (Self::Bad, "\x1b[31m"),
        (Self::Faint, "\x1b[2m"),
    ];

    /// The text, in this tone.
    pub fn paint(self, text: impl Display) -> String {
        let mark = char::from_u32(FIRST + self as u32).unwrap_or(END);
        format!("{mark}{text}{END}")
    }

    fn code(mark: char) -> Option<&'static str> {
        if mark == END {
            return Some("\x1b[0m");
        }
        let at = u32::from(mark).checked_sub(FIRST)?;
        let found = Self::ALL.iter().find(|(style, _)| *style as u32 == at);
        found.map(|(_, code)| *code)
    }
}

/// The text to print.
#[derive(Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Adds a line, or several.
    pub fn line(&mut self, line: impl Display) {
        self.text.push_str(&format!("{line}"));
        self.text.push('\n');
    }

    /// Adds an empty line, unless the page is empty.
    pub fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// Adds a name and its value.
    pub fn field(&mut self, name: &str, value: impl Display) {
        self.line(format!(
            "{} {value}",
            TextStyle::Faint.paint(format!("{:<16}", format!("{name}:")))
        ));
    }

    /// Adds a name and its value, if there is a value.
    pub fn field_if(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.field(name, value);
        }
    }

    /// Adds a heading.
    pub fn heading(&mut self, heading: impl Display) {
        self.gap();
        self.line(TextStyle::Strong.paint(heading));
    }

    /// Adds a table. Columns whose titles begin with `>` are aligned to the right.
    pub fn table(&mut self, titles: &[&str], rows: Vec<Vec<String>>) {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
        for row in rows {
            table.add_row(row.iter().map(|cell| plain(cell)).collect::<Vec<_>>());
        }
        for (at, title) in titles.iter().enumerate() {
            if let Some(column) = table.column_mut(at) {
                column.set_padding((0, 2));
                if title.starts_with('>') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        for (at, line) in table.lines().enumerate() {
            let line = line.trim_end();
            match at {
                0 => self.line(TextStyle::Faint.paint(line)),
                _ => self.line(line),
            }
        }
    }

    /// The text, with or without colours.
    pub fn finish(self, has_colour: bool) -> String {
        let mut finished = String::with_capacity(self.text.len());
        for character in self.text.chars() {
            match TextStyle::code(character) {
                Some(code) if has_colour => finished.push_str(code),
                Some(_) => {}
                None if character.is_control() && character != '\n' => {
                    finished.push(char::REPLACEMENT_CHARACTER);
                }
                None => finished.push(character),
            }
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_can_be_turned_off() {
        let page = || {
            let mut page = Page::default();
            page.line(format!("it is {}", TextStyle::Good.paint("whole")));
            page
        };
        assert_eq!(page().finish(false), "it is whole\n");
        assert_eq!(page().finish(true), "it is \x1b[32mwhole\x1b[0m\n");
    }

    #[test]
    fn names_cannot_move_the_cursor() {
        let mut page = Page::default();
        page.line("a\x1b[2Jb\rc");
        page.table(&["name"], vec![vec!["d\x1b[0m\ne".to_owned()]]);
        let text = page.finish(true);
        assert!(
            !text.contains("\x1b[2J") && !text.contains('\r'),
            "{text:?}"
        );
        assert_eq!(
            text.matches('\x1b').count(),
            2,
            "the escapes of the title: {text:?}"
        );
    }

    #[test]
    fn a_table_has_columns_as_wide_as_they_need() {
        let mut page = Page::default();
        let row = |name: &str, size: &str| vec![name.to_owned(), size.to_owned()];
        page.table(&["name", ">size"], vec![row("a", "1"), row("long", "200")]);
        assert_eq!(page.finish(false), "name  size\na        1\nlong   200\n");
    }
}
