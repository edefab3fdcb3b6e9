//! The kind `Database` and its function.

use plugin_sdk::{digest, prelude::*};

use crate::{Settings, children, storage::Volumes, walk::Walk};

#[derive(Deserialize)]
pub struct Database {
    pub version: String,
    #[serde(default = "one")]
    pub replicas: u32,
    pub storage: String,
}

fn one() -> u32 {
    1
}

#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// None until it has been complete once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    pub storage: String,
    pub ready_replicas: u32,
    pub updated_replicas: u32,
}

pub type Db = Object<Database, Status>;

pub fn reconcile(db: Db, cx: &Context) -> Result<Plan> {
    let settings: Settings = cx.settings()?;
    let live = cx.get(children::STATEFUL_SET, db.namespace(), db.name())?;
    let volumes = Volumes::read(&db, live.as_ref(), cx)?;
    let template = children::template(&db, &settings.image)?;
    let revision = digest(&template)?;
    let walk = Walk::of(live.as_ref(), &revision, db.spec.replicas);
    let set = children::stateful_set(&db, template, &revision, walk.partition, &volumes.first);
    let plan = Plan::new().own(children::config(&db)).own(children::service(&db)).own(set);
    let plan = volumes.to_grow.into_iter().fold(plan, Plan::patch);
    Ok(walk.report(plan, &db))
}
