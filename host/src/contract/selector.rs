//! A label selector as kubectl takes it: `app=web,tier in (a,b),!legacy`. Parsed once, in one normal form, so that two ways to
//! write the same are the same. Pure.

use std::{fmt, str::FromStr};

/// The longest selector in bytes.
const MAX_LENGTH: usize = 4096;

/// Which labels an object must have. The default selects all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Term {
    label: Box<str>,
    test: Test,
}

/// As in Kubernetes, `NotIn` and `Absent` hold where there is no such label, all others do not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Test {
    Present,
    Absent,
    In(Vec<Box<str>>),
    NotIn(Vec<Box<str>>),
    Above(i64),
    Below(i64),
}

impl Selector {
    /// `label` looks up the value of a label.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|term| term.test.holds(label(&term.label)))
    }
}

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let is_one_of = |values: &[Box<str>]| value.is_some_and(|value| values.iter().any(|v| **v == *value));
        let number = value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Present => value.is_some(),
            Self::Absent => value.is_none(),
            Self::In(values) => is_one_of(values),
            Self::NotIn(values) => !is_one_of(values),
            Self::Above(bound) => number.is_some_and(|n| n > *bound),
            Self::Below(bound) => number.is_some_and(|n| n < *bound),
        }
    }
}

impl FromStr for Selector {
    /// A sentence that names the part that is not understood.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!("a label selector may have {MAX_LENGTH} bytes, not {}", text.len()));
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let terms = split(text).into_iter().map(str::trim);
        let mut terms = terms.map(|term| parse(term).ok_or_else(|| misread(term))).collect::<Result<Vec<_>, _>>()?;
        terms.sort();
        terms.dedup();
        Ok(Self(terms))
    }
}

fn misread(term: &str) -> String {
    let shown: String = term.chars().take(60).flat_map(char::escape_debug).collect();
    format!(
        "`{shown}` is no part of a label selector: write `a=b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a`, `!a`, `a>1` or `a<1`, \
         joined by commas"
    )
}

/// At the commas that are not within parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    text.split(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    })
    .collect()
}

fn parse(term: &str) -> Option<Term> {
    if let Some(rest) = term.strip_suffix(')') {
        let (head, values) = rest.split_once('(')?;
        let (label, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let values = set(values.split(','))?;
        return match word {
            "in" => made(label, Test::In(values)),
            "notin" => made(label, Test::NotIn(values)),
            _ => None,
        };
    }
    if let Some(label) = term.strip_prefix('!') {
        return made(label, Test::Absent);
    }
    let Some(at) = term.find(['=', '!', '<', '>']) else { return made(term, Test::Present) };
    let (label, rest) = (term.get(..at)?, term.get(at..)?);
    let one = |value: &str| set(std::iter::once(value));
    if let Some(value) = rest.strip_prefix("!=") {
        made(label, Test::NotIn(one(value)?))
    } else if let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
        made(label, Test::In(one(value)?))
    } else if let Some(bound) = rest.strip_prefix('>') {
        made(label, Test::Above(bound.trim().parse().ok()?))
    } else {
        made(label, Test::Below(rest.strip_prefix('<')?.trim().parse().ok()?))
    }
}

fn made(label: &str, test: Test) -> Option<Term> {
    let label = label.trim();
    let (prefix, name) = label.split_once('/').unwrap_or(("reef.dev", label));
    let dns = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
    let fine = !prefix.is_empty() && prefix.len() <= 253 && prefix.bytes().all(dns) && !name.is_empty() && is_value(name);
    fine.then(|| Term { label: label.into(), test })
}

fn set<'a>(values: impl Iterator<Item = &'a str>) -> Option<Vec<Box<str>>> {
    let mut values: Vec<Box<str>> =
        values.map(str::trim).map(|value| is_value(value).then(|| value.into())).collect::<Option<_>>()?;
    values.sort();
    values.dedup();
    Some(values)
}

/// What a label's value may be: empty too.
fn is_value(text: &str) -> bool {
    let edge = |c: Option<u8>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    text.len() <= 63 && text.bytes().all(inner) && edge(text.bytes().next()) && edge(text.bytes().next_back())
}

/// In normal form.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Term { label, test }) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match test {
                Test::Present => write!(f, "{comma}{label}"),
                Test::Absent => write!(f, "{comma}!{label}"),
                Test::In(values) => write!(f, "{comma}{label} in ({})", values.join(",")),
                Test::NotIn(values) => write!(f, "{comma}{label} notin ({})", values.join(",")),
                Test::Above(bound) => write!(f, "{comma}{label}>{bound}"),
                Test::Below(bound) => write!(f, "{comma}{label}<{bound}"),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &'static str)]) -> bool {
        let selector: Selector = selector.parse().unwrap();
        assert_eq!(selector.to_string().parse::<Selector>().unwrap(), selector);
        selector.matches(|name| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value))
    }

    #[test]
    fn every_form_that_kubectl_takes_means_what_it_means_there() {
        let web = [("app", "web"), ("tier", "7"), ("reef.dev/x", "")];
        let yes = "|app=web|app==web|app = web , tier|app!=db|none!=db|app in (web, db)|none notin (web)|reef.dev/x=|reef.dev/x|!none|tier>6|tier<8| ";
        let no = "app=db|app!=web|none=x|app in (db)|app notin (web,db)|none|!app|tier>7|tier<7|app>1|app,none|none in ()";
        for selector in yes.split('|') {
            assert!(matches(selector, &web), "{selector}");
        }
        for selector in no.split('|') {
            assert!(!matches(selector, &web), "{selector}");
        }
    }

    #[test]
    fn two_ways_to_write_the_same_are_the_same() {
        let parse = |text: &str| text.parse::<Selector>().unwrap();
        assert_eq!(parse("b in (z,y),a=x"), parse("a == x, a=x, b in (y,z,z)"));
        assert_ne!(parse("a=x"), parse("a!=x"));
    }

    #[test]
    fn what_is_no_selector_is_refused_with_the_part_that_is_wrong() {
        for text in ["a b", "a=b c", "a in b", "a in (b", "=x", "a=/", "a>x", "a=b)", "-a", "a/b/c", "/a", "a~b", "", ",a"] {
            let refused = format!("app=web,{text}").parse::<Selector>().unwrap_err();
            assert!(refused.contains("is no part of a label selector"), "{text}: {refused}");
        }
        assert!("a".repeat(5000).parse::<Selector>().is_err());
    }
}
