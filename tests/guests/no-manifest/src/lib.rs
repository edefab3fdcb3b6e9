//! A component of the right world that says nothing of itself: there is no `plugin!` line, and no section by hand.

use exports::reef::plugin::reconciler::{Failure, Guest, Plan, Report, Request};

wit_bindgen::generate!({ path: "../../../wit", world: "plugin" });

struct Component;

impl Guest for Component {
    fn reconcile(_: Request) -> Result<Plan, Failure> {
        let report = Report { status: None, conditions: Vec::new(), events: Vec::new() };
        Ok(Plan { writes: Vec::new(), report, after: None, partial: false, done: false, extensions: "{}".into() })
    }
}

export!(Component);
