//! Label selectors of the fake cluster: `a=b`, `a==b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a` and `!a`, joined by commas.

use serde_json::Value;

use crate::error::{Error, Result};

/// One term: the label is one of these values, or is there at all; or not.
#[derive(Debug)]
pub struct Term<'a> {
    label: &'a str,
    values: Option<Vec<&'a str>>,
    negated: bool,
}

pub fn parse(selector: &str) -> Result<Vec<Term<'_>>> {
    let mut depth = 0_i32;
    let terms = selector.split(|c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    });
    terms.map(str::trim).filter(|term| !term.is_empty()).map(Term::parse).collect()
}

impl<'a> Term<'a> {
    fn parse(term: &'a str) -> Result<Self> {
        let one = |value: &'a str| Some(vec![value.trim()]);
        let (label, values, negated) = if let Some((head, values)) = term.strip_suffix(')').and_then(|t| t.split_once('(')) {
            let values = Some(values.split(',').map(str::trim).collect());
            match head.trim().rsplit_once(char::is_whitespace) {
                Some((label, "in")) => (label, values, false),
                Some((label, "notin")) => (label, values, true),
                _ => return Err(unknown(term)),
            }
        } else if let Some((label, value)) = term.split_once("!=") {
            (label, one(value), true)
        } else if let Some((label, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (label, one(value), false)
        } else {
            (term.trim_start_matches('!'), None, term.starts_with('!'))
        };
        let label = label.trim();
        if label.is_empty() || label.contains([' ', '(', ')', '<', '>']) {
            return Err(unknown(term));
        }
        Ok(Self { label, values, negated })
    }

    /// As in Kubernetes, `!=`, `notin` and `!` hold where there is no such label.
    pub fn matches(&self, object: &Value) -> bool {
        let label = object.get("metadata").and_then(|m| m.get("labels")).and_then(|l| l.get(self.label));
        let matches = match &self.values {
            Some(values) => label.and_then(Value::as_str).is_some_and(|label| values.contains(&label)),
            None => label.is_some(),
        };
        matches != self.negated
    }
}

fn unknown(term: &str) -> Error {
    let known = "Context::fake() knows `a=b`, `a!=b`, `a in (b,c)`, `a notin (b,c)`, `a` and `!a`";
    Error::terminal(format!("the selector term `{term}` is not understood: {known}"))
}
