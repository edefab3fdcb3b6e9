//! How much room each replica has. It may grow, which is to ask each volume for more; no volume can be made smaller.
//!
//! What a StatefulSet says of the volumes that it makes cannot be changed any more. So that stays as it was at first, and a
//! volume that is made later grows after it has come.

use plugin_sdk::prelude::*;

use crate::{
    LABEL,
    children::{FIRST_SIZE, VOLUME},
    database::Db,
};

const CLAIM: &str = "v1/PersistentVolumeClaim";
const REQUEST: &str = "/spec/resources/requests/storage";

pub struct Volumes {
    /// What the StatefulSet says, and has to go on saying.
    pub first: String,
    /// Patches.
    pub to_grow: Vec<Value>,
}

impl Volumes {
    pub fn read(db: &Db, live: Option<&Object>, cx: &Context) -> Result<Self> {
        let wanted = &db.spec.storage;
        let claims = cx.list_fields(CLAIM, &format!("{LABEL}={}", db.name()), &[REQUEST])?;
        let first = live.and_then(|live| live.at(FIRST_SIZE).as_str());
        let reported = db.status().map(|status| status.storage);
        let asked = claims.iter().filter_map(|claim| claim.at(REQUEST).as_str());
        let largest = asked.chain(first).chain(reported.as_deref()).filter_map(|size| Some((bytes(size)?, size))).max();
        let room = bytes(wanted).ok_or_else(|| Error::terminal(format!("spec.storage is `{wanted}`: write it as in `10Gi`")))?;
        if let Some((_, size)) = largest.filter(|(asked, _)| room < *asked) {
            let message = format!(
                "spec.storage is {wanted}, and the replicas have {size}: volumes can only grow, so write at least {size}"
            );
            let shrunk = Condition::no("Progressing", "StorageShrunk", &message);
            return Err(Error::terminal(message).reason("StorageShrunk").condition(shrunk));
        }
        let mine: Vec<String> = (0..db.spec.replicas).map(|n| format!("{VOLUME}-{}-{n}", db.name())).collect();
        let small = |claim: &&Object| {
            let asked = claim.at(REQUEST).as_str().and_then(bytes);
            mine.iter().any(|name| name == claim.name()) && asked.is_some_and(|asked| asked < room)
        };
        let grown = |claim: &Object| {
            let spec = json!({ "resources": { "requests": { "storage": wanted } } });
            db.child(CLAIM, json!({ "metadata": { "name": claim.name() }, "spec": spec }))
        };
        let to_grow = claims.iter().filter(small).map(grown).collect();
        Ok(Self { first: first.unwrap_or(wanted).to_owned(), to_grow })
    }
}

/// Of a quantity as it is written for storage; none of one that is no whole number of anything.
fn bytes(quantity: &str) -> Option<u128> {
    let unit = quantity.find(|c: char| !c.is_ascii_digit()).unwrap_or(quantity.len());
    let (number, unit) = quantity.split_at(unit);
    let (base, power): (u128, _) = match unit {
        "" => (1, 0),
        "k" => (1000, 1),
        "M" => (1000, 2),
        "G" => (1000, 3),
        "T" => (1000, 4),
        "P" => (1000, 5),
        "Ki" => (1024, 1),
        "Mi" => (1024, 2),
        "Gi" => (1024, 3),
        "Ti" => (1024, 4),
        "Pi" => (1024, 5),
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(base.pow(power))
}
