//! Two components that greet: one child each.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::Subject;
use crate::random::Random;

const CONFIG: &str = "v1/ConfigMap";

pub struct Hellos;

impl Subject for Hellos {
    const KIND: &'static str = "demo.reef.dev/v1/Hello";
    const EXAMPLE: &'static str = "hello";
    const COMPONENTS: &'static [&'static str] = &["hello", "hello-v2"];
    const CHILDREN: &'static [&'static str] = &[CONFIG];
    const PAUSE: Duration = Duration::from_millis(15);

    fn spec(_random: &mut Random, _name: &str, edit: u64, _before: Option<&Value>) -> Value {
        json!({ "text": format!("edit {edit}") })
    }

    fn drift(_child: &str) -> Value {
        json!({ "data": { "text": "by hand" } })
    }

    fn children(_spec: &Value) -> Vec<&'static str> {
        vec![CONFIG]
    }

    fn is_done(_object: &Value, children: &BTreeMap<&str, Value>, spec: &Value) -> bool {
        let said = children.get(CONFIG).and_then(|config| config["data"]["text"].as_str());
        // The second component shouts.
        said.zip(spec["text"].as_str()).is_some_and(|(said, text)| said.eq_ignore_ascii_case(text))
    }
}
