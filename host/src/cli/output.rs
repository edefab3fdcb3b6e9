//! What the commands print: text for people, with colours on a terminal only, or JSON or YAML for programs.

use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Json,
    Yaml,
}

/// What a command that shows something prints it as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    Table,
    Json,
    Yaml,
}

impl View {
    /// For programs, or else for people.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Table => None,
            Self::Json => Some(Format::Json),
            Self::Yaml => Some(Format::Yaml),
        }
    }
}

/// Prints to stdout. That nobody reads on is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// For programs.
pub fn print_as(format: Format, value: &impl Serialize) -> anyhow::Result<()> {
    print(&match format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
        Format::Yaml => serde_norway::to_string(value)?,
    })
}

/// Two columns, the first in bold.
pub fn rows(rows: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    let width = rows.iter().map(|(name, _)| name.as_ref().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, said) in rows {
        let gap = " ".repeat(width - name.as_ref().len() + 2);
        text += &format!("{}{gap}{}\n", bold(name.as_ref()), said.as_ref());
    }
    text
}

/// A table under its headings; the colours of a cell do not count for its width.
pub fn table(headings: &[&str], rows: &[Vec<Cell>]) -> String {
    let head: Vec<Cell> = headings.iter().map(|heading| Cell::styled(*heading, Style::new().bold())).collect();
    let all = || [&head].into_iter().chain(rows);
    let width = |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let gap = " ".repeat(width.saturating_sub(cell.text.chars().count()) + 3);
            line += &format!("{}{gap}", styled(cell.style, &cell.text));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[derive(Debug, Clone)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }

    fn styled(text: impl Into<String>, style: impl Into<Style>) -> Self {
        Self { text: text.into(), style: style.into() }
    }

    /// As the status of a condition.
    pub fn truth(text: &str) -> Self {
        match text {
            "True" => Self::styled(text, AnsiColor::Green.on_default()),
            "False" => Self::styled(text, AnsiColor::Red.on_default()),
            _ => Self::styled(text, AnsiColor::Yellow.on_default()),
        }
    }
}

/// As kubectl writes ages.
pub fn age(of: std::time::Duration) -> String {
    let seconds = of.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub fn bold(text: &str) -> String {
    styled(Style::new().bold(), text)
}

pub fn good(text: &str) -> String {
    styled(AnsiColor::Green.on_default(), text)
}

pub fn bad(text: &str) -> String {
    styled(AnsiColor::Red.on_default(), text)
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_column_is_as_wide_as_its_widest_cell() {
        let rows = [vec![Cell::plain("a"), Cell::truth("True")], vec![Cell::plain("longer"), Cell::truth("False")]];
        let text = anstream::adapter::strip_str(&table(&["NAME", "READY"], &rows)).to_string();
        assert_eq!(text, "NAME     READY\na        True\nlonger   False\n");
    }

    #[test]
    fn ages_are_short() {
        let said = |seconds| age(Duration::from_secs(seconds));
        assert_eq!([said(0), said(119), said(120), said(7200), said(200_000)], ["0s", "119s", "2m", "2h", "2d"]);
    }
}
