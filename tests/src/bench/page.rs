//! The page that people read, from the book alone.

use std::fmt::Write as _;

use super::record::{Book, Column, Contender, Record, Setting, Spread, Versus};

const HEAD: &str = "\
<!-- Written by `make bench` from performance.json. -->
# Performance

Rerun it with `make bench`, in part with `make bench BENCH=\"P9 P10\"`; `QUICK=1` only shows that it works. It measures executables of
Cargo's profile `bench-host`: as shipped but without the whole-program link (`BENCH_PROFILE=release` measures what is shipped); their
first build takes as long as that of the tests. Peers are `tests/peers`: the plugin hello once more, as a kube-rs `Controller` and with
controller-runtime, each as its guide shows, and once more with the usual settings for speed.

Each cell is the median of all rounds, with the smallest and the largest in brackets. In a round the contenders take turns on one
machine; what is compared is compared within the round. Times and counts of requests are those of the API server's audit log.
";

pub fn page(book: &Book) -> String {
    let mut text = HEAD.to_owned();
    for record in &book.benches {
        text.push('\n');
        text += &section(record);
    }
    text
}

pub fn section(record: &Record) -> String {
    let mut text = format!("## {}: {}\n\n{}\n\n", record.ids.join(", "), record.title, record.how);
    if record.quick {
        text += "**A quick run: these are no measurements.**\n\n";
    }
    text += &table(record);
    let rounds = record.rounds.len();
    let _ = write!(text, "\nTarget: {}\n\n", record.target);
    let _ = writeln!(
        text,
        "`{}`, {rounds} round{}, {}",
        record.command,
        if rounds == 1 { "" } else { "s" },
        setting(&record.setting)
    );
    text
}

fn setting(setting: &Setting) -> String {
    let Setting { when, commit, machine, versions, profile, load } = setting;
    let versions: Vec<String> = versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!("{when}, commit {commit}, profile `{profile}`, {machine}, load {load} before; {}.", versions.join(", "))
}

fn table(record: &Record) -> String {
    let columns: Vec<&Column> = record
        .columns
        .iter()
        .filter(|column| record.contenders.iter().any(|contender| contender.figures.contains_key(&*column.figure)))
        .collect();
    let mut text = "| |".to_owned();
    for column in &columns {
        let _ = write!(text, " {} |", column.head);
        if is_compared(record, column) {
            let _ = write!(text, " {} |", versus(column, &record.against));
        }
    }
    text += "\n|---|";
    for column in &columns {
        text += if is_compared(record, column) { "---|---|" } else { "---|" };
    }
    text.push('\n');
    for contender in &record.contenders {
        text += &line(record, &columns, contender);
    }
    text
}

fn line(record: &Record, columns: &[&Column], contender: &Contender) -> String {
    let mut text = format!("| {} |", contender.who);
    for column in columns {
        let _ = write!(text, " {} |", cell(contender.figures.get(&*column.figure)));
        if is_compared(record, column) {
            let _ = write!(text, " {} |", cell(contender.compared.get(&*column.figure)));
        }
    }
    text.push('\n');
    text
}

fn is_compared(record: &Record, column: &Column) -> bool {
    column.versus != Versus::Nothing && record.contenders.iter().any(|c| c.compared.contains_key(&*column.figure))
}

fn versus(column: &Column, against: &str) -> String {
    match column.versus {
        Versus::Nothing => String::new(),
        Versus::Times => format!("× {against}"),
        Versus::Share => format!("of the {against}'s speed"),
        Versus::More => format!("over {against}"),
    }
}

fn cell(spread: Option<&Spread>) -> String {
    match spread {
        None => String::new(),
        Some(Spread { median, min, max }) if min == max => number(*median),
        Some(Spread { median, min, max }) => format!("**{}** ({}–{})", number(*median), number(*min), number(*max)),
    }
}

/// Three digits that count, thousands apart.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        return thousands(value.round() as i64);
    }
    let digits = match size {
        s if s >= 100.0 || s == 0.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 0.1 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn thousands(value: i64) -> String {
    let (sign, digits) = (if value < 0 { "-" } else { "" }, value.unsigned_abs().to_string());
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_show_what_counts() {
        let all = [0.0, 0.012_34, 0.5, 1.236, 26.04, 100.0, 999.4, 37_600.0, 1_234_567.0, -12.0].map(number);
        assert_eq!(all, ["0", "0.0123", "0.5", "1.24", "26", "100", "999", "37,600", "1,234,567", "-12"]);
    }
}
