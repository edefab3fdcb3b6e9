//! The Job of one run: how it is called, what it does, what became of it.

use plugin_sdk::prelude::*;

use crate::{Settings, backup::Bk, children};

pub const JOB: &str = "batch/v1/Job";
/// The value is the name of the Backup.
const LABEL: &str = "demo.reef.dev/backup";
/// For which time it was made.
const TIME: &str = "demo.reef.dev/time";

/// One of this Backup's.
pub struct Job {
    pub time: Timestamp,
    pub outcome: Outcome,
    pub read: Object,
}

#[derive(PartialEq)]
pub enum Outcome {
    Running,
    Succeeded,
    /// Why, as the Job says it.
    Failed(String),
}

impl Outcome {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed(_) => "Failed",
        }
    }

    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Failed(why) => Some(why),
            _ => None,
        }
    }
}

/// In the order of their times. Only what is called as this Backup calls it is one of its Jobs, whatever its labels say.
pub fn list(backup: &Bk, cx: &Context) -> Result<Vec<Job>> {
    let selector = format!("{LABEL}={}", backup.name());
    let fields = ["/metadata/annotations", "/status/conditions"];
    let known = |read: Object| {
        let time = read.annotation(TIME)?.parse().ok()?;
        (read.name() == name(backup, time)).then(|| Job { time, outcome: outcome(&read), read })
    };
    let mut jobs: Vec<Job> = cx.list_fields(JOB, &selector, &fields)?.into_iter().filter_map(known).collect();
    jobs.sort_by_key(|job| job.time);
    Ok(jobs)
}

fn outcome(read: &Object) -> Outcome {
    let is = |name: &str| read.condition(name).filter(Condition::is_true);
    match (is("Complete"), is("Failed")) {
        (Some(_), _) => Outcome::Succeeded,
        (None, Some(failed)) => Outcome::Failed(failed.message),
        (None, None) => Outcome::Running,
    }
}

/// `nightly-20231114221320`: the digits of the time.
pub fn name(backup: &Bk, time: Timestamp) -> String {
    let digits: String = time.to_string().chars().filter(char::is_ascii_digit).collect();
    format!("{}-{digits}", backup.name())
}

/// Never half a dump under the name of a whole one.
const DUMP: &str = r#"set -eu
dir="/backup/$BACKUP"
mkdir -p "$dir"
valkey-cli -h "$FIRST" --rdb "$dir/$TIME.part"
valkey-check-rdb "$dir/$TIME.part"
mv "$dir/$TIME.part" "$dir/$TIME.rdb"
ls "$dir" | grep '\.rdb$' | sort -r | tail -n "+$((KEEP + 1))" | while read -r old; do rm "$dir/$old"; done
"#;

pub fn job(backup: &Bk, time: Timestamp, version: &str, cx: &Context) -> Result<Value> {
    let settings: Settings = cx.settings()?;
    let spec = &backup.spec;
    let volume = match &spec.claim {
        Some(claim) => json!({ "name": "backup", "persistentVolumeClaim": { "claimName": claim } }),
        None => json!({ "name": "backup", "emptyDir": {} }),
    };
    let env = [
        ("BACKUP", backup.name().to_owned()),
        ("FIRST", children::first_replica(&spec.database)),
        ("TIME", time.to_string()),
        ("KEEP", spec.keep.to_string()),
    ];
    let env = env.map(|(name, value)| json!({ "name": name, "value": value }));
    let pod = json!({
        "restartPolicy": "Never",
        "automountServiceAccountToken": false,
        "securityContext": children::security(),
        "containers": [{
            "name": "dump",
            "image": format!("{}:{version}", settings.image),
            "command": ["sh", "-c", DUMP],
            "env": env,
            "resources": { "requests": { "cpu": "50m", "memory": "32Mi" } },
            "securityContext": children::confined(),
            "volumeMounts": [{ "name": "backup", "mountPath": "/backup" }],
        }],
        "volumes": [volume],
    });
    let labels = json!({ LABEL: backup.name() });
    let metadata = json!({ "name": name(backup, time), "labels": labels, "annotations": { TIME: time } });
    let template = json!({ "metadata": { "labels": labels }, "spec": pod });
    Ok(backup.child(JOB, json!({ "metadata": metadata, "spec": { "backoffLimit": 2, "template": template } })))
}
