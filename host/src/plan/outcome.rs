//! What people get to see of a reconcile: the status, the host's condition, and the events.

use super::{
    Outcome, Run, Trouble,
    failure::{Class, Failed},
    report::{Reported, is_reason},
    status::{self, Live},
    validate::{Invalid, parse_object},
    writer::Target,
};
use crate::{
    contract::{Event, FailureKind, Plan, Truth},
    identity::ApiError,
};

/// How often a status is merged anew because somebody else was faster.
const ROUNDS: usize = 3;
const DONE: &str = "Reconciled";
const PENDING: &str = "Pending";

/// What a plan that does not say everything yet is waiting for. `None`: it is complete.
pub(super) fn pending(plan: &Plan, cleanup: bool) -> Result<Option<String>, Invalid> {
    let text = if plan.extensions.trim().is_empty() { "{}" } else { &plan.extensions };
    let mut extensions = parse_object(text).map_err(|said| Invalid(format!("the plan's extensions {said}")))?;
    let said = match extensions.remove("pending") {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(said)) => Some(said),
        Some(other) => return Err(Invalid(format!("the plan's extension `pending` is `{other}`: write a string"))),
    };
    if let Some(unknown) = extensions.keys().next() {
        return Err(Invalid(format!(
            "the plan's extension `{unknown}` is unknown to this host: leave it out, or use a newer host"
        )));
    }
    let partial = plan.partial || said.is_some();
    match (plan.done, cleanup) {
        (true, false) => Err(Invalid("the plan says `done`, which only a cleanup may: leave it out".into())),
        (true, true) if partial => Err(Invalid("the plan says `done` and is partial: say one of them".into())),
        (true, true) => Ok(None),
        (false, true) if !partial => Err(Invalid(
            "the cleanup is neither done nor pending: return `Plan::done()`, or say with `pending(..)` what it waits for".into(),
        )),
        (false, true) => Ok(Some(said.unwrap_or_else(|| "the cleanup is not done yet".into()))),
        (false, false) => Ok(partial.then(|| said.unwrap_or_else(|| "the plan does not decide everything yet".into()))),
    }
}

impl From<Invalid> for Failed {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_plan(invalid.0)
    }
}

impl Run<'_> {
    pub(super) async fn succeed(&mut self, reported: &Reported, pending: Option<&str>) -> Result<(), Failed> {
        match pending {
            None => self.tell(reported, Truth::True, DONE, "everything that was planned is applied").await?,
            Some(said) => self.tell(reported, Truth::Unknown, PENDING, said).await?,
        }
        self.events(&reported.events).await;
        Ok(())
    }

    /// Says what is not done yet although the plan is carried out so far.
    pub(super) async fn told(&mut self, waits: Failed, reported: &Reported) -> Result<(), Failed> {
        if let Some(truth) = waits.told {
            self.tell(reported, truth, &waits.reason, &waits.message).await?;
            self.events(&reported.events).await;
        }
        Ok(())
    }

    /// Says why it failed, where that is worth a word, and what is to be done about it.
    pub(super) async fn fail(&mut self, failed: Failed, reported: &Reported) -> Outcome {
        let told = match failed.told {
            Some(truth) => self.tell_failure(&failed, truth, reported).await,
            None => Ok(()),
        };
        // That there is no owner, or no right to write, outdoes the failure itself.
        let failed = match told {
            Err(second) if matches!(second.class, Class::NotLeading | Class::OwnerGone) => second,
            Err(second) => {
                tracing::warn!(object = %self.current.id, why = second.message, "the failure could not be told");
                self.untold = true;
                failed
            }
            Ok(()) => failed,
        };
        Outcome::Failed { class: failed.class, reason: failed.reason, message: failed.message, after: failed.after }
    }

    async fn tell_failure(&mut self, failed: &Failed, truth: Truth, reported: &Reported) -> Result<(), Failed> {
        let host = &self.author.entry.condition;
        let begins = truth == Truth::False
            && !Live::of(&self.current, &self.writer.manager).is_ok_and(|live| live.stands_at(host, Truth::False));
        let told = self.tell(reported, truth, &failed.reason, &failed.message).await;
        let gone = told.as_ref().is_err_and(|e| matches!(e.class, Class::NotLeading | Class::OwnerGone));
        if begins && !gone {
            let warning = Event {
                severity: "Warning".into(),
                reason: failed.reason.chars().take(128).collect(),
                message: failed.message.clone(),
            };
            self.events(&[warning]).await;
        }
        self.events(&reported.events).await;
        told
    }

    /// A failure of the plugin or its sandbox, with what it wants to have said.
    pub(super) async fn trouble(&mut self, trouble: Trouble) -> Outcome {
        if let Err(failed) = self.catch_up() {
            return self.fail(failed, &Reported::default()).await;
        }
        let mut failed = failed(&trouble);
        if self.is_left_alone() {
            failed.told = None;
        }
        match self.reported(&trouble.report).await {
            Ok(reported) => self.fail(failed, &reported).await,
            Err(invalid) => {
                failed.message = format!("{} (and its report cannot be written: {})", failed.message, invalid.message);
                self.fail(failed, &Reported::default()).await
            }
        }
    }

    /// Writes the status, unless it says all of this already.
    async fn tell(&mut self, reported: &Reported, truth: Truth, reason: &str, message: &str) -> Result<(), Failed> {
        if !self.owner.resource.status {
            return Ok(());
        }
        let shape = self.conditions().await?;
        let host = status::host_condition(&self.author.entry.condition, truth, reason, message);
        let generation = self.owner.entry.generation;
        let id = self.current.id.clone();
        let target = Target::status(&self.owner.resource, &id);
        for _ in 0..ROUNDS {
            let live =
                Live::of(&self.current, &self.writer.manager).map_err(|said| Failed::undecodable(format!("{id}: {said}")))?;
            let Some(wanted) = status::merge(&live, reported, &host, &shape, generation, &crate::clock::seconds()) else {
                return Ok(());
            };
            match self.writer.apply(target, &status::body(&self.current, wanted)).await {
                Ok(entry) => {
                    self.current = entry.into();
                    return Ok(());
                }
                Err(refusal) if refusal.is_shadowed() => return Ok(()),
                Err(refusal) if refusal.is(ApiError::is_not_found) => return Err(Failed::owner_gone()),
                Err(refusal) if refusal.is(ApiError::is_conflict) => self.look_again(target).await?,
                Err(refusal) => {
                    self.applier.schemas.doubt(&id.kind);
                    return Err(refusal.into());
                }
            }
        }
        Err(Failed::superseded(format!("{id} is being changed faster than its status can be written")))
    }

    /// Somebody else changed the owner: the next merge starts from what it is now.
    async fn look_again(&mut self, target: Target<'_>) -> Result<(), Failed> {
        match self.writer.live(target).await? {
            Some((entry, _)) if entry.uid == self.current.uid => {
                self.current = entry.into();
                Ok(())
            }
            _ => Err(Failed::owner_gone()),
        }
    }
}

fn failed(trouble: &Trouble) -> Failed {
    let (class, truth, default) = match trouble.kind {
        FailureKind::Retry => (Class::Retry, Truth::False, "Failed"),
        FailureKind::Wait => (Class::Wait, Truth::Unknown, PENDING),
        FailureKind::Terminal => (Class::Terminal, Truth::False, "Failed"),
    };
    let reason = if is_reason(&trouble.reason) { trouble.reason.as_str() } else { default };
    Failed { class, reason: reason.into(), message: trouble.message.clone(), after: trouble.after, told: Some(truth) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(partial: bool, done: bool, extensions: &str) -> Plan {
        Plan { partial, done, extensions: extensions.into(), ..Plan::default() }
    }

    #[test]
    fn a_plan_is_complete_unless_it_says_otherwise() {
        assert_eq!(pending(&plan(false, false, ""), false), Ok(None));
        assert_eq!(pending(&plan(false, false, "{}"), false), Ok(None));
        assert!(pending(&plan(true, false, "{}"), false).unwrap().is_some());
        let said = r#"{"pending":"waiting for the database"}"#;
        assert_eq!(pending(&plan(true, false, said), false), Ok(Some("waiting for the database".into())));
    }

    #[test]
    fn only_a_cleanup_is_done() {
        assert_eq!(pending(&plan(false, true, "{}"), true), Ok(None));
        assert!(pending(&plan(false, true, "{}"), false).unwrap_err().0.contains("only a cleanup may"));
        assert!(pending(&plan(true, true, "{}"), true).is_err());
        assert!(pending(&plan(false, false, "{}"), true).unwrap_err().0.contains("neither done nor pending"));
        assert!(pending(&plan(true, false, "{}"), true).unwrap().is_some());
    }

    #[test]
    fn an_unknown_extension_is_refused() {
        assert!(pending(&plan(false, false, r#"{"prune":false}"#), false).unwrap_err().0.contains("`prune`"));
        assert!(pending(&plan(false, false, "[]"), false).is_err());
    }

    #[test]
    fn a_reason_that_no_condition_takes_is_replaced() {
        let trouble = |reason: &str, kind| Trouble {
            reason: reason.into(),
            message: "m".into(),
            kind,
            after: None,
            report: crate::contract::Report::default(),
        };
        assert_eq!(failed(&trouble("CPULimitExceeded", FailureKind::Retry)).reason, "CPULimitExceeded");
        assert_eq!(failed(&trouble("not a word", FailureKind::Terminal)).reason, "Failed");
        assert_eq!(failed(&trouble("", FailureKind::Wait)).told, Some(Truth::Unknown));
    }
}
