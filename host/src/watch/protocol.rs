//! What a list page and a line of a watch say. Decoding only: no state, no I/O.
//!
//! An object that does not decode is set aside by name; it never takes the page or the stream with it.

use super::{
    Entry,
    raw::{self, Fields},
};
use crate::names::Kind;

/// The annotation of the bookmark that ends the first part of a streaming list.
const LISTED: &str = "k8s.io/initial-events-end";

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    pub items: Vec<Entry>,
    pub quarantined: Vec<Quarantined>,
    pub version: u64,
    /// The token for the next page.
    pub next: Option<String>,
}

/// One line of a watch.
#[derive(Debug)]
pub enum Event {
    Present(Entry),
    Gone(Entry),
    Bookmark(u64),
    /// Everything that was there when the watch began has been sent, as of this version.
    Listed(u64),
    Quarantined(Quarantined),
    /// The server ends the watch with a `Status`.
    Error {
        code: u16,
        message: String,
    },
}

/// An object that does not decode, named as far as it can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    pub namespace: String,
    pub name: String,
    pub why: String,
}

impl Page {
    pub fn parse(body: &[u8], kind: &Kind) -> Result<Self, String> {
        let list = Fields::parse(body).map_err(|e| format!("the list of {kind} is not a JSON object: {e}"))?;
        let metadata = list.get("metadata").ok_or_else(|| format!("the list of {kind} has no metadata"))?;
        let metadata = Fields::parse(metadata.as_bytes()).map_err(|e| format!("the list of {kind} has no metadata: {e}"))?;
        let objects = list.get("items").map(raw::items).transpose();
        let objects = objects.map_err(|e| format!("the items of the list of {kind} are not an array: {e}"))?.unwrap_or_default();
        let mut page = Self {
            items: Vec::with_capacity(objects.len()),
            quarantined: Vec::new(),
            version: version(&metadata)?,
            next: metadata.text("continue").filter(|token| !token.is_empty()).map(Into::into),
        };
        for object in objects {
            match decode(object, kind) {
                Ok(entry) => page.items.push(entry),
                Err(quarantined) => page.quarantined.push(quarantined),
            }
        }
        Ok(page)
    }
}

impl Event {
    pub fn parse(line: &[u8], kind: &Kind) -> Result<Self, String> {
        let event = Fields::parse(line).map_err(|e| format!("a watch event of {kind} is not a JSON object: {e}"))?;
        let object = event.get("object").ok_or_else(|| format!("a watch event of {kind} has no object"))?;
        let what = event.text("type").unwrap_or_default();
        Ok(match &*what {
            "ADDED" | "MODIFIED" => decode(object, kind).map_or_else(Self::Quarantined, Self::Present),
            "DELETED" => decode(object, kind).map_or_else(Self::Quarantined, Self::Gone),
            "BOOKMARK" => bookmark(object)?,
            "ERROR" => error(object),
            _ => return Err(format!("a watch event of {kind} has the unknown type `{what}`")),
        })
    }
}

fn decode(object: &str, kind: &Kind) -> Result<Entry, Quarantined> {
    let entry = Entry::parse(object.as_bytes(), Some(kind)).and_then(|entry| match entry.id.kind == *kind {
        true => Ok(entry),
        false => Err(format!("it is a {}, not a {kind}", entry.id.kind)),
    });
    entry.map_err(|why| {
        let metadata = raw::at(object, "/metadata").unwrap_or("{}");
        let text = |path| raw::at(metadata, path).and_then(raw::string).unwrap_or_default().into_owned();
        Quarantined { namespace: text("/namespace"), name: text("/name"), why }
    })
}

fn bookmark(object: &str) -> Result<Event, String> {
    let metadata = raw::at(object, "/metadata").ok_or("a bookmark has no metadata")?;
    let metadata = Fields::parse(metadata.as_bytes()).map_err(|e| format!("a bookmark has no metadata: {e}"))?;
    let annotations = metadata.get("annotations").and_then(|text| Fields::parse(text.as_bytes()).ok()).unwrap_or_default();
    let ends_list = annotations.text(LISTED).is_some_and(|value| value == "true");
    version(&metadata).map(if ends_list { Event::Listed } else { Event::Bookmark })
}

fn error(status: &str) -> Event {
    let code = raw::at(status, "/code").and_then(|code| code.parse().ok()).unwrap_or(0);
    let message = raw::at(status, "/message").and_then(raw::string).unwrap_or_default().into_owned();
    Event::Error { code, message }
}

fn version(metadata: &Fields<'_>) -> Result<u64, String> {
    let text = metadata.text("resourceVersion").unwrap_or_default();
    text.parse().map_err(|_| format!("the resourceVersion `{text}` of a list or bookmark is not a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind() -> Kind {
        "v1/ConfigMap".parse().unwrap()
    }

    fn page(json: &str) -> Result<Page, String> {
        Page::parse(json.as_bytes(), &kind())
    }

    #[test]
    fn a_page_knows_its_version_and_where_it_goes_on() {
        let json = r#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":"tok\"en","remainingItemCount":1},
            "items":[{"metadata":{"name":"a","namespace":"n","uid":"u","resourceVersion":"5"},"data":{"x":"y"}}]}"#;
        let page = page(json).unwrap();
        assert_eq!((page.version, page.next.as_deref(), page.items.len()), (7, Some("tok\"en"), 1));
        assert!(page.items[0].bytes.starts_with(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata""#));
    }

    #[test]
    fn an_empty_list_may_say_null() {
        for items in [r#""items":null,"#, r#""items":[],"#, ""] {
            let page = page(&format!(r#"{{{items}"metadata":{{"resourceVersion":"7"}}}}"#)).unwrap();
            assert!(page.items.is_empty() && page.next.is_none());
        }
    }

    #[test]
    fn only_the_object_that_does_not_decode_is_set_aside_and_named() {
        let good = r#"{"metadata":{"name":"good","namespace":"n","uid":"u","resourceVersion":"5"}}"#;
        let bad = r#"{"metadata":{"name":"bad","namespace":"n","uid":7,"resourceVersion":"5"}}"#;
        let alien = r#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"alien","uid":"u","resourceVersion":"5"}}"#;
        let page = page(&format!(r#"{{"metadata":{{"resourceVersion":"7"}},"items":[{bad},{good},[],{alien}]}}"#)).unwrap();
        assert_eq!(page.items.iter().map(|e| &*e.id.name).collect::<Vec<_>>(), ["good"]);
        assert_eq!(page.quarantined.iter().map(|q| &*q.name).collect::<Vec<_>>(), ["bad", "", "alien"]);
        assert_eq!(page.quarantined[2].why, "it is a v1/Secret, not a v1/ConfigMap");
    }

    #[test]
    fn every_type_of_event_is_understood_and_another_ends_the_stream() {
        let parse = |json: &str| Event::parse(json.as_bytes(), &kind());
        let object = r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","uid":"u","resourceVersion":"5"}}"#;
        assert!(matches!(parse(&format!(r#"{{"type":"ADDED","object":{object}}}"#)), Ok(Event::Present(_))));
        assert!(matches!(parse(&format!(r#"{{"object":{object},"type":"MODIFIED"}}"#)), Ok(Event::Present(_))));
        assert!(matches!(parse(&format!(r#"{{"type":"DELETED","object":{object}}}"#)), Ok(Event::Gone(_))));
        let bookmark = r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"9","creationTimestamp":null}}}"#;
        assert!(matches!(parse(bookmark), Ok(Event::Bookmark(9))));
        let end = bookmark.replace(r#""creationTimestamp":null"#, r#""annotations":{"k8s.io/initial-events-end":"true"}"#);
        assert!(matches!(parse(&end), Ok(Event::Listed(9))));
        let gone = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#;
        assert!(matches!(parse(gone), Ok(Event::Error { code: 410, message }) if message == "too old"));
        assert!(matches!(parse(r#"{"type":"ADDED","object":{}}"#), Ok(Event::Quarantined(_))));
        assert!(parse(r#"{"type":"NEW","object":{}}"#).is_err());
        assert!(parse(r#"{"type":"ADDED","#).is_err());
    }
}
