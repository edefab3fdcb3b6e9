//! Asks a type what it decodes: a deserializer that is driven by the schema of a CRD instead of by data.
//!
//! A struct tells the names of its fields, an enum those of its variants, and a value that is admitted but not decoded
//! is an error that says why.

use std::{cell::RefCell, fmt, iter::Peekable, vec::IntoIter};

use serde::{
    de::{
        DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::Value;

use super::sample::required;

/// Which of the values that the schema admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// All fields, small values, and the type must know all of them.
    Full,
    /// All fields, small values; the type may know some of them.
    Partial,
    /// All fields, large values.
    High,
    /// Only what must be there.
    Least,
}

/// What is wrong, a sentence each.
pub fn ask<T: DeserializeOwned>(schema: &Value, sample: Option<&Value>, at: &str, pass: Pass) -> Vec<String> {
    let defects = RefCell::new(Vec::new());
    let probe = Probe { schema, sample, at: at.to_owned(), pass, defects: &defects };
    let decoded = T::deserialize(probe);
    let mut defects = defects.into_inner();
    // A field that the CRD does not have is missing, of course.
    if let (Err(refusal), true) = (decoded, defects.is_empty()) {
        defects.push(refusal.to_string());
    }
    defects
}

struct Probe<'a> {
    schema: &'a Value,
    /// What the sample has here.
    sample: Option<&'a Value>,
    at: String,
    pass: Pass,
    defects: &'a RefCell<Vec<String>>,
}

impl<'a> Probe<'a> {
    fn say(&self, defect: String) {
        self.defects.borrow_mut().push(format!("{}: {defect}", self.at));
    }

    fn inside(&self, schema: &'a Value, sample: Option<&'a Value>, step: &str) -> Self {
        Self { schema, sample, at: format!("{}{step}", self.at), pass: self.pass, defects: self.defects }
    }

    fn high(&self) -> bool {
        self.pass == Pass::High
    }

    fn type_name(&self) -> &'a str {
        match self.schema.get("type").and_then(Value::as_str) {
            Some(name) => name,
            None if self.schema.get("x-kubernetes-int-or-string").is_none() => "anything",
            None if self.high() => "string",
            None => "integer",
        }
    }

    fn properties(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.schema.get("properties").and_then(Value::as_object).into_iter().flatten()
    }

    /// The fields of an object that the schema admits.
    fn fields(&self) -> Vec<(String, Probe<'a>)> {
        let must: Vec<&str> = required(self.schema).collect();
        let given = |(key, schema): &(&String, &Value)| {
            self.pass != Pass::Least || must.contains(&key.as_str()) || schema.get("default").is_some()
        };
        let sample = |key: &str| self.sample.and_then(|sample| sample.get(key));
        let mut fields: Vec<_> = self
            .properties()
            .filter(given)
            .map(|(key, schema)| (key.clone(), self.inside(schema, sample(key), &format!(".{key}"))))
            .collect();
        if let Some(schema) = self.schema.get("additionalProperties").filter(|schema| schema.is_object())
            && self.pass != Pass::Least
        {
            fields.push(("key".into(), self.inside(schema, None, "[*]")));
        }
        fields
    }

    fn bound(&self, keys: (&str, &str), least: i64, most: i64) -> i64 {
        let (key, bound) = if self.high() { (keys.1, most) } else { (keys.0, least) };
        self.schema.get(key).and_then(Value::as_i64).unwrap_or(bound)
    }

    fn integer(&self) -> i64 {
        match self.schema.get("format").and_then(Value::as_str) {
            Some("int32") => self.bound(("minimum", "maximum"), i32::MIN.into(), i32::MAX.into()),
            _ => self.bound(("minimum", "maximum"), i64::MIN, i64::MAX),
        }
    }

    /// Of what a string may be, only an example is known.
    fn text(&self) -> String {
        let example = [self.schema.get("example"), self.sample, self.schema.get("default")].into_iter().flatten();
        if let Some(text) = example.filter_map(Value::as_str).next() {
            return text.to_owned();
        }
        match self.schema.get("format").and_then(Value::as_str) {
            Some("date-time") => "2006-01-02T15:04:05Z".into(),
            Some("date") => "2006-01-02".into(),
            Some("duration") => "1s".into(),
            _ => "x".repeat(usize::try_from(self.bound(("minLength", "minLength"), 0, 0)).unwrap_or(0)),
        }
    }

    fn words(&self) -> Option<Vec<&'a str>> {
        Some(self.schema.get("enum")?.as_array()?.iter().filter_map(Value::as_str).collect())
    }

    fn word(&self) -> Option<&'a str> {
        let words = self.words()?;
        if self.high() { words.last().copied() } else { words.first().copied() }
    }

    fn compare_fields(&self, name: &str, fields: &[&str]) {
        for field in fields.iter().filter(|field| !self.properties().any(|(key, _)| key == *field)) {
            self.say(format!("`{name}` has the field `{field}`, and the CRD has not: add it to the schema, or take it away"));
        }
        if self.pass == Pass::Full {
            for (key, _) in self.properties().filter(|(key, _)| !fields.contains(&key.as_str())) {
                self.say(format!("the CRD has the field `{key}`, and `{name}` has not: what users write there does nothing"));
            }
        }
    }

    fn compare_words(&self, name: &str, variants: &[&str]) {
        let Some(words) = self.words() else {
            return self.say(format!("`{name}` knows {}, and the CRD allows any text: say so with `enum`", variants.join(", ")));
        };
        for word in words.iter().filter(|word| !variants.contains(word)) {
            self.say(format!("the CRD allows `{word}`, and `{name}` does not have it"));
        }
        for variant in variants.iter().filter(|variant| !words.contains(variant)) {
            self.say(format!("`{name}` has `{variant}`, and the CRD does not allow it"));
        }
    }
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let at = self.at.clone();
        let decoded = match self.type_name() {
            "object" => visitor.visit_map(Fields::of(&self)),
            "array" => visitor.visit_seq(Items::of(&self)),
            "string" => match self.word() {
                Some(word) => visitor.visit_str(word),
                None => visitor.visit_string(self.text()),
            },
            "integer" => match self.integer() {
                negative @ ..0 => visitor.visit_i64(negative),
                positive => visitor.visit_u64(positive.unsigned_abs()),
            },
            "number" => visitor.visit_f64(self.bound(("minimum", "maximum"), -1, 1) as f64 + 0.5),
            "boolean" => visitor.visit_bool(self.high()),
            _ => visitor.visit_map(Fields::of(&self)),
        };
        decoded.map_err(|refusal: Refusal| refusal.at(&at))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let free = self.schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
        if self.type_name() == "object" && !free {
            self.compare_fields(name, fields);
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let at = self.at.clone();
        if self.type_name() == "object" {
            // One of its fields at a time is what such an enum is.
            let mut fields = Fields::of(&self);
            fields.rest = fields.rest.next().into_iter().collect::<Vec<_>>().into_iter().peekable();
            return visitor.visit_enum(MapAccessDeserializer::new(fields)).map_err(|refusal: Refusal| refusal.at(&at));
        }
        self.compare_words(name, variants);
        let word = self.word().unwrap_or_default();
        let word: StrDeserializer<'_, Refusal> = word.into_deserializer();
        visitor.visit_enum(word).map_err(|refusal: Refusal| refusal.at(&at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier
    }
}

/// The fields of an object.
struct Fields<'a> {
    rest: Peekable<IntoIter<(String, Probe<'a>)>>,
}

impl<'a> Fields<'a> {
    fn of(probe: &Probe<'a>) -> Self {
        Self { rest: probe.fields().into_iter().peekable() }
    }
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        self.rest.peek().map(|(key, _)| seed.deserialize(key.as_str().into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        match self.rest.next() {
            Some((_, probe)) => seed.deserialize(probe),
            None => Err(Refusal::custom("there is no further field")),
        }
    }
}

/// The one item of a list, or none.
struct Items<'a>(Option<Probe<'a>>);

impl<'a> Items<'a> {
    fn of(probe: &Probe<'a>) -> Self {
        let sample = probe.sample.and_then(|sample| sample.get(0));
        let items = probe.schema.get("items").filter(|_| probe.pass != Pass::Least);
        Self(items.map(|schema| probe.inside(schema, sample, "[*]")))
    }
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        self.0.take().map(|probe| seed.deserialize(probe)).transpose()
    }
}

/// What a type says to a value that the schema admits.
#[derive(Debug)]
struct Refusal {
    at: String,
    why: String,
}

impl Refusal {
    /// The innermost place is the one to name.
    fn at(self, at: &str) -> Self {
        if self.at.is_empty() { Self { at: at.to_owned(), ..self } } else { self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.why)
    }
}

impl std::error::Error for Refusal {}

impl serde::de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { at: String::new(), why: format!("the CRD admits what the type does not decode: {message}") }
    }

    fn missing_field(field: &'static str) -> Self {
        let fix = "make it an `Option` or give it a default, or add it to `required` in the schema";
        Self { at: String::new(), why: format!("the type needs the field `{field}`, and the CRD does not: {fix}") }
    }
}
