//! The words in which a test says what goes wrong, one rule a line:
//!
//! ```text
//! VERB RESOURCE[/SUBRESOURCE] [in NAMESPACE] [named NAME] [#N | #N+]: FAULT
//!
//! create configmaps #1: reset after              the first one is carried out, its answer is lost
//! write * #3: kill during                        the third write is carried out, the host killed before the answer
//! patch hellos/status: answer 429 before retry 2 refused with `Retry-After: 2`
//! watch configmaps #2+: events #1 duplicate      from the second watch on, the first event comes twice
//! ```
//!
//! `write` is any write (see [`What::is_write`]), `any` any request; `*` is every resource and subresource. `#3` is the third
//! request that fits, `#3+` the third and all later ones. The first rule that fits decides.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Context, Error, Result, bail};

use super::what::What;

#[derive(Debug, Clone)]
pub struct Rule {
    verb: String,
    resource: String,
    subresource: String,
    namespace: Option<String>,
    name: Option<String>,
    nth: Nth,
    pub fault: Fault,
    text: String,
}

/// Which of several, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nth {
    Only(u64),
    From(u64),
}

/// On which side of the commit: with `After`, the request is carried out and only its answer suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request's stream is reset; others on its connection live.
    Reset(When),
    /// The connection is closed, with everything that is on it.
    Cut(When),
    /// No answer ever comes.
    Stall(When),
    /// The connection stays open and says nothing more, not even to pings.
    Hole,
    Delay(Duration),
    Answer {
        code: u16,
        when: When,
        retry_after: Option<u64>,
    },
    Kill(Moment),
    List(ListFault),
    Events(Nth, EventFault),
}

/// When the host is killed: before the request is passed on, after it was carried out and before the answer, or after that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    During,
    After,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFault {
    /// Well-formed, and nothing in it.
    Empty,
    /// Well-formed, and the second half is not in it.
    Halved,
    /// Ends in the middle.
    Torn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFault {
    Duplicate,
    Drop,
    /// Comes after the next one.
    Reorder,
    Delay(Duration),
    /// An `ERROR` event with code 410 in its place, then the end.
    Gone,
    /// The stream is reset in its place.
    Cut,
    /// Nothing comes any more in this stream; the connection lives.
    Hole,
}

impl Rule {
    pub fn fits(&self, what: &What) -> bool {
        let verb = match &*self.verb {
            "any" => true,
            "write" => what.is_write(),
            verb => verb == what.verb,
        };
        let word = |wanted: &str, is: &str| wanted == "*" || wanted == is;
        verb && word(&self.resource, &what.resource)
            && word(&self.subresource, &what.subresource)
            && self.namespace.as_ref().is_none_or(|namespace| *namespace == what.namespace)
            && self.name.as_ref().is_none_or(|name| *name == what.name)
    }

    /// Whether the so manieth that fits is meant.
    pub fn meant(&self, count: u64) -> bool {
        self.nth.holds(count)
    }
}

impl Nth {
    pub fn holds(self, count: u64) -> bool {
        match self {
            Self::Only(n) => count == n,
            Self::From(n) => count >= n,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What it is counted as.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |debug: String| debug.to_lowercase();
        match self {
            Self::Reset(when) => write!(f, "reset {}", word(format!("{when:?}"))),
            Self::Cut(when) => write!(f, "cut {}", word(format!("{when:?}"))),
            Self::Stall(when) => write!(f, "stall {}", word(format!("{when:?}"))),
            Self::Hole => f.write_str("hole"),
            Self::Delay(_) => f.write_str("delay"),
            Self::Answer { code, when, .. } => write!(f, "answer {code} {}", word(format!("{when:?}"))),
            Self::Kill(moment) => write!(f, "kill {}", word(format!("{moment:?}"))),
            Self::List(fault) => write!(f, "list {}", word(format!("{fault:?}"))),
            Self::Events(_, fault) => fault.fmt(f),
        }
    }
}

impl fmt::Display for EventFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplicate => "event duplicate",
            Self::Drop => "event drop",
            Self::Reorder => "event reorder",
            Self::Delay(_) => "event delay",
            Self::Gone => "event gone",
            Self::Cut => "event cut",
            Self::Hole => "event hole",
        })
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Result<Self> {
            let (head, fault) = text.split_once(": ").context("there is no `: `")?;
            let mut words = head.split_whitespace();
            let verb = words.next().context("there is no verb")?.to_owned();
            let target = words.next().context("there is no resource")?;
            let (resource, subresource) = match target.split_once('/') {
                Some((resource, subresource)) => (resource, subresource),
                None if target == "*" => ("*", "*"),
                None => (target, ""),
            };
            let mut rule = Self {
                verb,
                resource: resource.to_owned(),
                subresource: subresource.to_owned(),
                namespace: None,
                name: None,
                nth: Nth::From(1),
                fault: fault.parse()?,
                text: text.to_owned(),
            };
            while let Some(word) = words.next() {
                match word {
                    "in" => rule.namespace = words.next().map(str::to_owned),
                    "named" => rule.name = words.next().map(str::to_owned),
                    word => rule.nth = word.parse()?,
                }
            }
            Ok(rule)
        };
        parse().with_context(|| format!("in the rule `{text}`"))
    }
}

impl FromStr for Nth {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = text.strip_prefix('#').with_context(|| format!("`{text}` is neither #3 nor #3+"))?;
        Ok(match number.strip_suffix('+') {
            Some(number) => Self::From(number.parse()?),
            None => Self::Only(number.parse()?),
        })
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words.as_slice() {
            ["reset", at] => Self::Reset(when(at)?),
            ["cut", at] => Self::Cut(when(at)?),
            ["stall", at] => Self::Stall(when(at)?),
            ["hole"] => Self::Hole,
            ["delay", time] => Self::Delay(millis(time)?),
            ["answer", code, at] => Self::Answer { code: code.parse()?, when: when(at)?, retry_after: None },
            ["answer", code, at, "retry", seconds] => {
                Self::Answer { code: code.parse()?, when: when(at)?, retry_after: Some(seconds.parse()?) }
            }
            ["kill", "before"] => Self::Kill(Moment::Before),
            ["kill", "during"] => Self::Kill(Moment::During),
            ["kill", "after"] => Self::Kill(Moment::After),
            ["list", "empty"] => Self::List(ListFault::Empty),
            ["list", "halved"] => Self::List(ListFault::Halved),
            ["list", "torn"] => Self::List(ListFault::Torn),
            ["events", nth, fault @ ..] => Self::Events(nth.parse()?, event(fault)?),
            _ => bail!("`{text}` is no fault"),
        })
    }
}

fn event(words: &[&str]) -> Result<EventFault> {
    Ok(match words {
        ["duplicate"] => EventFault::Duplicate,
        ["drop"] => EventFault::Drop,
        ["reorder"] => EventFault::Reorder,
        ["delay", time] => EventFault::Delay(millis(time)?),
        ["gone"] => EventFault::Gone,
        ["cut"] => EventFault::Cut,
        ["hole"] => EventFault::Hole,
        words => bail!("`{}` is nothing that happens to an event", words.join(" ")),
    })
}

fn when(word: &str) -> Result<When> {
    match word {
        "before" => Ok(When::Before),
        "after" => Ok(When::After),
        word => bail!("`{word}` is neither before nor after"),
    }
}

fn millis(word: &str) -> Result<Duration> {
    let number = word.strip_suffix("ms").with_context(|| format!("`{word}` is no time such as 200ms"))?;
    Ok(Duration::from_millis(number.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(verb: &'static str, resource: &str, subresource: &str) -> What {
        let text = |text: &str| text.to_owned();
        What {
            verb,
            resource: text(resource),
            subresource: text(subresource),
            namespace: text("n"),
            name: text("x"),
            ..What::default()
        }
    }

    #[test]
    fn a_rule_fits_what_it_names() {
        let fits = |rule: &str, what: &What| format!("{rule}: hole").parse::<Rule>().unwrap().fits(what);
        let create = what("create", "configmaps", "");
        for rule in ["create configmaps", "write *", "any *", "write configmaps in n named x", "any configmaps/*", "create * #3"]
        {
            assert!(fits(rule, &create), "{rule}");
        }
        for rule in ["patch configmaps", "create hellos", "create configmaps/status", "create configmaps in m", "any * named y"] {
            assert!(!fits(rule, &create), "{rule}");
        }
        assert!(
            fits("patch hellos/status", &what("patch", "hellos", "status"))
                && !fits("patch hellos", &what("patch", "hellos", "status"))
        );
        assert!(!fits("write *", &what("get", "configmaps", "")));
    }

    #[test]
    fn numbers_say_which_of_several() {
        let rule = |text: &str| text.parse::<Rule>().unwrap();
        assert!(rule("any *: hole").meant(1) && rule("any *: hole").meant(9));
        assert!(!rule("any * #2: hole").meant(1) && rule("any * #2: hole").meant(2) && !rule("any * #2: hole").meant(3));
        assert!(!rule("any * #2+: hole").meant(1) && rule("any * #2+: hole").meant(3));
    }

    #[test]
    fn every_fault_has_its_words_and_a_slip_is_told() {
        let fault = |text: &str| text.parse::<Fault>();
        assert_eq!(
            fault("answer 429 after retry 2").unwrap(),
            Fault::Answer { code: 429, when: When::After, retry_after: Some(2) }
        );
        assert_eq!(
            fault("events #2+ delay 20ms").unwrap(),
            Fault::Events(Nth::From(2), EventFault::Delay(Duration::from_millis(20)))
        );
        for text in
            ["reset before", "cut after", "stall after", "hole", "delay 5ms", "kill during", "list torn", "events #1 gone"]
        {
            assert!(fault(text).is_ok(), "{text}");
        }
        for text in ["cut", "answer before", "kill later", "events duplicate", "delay 5"] {
            assert!(fault(text).is_err(), "{text}");
        }
        assert!(
            "create configmaps reset after".parse::<Rule>().unwrap_err().to_string().contains("create configmaps reset after")
        );
    }
}
