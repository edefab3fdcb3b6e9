//! Reads what its object says, one object or a list, and says what it found: in the status, and in a line of the log.

use plugin_sdk::prelude::*;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    /// `v1/ConfigMap`
    kind: String,
    /// Of one object; empty: a list.
    name: String,
    /// Of a list.
    selector: String,
    /// What to keep; empty: everything.
    fields: Vec<String>,
    /// Anything, decoded whole.
    #[allow(dead_code, reason = "it is there to be decoded")]
    anything: Value,
    /// A read without an answer is no failure: nothing but the read itself wakes the object again.
    tolerant: bool,
}

fn reconcile(probe: Object<Spec>, cx: &Context) -> Result<Plan> {
    match found(&probe, cx) {
        Ok(found) => {
            println!("found {}", found.len());
            Ok(Plan::new().status(json!({ "found": found, "error": "" })))
        }
        Err(error) if probe.spec.tolerant => Ok(Plan::new().status(json!({ "found": [], "error": error.to_string() }))),
        Err(error) => Err(error),
    }
}

/// Names, each with `data.value` where there is one.
fn found(probe: &Object<Spec>, cx: &Context) -> Result<Vec<String>> {
    let Spec { kind, name, selector, fields, .. } = &probe.spec;
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let found = match name.as_str() {
        "" => cx.list_fields(kind, selector, &fields)?,
        name => cx.get_fields(kind, probe.namespace(), name, &fields)?.into_iter().collect(),
    };
    let said = |object: &Object| match object.at("/data/value").as_str() {
        Some(value) => format!("{}={value}", object.name()),
        None => object.name().to_owned(),
    };
    Ok(found.iter().map(said).collect())
}

plugin!(reconcile, for: "test.reef.dev/v1/Probe",
    reads: ["v1/ConfigMap", "v1/ServiceAccount", "v1/Secret", "late.reef.dev/v1/Late", "gone.reef.dev/v1/Gone"]);
