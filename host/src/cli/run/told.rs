//! What a run says: how its plugin is, and how each reconcile went.

use std::sync::Arc;

use serde_json::Value;
use similar::TextDiff;
use tokio::sync::watch;

use crate::{
    catalog::crd::Plugin,
    cli::{
        output,
        plugins::{self, Standing, Told},
    },
    dispatch::{Listener, Reconciled},
    names::Span,
    plan::{Class, Difference, Outcome, Written},
};

/// Says how the plugin is, whenever that changes.
pub async fn conditions(mut plugin: watch::Receiver<Option<Arc<Plugin>>>) {
    let mut last = String::new();
    loop {
        let now = plugin.borrow_and_update().as_deref().map(standing);
        if let Some(now) = now
            && now != last
        {
            say(&format!("{now}\n"));
            last = now;
        }
        if plugin.changed().await.is_err() {
            return;
        }
    }
}

fn standing(plugin: &Plugin) -> String {
    let told = Told::of(plugin);
    match plugins::standing(plugin, None) {
        Standing::Ready => format!(
            "{}: {} {} reconciles {}",
            output::good("ready"),
            told.component.unwrap_or_default(),
            told.digest.as_deref().map(plugins::short).unwrap_or_default(),
            told.kinds.join(", ")
        ),
        _ if told.conditions.is_empty() => "loading".to_owned(),
        Standing::NotYet(said) => format!("{}: {said}", output::bad("not ready")),
    }
}

/// Says how each reconcile went.
pub fn listener() -> Listener {
    Arc::new(|reconciled| say(&said(reconciled)))
}

/// That nobody reads on ends nothing.
fn say(text: &str) {
    let _ = output::print(text);
}

fn said(Reconciled { key, outcome, written }: &Reconciled) -> String {
    let mut text = format!("{} {}\n", output::bold(&key.object.to_string()), result(outcome));
    for one in written {
        text += &format!("  {} {}{}\n", done(one), one.object, part(one));
        if let Some(difference) = &one.difference {
            text += &changes(difference);
        }
    }
    text
}

fn result(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done { after: Some(after), pending } => {
            format!("{}, again in {}", output::good(word(*pending)), Span(*after))
        }
        Outcome::Done { after: None, pending } => output::good(word(*pending)),
        Outcome::Failed { class, reason, message, .. } => match class {
            Class::Wait | Class::NotSynced | Class::NotLeading | Class::OwnerGone | Class::Shadowed => {
                format!("waits: {reason}: {message}")
            }
            Class::Retry | Class::Terminal => format!("{}: {reason}: {message}", output::bad("failed")),
        },
    }
}

fn word(pending: bool) -> &'static str {
    if pending { "pending" } else { "done" }
}

fn done(written: &Written) -> &'static str {
    match (written.verb, written.difference.is_some()) {
        ("create", false) => "created",
        ("delete", false) => "deleted",
        (_, false) => "changed",
        ("create", true) => "would create",
        ("delete", true) => "would delete",
        (_, true) => "would change",
    }
}

fn part(written: &Written) -> String {
    written.subresource.as_ref().map(|name| format!(" ({name})")).unwrap_or_default()
}

/// As a diff of YAML.
fn changes(Difference { before, after }: &Difference) -> String {
    let yaml = |value: &Value| match value {
        Value::Null => String::new(),
        value => serde_norway::to_string(value).unwrap_or_default(),
    };
    let (before, after) = (yaml(before), yaml(after));
    let diff = TextDiff::from_lines(&before, &after);
    let mut text = String::new();
    for line in diff.unified_diff().context_radius(2).to_string().lines() {
        let line = match line.chars().next() {
            Some('+') => output::good(line),
            Some('-') => output::bad(line),
            _ => line.to_owned(),
        };
        text += &format!("    {line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::{Cluster, Key, ObjectId, PluginId};

    fn plain(outcome: Outcome, written: Vec<Written>) -> String {
        let object = ObjectId::new("a.dev/v1/Box".parse().unwrap(), "team-a", "x");
        let key = Key { plugin: PluginId::new("team-a", "box"), cluster: Cluster::local(), object };
        anstream::adapter::strip_str(&said(&Reconciled { key, outcome, written })).to_string()
    }

    fn written(verb: &'static str, difference: Option<Difference>) -> Written {
        Written { verb, object: ObjectId::new("v1/ConfigMap".parse().unwrap(), "team-a", "c"), subresource: None, difference }
    }

    #[test]
    fn a_reconcile_is_told_with_its_result_and_its_writes() {
        let done = Outcome::Done { after: None, pending: false };
        let all = vec![written("create", None), Written { subresource: Some("status".into()), ..written("patch", None) }];
        assert_eq!(
            plain(done, all),
            "a.dev/v1/Box team-a/x done\n  created v1/ConfigMap team-a/c\n  changed v1/ConfigMap team-a/c (status)\n"
        );
        let failed = Outcome::Failed { class: Class::Retry, reason: "Conflict".into(), message: "no".into(), after: None };
        assert_eq!(plain(failed, Vec::new()), "a.dev/v1/Box team-a/x failed: Conflict: no\n");
    }

    #[test]
    fn what_would_change_is_a_diff() {
        let difference = Difference { before: json!({"data": {"x": "1"}}), after: json!({"data": {"x": "2"}}) };
        let text = plain(Outcome::Done { after: None, pending: true }, vec![written("patch", Some(difference))]);
        assert!(text.contains("pending\n  would change v1/ConfigMap team-a/c\n"), "{text}");
        assert!(text.contains("    -  x: '1'\n    +  x: '2'\n"), "{text}");
        let gone = Difference { before: json!({"data": {}}), after: Value::Null };
        assert!(
            plain(Outcome::Done { after: None, pending: false }, vec![written("delete", Some(gone))]).contains("would delete")
        );
    }
}
