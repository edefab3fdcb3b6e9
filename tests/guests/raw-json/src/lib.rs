//! A component without the SDK that answers with text that is no valid JSON, or with a word that nobody knows.
//!
//! `spec.mode` says where: `object`, `list`, `options`, `option`, `verb`, `status`, `extensions`, `failure`; anything else
//! is a plan in order. It looks for the word only, so that it needs no JSON of its own.

use exports::reef::plugin::reconciler::{Failure, Guest, Plan, Report, Request, Write};

wit_bindgen::generate!({ path: "../../../wit", world: "plugin" });

const MANIFEST: &[u8; 109] =
    br#"{"name":"raw-json","version":"0.1.0","reconciles":[{"for":"test.reef.dev/v1/Probe","owns":["v1/ConfigMap"]}]}"#;

#[unsafe(link_section = "reef.manifest")]
pub static SECTION: [u8; MANIFEST.len()] = *MANIFEST;

struct Component;

impl Guest for Component {
    fn reconcile(request: Request) -> Result<Plan, Failure> {
        let asks = |mode: &str| request.object.contains(&format!("\"mode\":\"{mode}\""));
        let or = |mode: &str, bad: &str, good: &str| if asks(mode) { bad.to_owned() } else { good.to_owned() };
        let config = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{}"}}}}"#, request.key.name);
        let object = or("object", "{ this is no JSON", &or("list", "[1, 2]", &config));
        let options = or("options", "none", &or("option", r#"{"colour":"blue"}"#, "{}"));
        let status = asks("status").then(|| "[]".to_owned());
        let report = Report { status, conditions: Vec::new(), events: Vec::new() };
        if asks("failure") {
            let (kind, reason, message) = ("maybe".into(), "Odd".into(), "a failure of no known kind".into());
            return Err(Failure { kind, reason, message, after: None, report, extensions: "{}".into() });
        }
        let writes = vec![Write { verb: or("verb", "bless", "own"), object, options }];
        let extensions = or("extensions", r#"{"pending":3}"#, "{}");
        Ok(Plan { writes, report, after: None, partial: asks("extensions"), done: false, extensions })
    }
}

export!(Component);
