//! The whole judgement: policy, signatures and what is remembered of both.

pub mod recorded;

use std::{fs, path::PathBuf, sync::atomic::Ordering};

use self::recorded::Recording;
use super::*;

/// A policy file and a cache in a directory of their own.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("policy.yaml")
    }

    /// Images of any repository, signed by one of these, in namespaces `a*`.
    fn trusting(&self, recording: &Recording, keys: &[&str]) -> Trust {
        self.write(&policy(recording, keys));
        Trust::by(&self.file(), self.dir.path()).unwrap()
    }

    fn write(&self, text: &str) {
        let beside = self.dir.path().join("new");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.file()).unwrap();
    }
}

fn policy(recording: &Recording, keys: &[&str]) -> String {
    let entries: Vec<String> = keys.iter().map(|key| format!("- {{ name: {key}, pem: {:?} }}\n", recording.pem(key))).collect();
    format!(
        "apiVersion: reef.dev/v1alpha1\nkind: TrustPolicy\nkeys:\n{}rules: [{{ namespaces: ['a*'], repositories: ['*/**'], keys: [{}] }}]\n",
        entries.concat(),
        keys.join(", ")
    )
}

#[tokio::test]
async fn without_a_policy_everything_runs_and_with_one_only_what_it_names() {
    let (recording, place) = (Recording::read(), Place::new());
    let unsigned = recording.subject("b", "unsigned", Pin::Loose);
    let approval = Trust::in_everything().judge(&unsigned, None, None).await.unwrap();
    assert_eq!((approval.label(), &approval.because), ("NotRequired", &Because::NoPolicy));

    let trust = place.trusting(&recording, &["release"]);
    let refused = trust.judge(&unsigned, Some(&recording), None).await.unwrap_err();
    assert_eq!(refused.label(), "NoMatchingRule");
    assert_eq!(recording.asked.load(Ordering::Relaxed), 0, "no registry is asked about what no rule allows");
    let refused = trust.judge(&recording.subject("a", "unsigned", Pin::Loose), Some(&recording), None).await.unwrap_err();
    assert_eq!(refused.label(), "NoSignature");
    let sentence = refused.to_string();
    assert!(
        sentence.contains("`release`") && sentence.contains("cosign sign --key") && sentence.contains("@sha256:"),
        "{sentence}"
    );
    let refused = trust.judge(&recording.subject("a", "v3-other", Pin::Loose), Some(&recording), None).await.unwrap_err();
    assert_eq!(refused.label(), "WrongSignature");
    let approval = trust.judge(&recording.subject("a", "v3-release", Pin::Loose), Some(&recording), None).await.unwrap();
    assert_eq!(approval.label(), "Verified");
    let sentence = approval.to_string();
    let fingerprint = recording.keys(&["release"])[0].fingerprint.to_string();
    assert!(sentence.contains(&fingerprint) && sentence.contains(&recording.digest("v3-release").to_string()), "{sentence}");
}

#[tokio::test]
async fn a_signature_that_was_good_once_is_known_after_a_restart_without_the_registry() {
    let (mut recording, place) = (Recording::read(), Place::new());
    for image in ["v2-release", "v3-release"] {
        let subject = recording.subject("a", image, Pin::Loose);
        place.trusting(&recording, &["release"]).judge(&subject, Some(&recording), None).await.unwrap();
        recording.failure = Some("down".into());
        let after = place.trusting(&recording, &["release"]);
        after.judge(&subject, Some(&recording), None).await.unwrap();
        after.judge(&subject, None, None).await.unwrap();
        // What is kept proves itself: with another key it proves nothing.
        let refused = place.trusting(&recording, &["other"]).judge(&subject, Some(&recording), None).await.unwrap_err();
        assert_eq!(refused.label(), "SignatureUnknown");
        recording.failure = None;
        let refused = place.trusting(&recording, &["other"]).judge(&subject, Some(&recording), None).await.unwrap_err();
        assert_eq!(refused.label(), "WrongSignature");
    }
}

async fn seen(changes: &mut watch::Receiver<Standing>, what: impl FnMut(&Standing) -> bool) {
    let waiting = changes.wait_for(what);
    tokio::time::timeout(Duration::from_secs(600), waiting).await.expect("it is seen in time").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_policy_is_taken_over_and_an_invalid_one_is_told_and_changes_nothing() {
    let (recording, place) = (Recording::read(), Place::new());
    let trust = Arc::new(place.trusting(&recording, &["release"]));
    let mut changes = trust.changes();
    let stop = CancellationToken::new();
    let following = tokio::spawn({
        let (trust, stop) = (trust.clone(), stop.clone());
        async move { trust.follow(stop).await }
    });
    let subject = recording.subject("a", "v3-release", Pin::Loose);
    let known = trust.judge(&subject, Some(&recording), None).await.unwrap();

    place.write("rules: [");
    seen(&mut changes, |now| now.complaint.is_some()).await;
    assert!(trust.complaint().unwrap().contains("policy.yaml"));
    assert_eq!(trust.judge(&subject, None, Some(&known)).await.unwrap(), known, "a judgement holds while the policy does");

    place.write(&policy(&recording, &["release"]));
    seen(&mut changes, |now| now.complaint.is_none()).await;
    assert_eq!(trust.judge(&subject, None, Some(&known)).await.unwrap(), known);

    place.write(&policy(&recording, &["other"]));
    seen(&mut changes, |now| now.version == 2).await;
    let refused = trust.judge(&subject, Some(&recording), Some(&known)).await.unwrap_err();
    assert_eq!(refused.label(), "WrongSignature");
    stop.cancel();
    following.await.unwrap();
}

#[test]
fn a_host_does_not_start_without_a_valid_policy_and_says_what_is_wrong_with_it() {
    let place = Place::new();
    let error = Trust::by(&place.file(), place.dir.path()).err().unwrap().to_string();
    assert!(error.contains("policy.yaml") && error.contains("cannot be read"), "{error}");
    place.write("apiVersion: reef.dev/v1alpha1\nkind: TrustPolicy\nrule: []\n");
    let error = Trust::by(&place.file(), place.dir.path()).err().unwrap().to_string();
    assert!(error.contains("unknown field `rule`"), "{error}");
}
