//! What was measured: rounds of rows, medians, ratios within a round, and the book that keeps them as JSON.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use futures::future::LocalBoxFuture;
use serde::{Deserialize, Serialize};

use super::{Rounds, Scale};

/// One contender in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub who: String,
    /// By name; the unit ends the name.
    pub figures: BTreeMap<String, f64>,
}

impl Row {
    pub fn new(who: &str, figures: &[(&str, f64)]) -> Self {
        Self { who: who.to_owned(), figures: figures.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect() }
    }
}

/// What there is to measure.
pub struct Bench {
    /// Promises that it has figures for.
    pub ids: &'static [&'static str],
    pub title: &'static str,
    /// How it is measured, in a few sentences for the page.
    pub how: &'static str,
    /// What TARGETS asks for.
    pub target: &'static str,
    /// The contender that all others are compared with.
    pub against: &'static str,
    pub columns: &'static [Column],
    pub run: fn(Scale) -> LocalBoxFuture<'static, Result<Rounds>>,
}

/// A column of the table.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Column {
    pub figure: Text,
    pub head: Text,
    pub versus: Versus,
}

/// Written by hand in the code, read from the book later.
pub type Text = std::borrow::Cow<'static, str>;

/// How a figure is compared with that of the contender in `against`, within each round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Versus {
    /// Not at all.
    Nothing,
    /// How many times as much.
    Times,
    /// Its share of the other's speed: for times, the other's time divided by this one.
    Share,
    /// How much more.
    More,
}

pub const fn column(figure: &'static str, head: &'static str, versus: Versus) -> Column {
    Column { figure: Text::Borrowed(figure), head: Text::Borrowed(head), versus }
}

/// The machine, the programs and the checkout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// RFC 3339, UTC.
    pub when: String,
    /// Of the checkout; `+` at its end says that files were changed.
    pub commit: String,
    pub machine: String,
    /// By name.
    pub versions: BTreeMap<String, String>,
    /// Cargo's profile of the host and of the bench.
    pub profile: String,
    /// Runnable processes a minute before the bench began; above the number of cores, the figures are noise.
    pub load: String,
}

/// A finished bench.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    pub ids: Vec<String>,
    pub title: String,
    pub how: String,
    pub target: String,
    pub against: String,
    pub command: String,
    pub quick: bool,
    pub setting: Setting,
    pub columns: Vec<Column>,
    pub rounds: Rounds,
    pub contenders: Vec<Contender>,
}

/// A row of the table: medians over the rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Contender {
    pub who: String,
    pub figures: BTreeMap<String, Spread>,
    /// The same compared with `against` within each round.
    pub compared: BTreeMap<String, Spread>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Record {
    pub fn new(bench: &Bench, setting: Setting, quick: bool, rounds: Rounds) -> Self {
        let contenders = contenders(bench.columns, bench.against, &rounds);
        let wanted = format!(r#"make bench BENCH="{}"{}"#, bench.ids.join(" "), if quick { " QUICK=1" } else { "" });
        Self {
            ids: bench.ids.iter().map(ToString::to_string).collect(),
            title: bench.title.into(),
            how: bench.how.into(),
            target: bench.target.into(),
            against: bench.against.into(),
            command: wanted,
            quick,
            setting,
            columns: bench.columns.to_vec(),
            rounds,
            contenders,
        }
    }
}

fn contenders(columns: &[Column], against: &str, rounds: &[Vec<Row>]) -> Vec<Contender> {
    let mut names: Vec<&str> = Vec::new();
    for row in rounds.iter().flatten() {
        if !names.contains(&row.who.as_str()) {
            names.push(&row.who);
        }
    }
    let of = |who: &str| Contender {
        who: who.to_owned(),
        figures: columns.iter().filter_map(|c| Some((c.figure.to_string(), spread(values(rounds, who, &c.figure))?))).collect(),
        compared: columns
            .iter()
            .filter_map(|c| Some((c.figure.to_string(), spread(compared(rounds, who, against, c))?)))
            .collect(),
    };
    let mut all: Vec<Contender> = names.into_iter().map(of).collect();
    all.sort_by_key(|contender| contender.who != against);
    all
}

fn value(round: &[Row], who: &str, figure: &str) -> Option<f64> {
    round.iter().find(|row| row.who == who)?.figures.get(figure).copied()
}

fn values(rounds: &[Vec<Row>], who: &str, figure: &str) -> Vec<f64> {
    rounds.iter().filter_map(|round| value(round, who, figure)).collect()
}

fn compared(rounds: &[Vec<Row>], who: &str, against: &str, column: &Column) -> Vec<f64> {
    if who == against {
        return Vec::new();
    }
    let within = |round: &Vec<Row>| {
        let (own, other) = (value(round, who, &column.figure)?, value(round, against, &column.figure)?);
        match column.versus {
            Versus::Nothing => None,
            Versus::Times => Some(own / other),
            Versus::Share => Some(other / own),
            Versus::More => Some(own - other),
        }
    };
    rounds.iter().filter_map(within).collect()
}

fn spread(mut values: Vec<f64>) -> Option<Spread> {
    values.sort_by(f64::total_cmp);
    let (min, max) = (*values.first()?, *values.last()?);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(Spread { median: f64::midpoint(lower, upper), min, max })
}

/// All records, the last one of each bench.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Book {
    pub benches: Vec<Record>,
}

impl Book {
    pub fn load(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path)?;
        serde_json::from_str(&text).with_context(|| format!("{} is no book of figures: remove it", path.display()))
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    pub fn put(&mut self, record: Record) {
        self.benches.retain(|known| known.ids != record.ids);
        self.benches.push(record);
        self.benches.sort_by_key(|bench| bench.ids.first().map(|id| (id.len(), id.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(own: f64, floor: f64) -> Vec<Row> {
        vec![Row::new("reef", &[("drain_s", own)]), Row::new("floor", &[("drain_s", floor)])]
    }

    #[test]
    fn a_ratio_is_taken_within_each_round_and_the_median_over_all() {
        let columns = [column("drain_s", "drain", Versus::Share)];
        let rounds = [round(10.0, 5.0), round(4.0, 4.0), round(100.0, 10.0)];
        let all = contenders(&columns, "floor", &rounds);
        assert_eq!(all[0].who, "floor", "what is compared with comes first");
        assert!(all[0].compared.is_empty());
        assert_eq!(all[1].figures["drain_s"], Spread { median: 10.0, min: 4.0, max: 100.0 });
        assert_eq!(all[1].compared["drain_s"], Spread { median: 0.5, min: 0.1, max: 1.0 });
    }

    #[test]
    fn a_contender_that_misses_a_round_or_a_figure_is_shown_with_what_it_has() {
        let columns = [column("drain_s", "drain", Versus::Times), column("cpu_ms", "CPU", Versus::Nothing)];
        let rounds = [round(10.0, 5.0), vec![Row::new("floor", &[("drain_s", 5.0)])]];
        let all = contenders(&columns, "floor", &rounds);
        assert_eq!(all[1].figures["drain_s"].median, 10.0);
        assert_eq!(all[1].compared["drain_s"].median, 2.0);
        assert!(!all[1].figures.contains_key("cpu_ms"));
    }
}
