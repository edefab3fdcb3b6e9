//! Whether an object keeps to a structural schema, as far as that can be told without patterns and CEL.

use serde_json::{Map, Value};

/// Adds a sentence for each defect.
pub fn judge(schema: &Value, value: &Value, at: &str, defects: &mut Vec<String>) {
    let mut say = |what: String| defects.push(format!("{} {what}", if at.is_empty() { "the object" } else { at }));
    if !is_of_type(schema, value) {
        let wanted = schema.get("type").and_then(Value::as_str).unwrap_or("integer or string");
        return say(format!("is {value}, and the CRD wants the type {wanted}"));
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        say(format!("is {value}, and the CRD allows {}", Value::from(words.clone())));
    }
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let size = match value {
        Value::Number(number) => number.as_f64().map(|size| (size, "minimum", "maximum")),
        Value::String(text) => Some((text.chars().count() as f64, "minLength", "maxLength")),
        Value::Array(items) => Some((items.len() as f64, "minItems", "maxItems")),
        Value::Object(fields) => Some((fields.len() as f64, "minProperties", "maxProperties")),
        Value::Null | Value::Bool(_) => None,
    };
    if let Some((size, least, most)) = size {
        if number(least).is_some_and(|least| size < least) {
            say(format!("is below the {least} of {}", schema.get(least).unwrap_or(&Value::Null)));
        }
        if number(most).is_some_and(|most| size > most) {
            say(format!("is above the {most} of {}", schema.get(most).unwrap_or(&Value::Null)));
        }
    }
    match value {
        Value::Array(items) => {
            let schema = schema.get("items").unwrap_or(&Value::Null);
            for (i, item) in items.iter().enumerate() {
                judge(schema, item, &format!("{at}[{i}]"), defects);
            }
        }
        Value::Object(fields) => judge_fields(schema, fields, at, defects),
        _ => {}
    }
}

fn judge_fields(schema: &Value, fields: &Map<String, Value>, at: &str, defects: &mut Vec<String>) {
    let path = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    for key in required(schema).filter(|key| !fields.contains_key(*key)) {
        defects.push(format!("{} is missing, and the CRD requires it", path(key)));
    }
    let anything = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    for (key, value) in fields {
        let known = schema.get("properties").and_then(|properties| properties.get(key));
        match known.or_else(|| schema.get("additionalProperties").filter(|schema| schema.is_object())) {
            Some(schema) => judge(schema, value, &path(key), defects),
            None if anything => {}
            None => defects.push(format!("{} is not in the CRD: the API server would drop it", path(key))),
        }
    }
}

fn is_of_type(schema: &Value, value: &Value) -> bool {
    let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    if value.is_null() && flag("nullable") {
        return true;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        _ if flag("x-kubernetes-int-or-string") => value.is_string() || value.is_i64(),
        _ => true,
    }
}

/// The names that must be there.
pub fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The value with the defaults that the API server fills in.
pub fn defaulted(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut filled = fields.clone();
            for (key, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if let Some(value) = fields.get(key).or_else(|| schema.get("default")) {
                    filled.insert(key.clone(), defaulted(schema, value));
                }
            }
            Value::Object(filled)
        }
        Value::Array(items) => {
            let schema = schema.get("items").unwrap_or(&Value::Null);
            items.iter().map(|item| defaulted(schema, item)).collect()
        }
        other => other.clone(),
    }
}
