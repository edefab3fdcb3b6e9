//! The copies of a history: which there are, what has to come, which are too many.
//!
//! A copy carries a label, by which it is found and by which no history takes it for a source; and in annotations the name of
//! its source, its number and when it was taken. Its own name says what is in it, so that no version is kept twice.

use std::collections::BTreeMap;

use plugin_sdk::{digest, prelude::*};

use crate::{CONFIG, History};

/// On every copy of every history; the value is the name of the history.
const LABEL: &str = "demo.reef.dev/config-history";
const SOURCE: &str = "demo.reef.dev/source";
const NUMBER: &str = "demo.reef.dev/version";
const TAKEN: &str = "demo.reef.dev/taken";

/// So many versions in one run, each with an event, of which a report has at most 20.
const MOST_VERSIONS: usize = 20;
/// So many bytes of them: a plan has at most 16 MiB.
const MOST_BYTES: usize = 8 * 1024 * 1024;
/// What a digest and a hyphen leave of the 253 characters of a name.
const LONGEST_SOURCE: usize = 220;

/// What the history looks at: what it selects, but for copies. The selector itself says so, or each copy would wake it as a
/// source that has come.
pub fn sources(history: &History) -> String {
    format!("!{LABEL},{}", history.spec.selector)
}

/// The copies of this history.
pub fn own(history: &History) -> String {
    format!("{LABEL}={}", history.name())
}

/// What one run is going to do.
#[derive(Default)]
pub struct Batch {
    writes: Vec<Write>,
    bytes: usize,
    pub events: Vec<Event>,
    /// Versions for which this run has no room.
    pub left_over: usize,
    /// When the first of those that have to wait may be taken.
    pub next: Option<Timestamp>,
    /// Names of copies that somebody else's ConfigMaps have.
    pub taken: Vec<String>,
}

enum Write {
    Create(Value),
    /// The source says again what it has said before: the copy is there, and is the last one now.
    Renumber(Value),
}

impl Batch {
    pub fn plan(&mut self) -> Plan {
        self.writes.drain(..).fold(Plan::new(), |plan, write| match write {
            Write::Create(copy) => plan.create(copy).keep(),
            Write::Renumber(copy) => plan.patch(copy),
        })
    }

    fn is_full(&self) -> bool {
        self.writes.len() >= MOST_VERSIONS || self.bytes >= MOST_BYTES
    }
}

#[derive(Clone)]
pub struct Copy {
    name: String,
    number: u64,
    pub taken: Timestamp,
    /// None for one that this run is going to make.
    read: Option<Object>,
}

/// By the name of their source, in the order of their numbers.
pub struct Copies(BTreeMap<String, Vec<Copy>>);

impl Copies {
    pub fn read(history: &History, cx: &Context) -> Result<Self> {
        let mut copies: BTreeMap<String, Vec<Copy>> = BTreeMap::new();
        for object in cx.list_fields(CONFIG, &own(history), &["/metadata/annotations"])? {
            // One that has lost its annotations is nobody's version any more.
            let number = object.annotation(NUMBER).and_then(|number| number.parse().ok());
            let taken = object.annotation(TAKEN).and_then(|taken| taken.parse().ok());
            let source = object.annotation(SOURCE).map(str::to_owned);
            if let (Some(source), Some(number), Some(taken)) = (source, number, taken) {
                let copy = Copy { name: object.name().into(), number, taken, read: Some(object) };
                copies.entry(source).or_default().push(copy);
            }
        }
        copies.values_mut().for_each(|versions| versions.sort_by_key(|copy| copy.number));
        Ok(Self(copies))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Copy> {
        self.0.values().flatten()
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Takes a version of the source, unless there is one of what it says, or it is not time yet.
    pub fn look_at(&mut self, source: &Object, history: &History, cx: &Context, batch: &mut Batch) -> Result<()> {
        let content = ["data", "binaryData"].map(|part| source.at(&format!("/{part}")).clone());
        let name = name(history.name(), source.name(), &content)?;
        let versions = self.0.entry(source.name().into()).or_default();
        let last = versions.last();
        if last.is_some_and(|last| last.name == name) {
            return Ok(());
        }
        let due = last.map(|last| last.taken + history.spec.every).filter(|due| !cx.until(*due).is_zero());
        if let Some(due) = due {
            batch.next = Some(batch.next.map_or(due, |next| next.min(due)));
            return Ok(());
        }
        if batch.is_full() {
            batch.left_over += 1;
            return Ok(());
        }
        let number = last.map_or(1, |last| last.number + 1);
        let taken = Timestamp::from(cx.now());
        let notes = json!({ SOURCE: source.name(), NUMBER: number.to_string(), TAKEN: taken });
        let write = match versions.iter().position(|copy| copy.name == name) {
            Some(before) => {
                let copy = versions.remove(before);
                versions.push(Copy { number, taken, ..copy });
                let metadata = json!({ "name": name, "annotations": notes });
                Write::Renumber(history.child(CONFIG, json!({ "metadata": metadata })))
            }
            None => {
                let copy = copy(history, &name, notes, content);
                if cx.read(&copy)?.is_some() {
                    batch.taken.push(name);
                    return Ok(());
                }
                versions.push(Copy { name: name.clone(), number, taken, read: None });
                Write::Create(copy)
            }
        };
        batch.bytes += source.text().len();
        batch.writes.push(write);
        let message = format!("version {number} of {} is kept as {name}", source.name());
        batch.events.push(Event::normal("VersionKept", message));
        Ok(())
    }

    /// What is there and too much, the oldest of each source; a source that is gone keeps its last versions too.
    pub fn surplus(&self, keep: usize) -> Vec<&Object> {
        let too_many = |versions: &'_ Vec<Copy>| versions.len().saturating_sub(keep);
        let old = self.0.values().flat_map(|versions| versions.iter().take(too_many(versions)));
        old.filter_map(|copy| copy.read.as_ref()).collect()
    }
}

/// The same for the same content of the same source. Two histories that select one source have copies of their own.
fn name(history: &str, source: &str, content: &[Value; 2]) -> Result<String> {
    let digest = digest(&(history, source, content))?;
    let source = source.get(..LONGEST_SOURCE).unwrap_or(source).trim_end_matches(['-', '.']);
    Ok(format!("{source}-{digest}"))
}

fn copy(history: &History, name: &str, notes: Value, content: [Value; 2]) -> Value {
    let metadata = json!({ "name": name, "labels": { LABEL: history.name() }, "annotations": notes });
    let mut body = json!({ "metadata": metadata, "immutable": true });
    if let Value::Object(fields) = &mut body {
        let parts = ["data", "binaryData"].into_iter().zip(content).filter(|(_, part)| !part.is_null());
        fields.extend(parts.map(|(field, part)| (field.to_owned(), part)));
    }
    history.child(CONFIG, body)
}
