//! The hub alone, in this process, as no other test can see it: what is in its store against what the API server has.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use reef::{
    identity::{Actor, Api, ApiOptions},
    names::{Cluster as Here, Kind, ObjectId, PluginId},
    watch::{Hub, HubOptions, Interest, Role, Scope, Subscription},
};
use reef_tests::{
    proxy::Chaos,
    random::Random,
    world::{Scene, World},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Stage, behind_proxy};
use crate::probe::{CONFIG, config, until};

/// So many objects come and go.
const NAMES: u64 = 200;
const LANES: u64 = 8;
const ROUNDS: u64 = 10;

/// A hub that looks at the ConfigMaps of a scene through its proxy, and counts what it is told of each.
struct Mirror {
    hub: Hub,
    scope: Scope,
    told: Arc<Mutex<BTreeMap<String, u64>>>,
    _subscription: Subscription,
}

/// The host's user may look at ConfigMaps here, which it may nowhere else.
const MAY_LOOK: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: { name: mirror }
rules: [{ apiGroups: [\"\"], resources: [configmaps], verbs: [get, list, watch] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: { name: mirror }
roleRef: { kind: Role, name: mirror, apiGroup: rbac.authorization.k8s.io }
subjects: [{ kind: User, name: reef-host, apiGroup: rbac.authorization.k8s.io }]
";

impl Mirror {
    async fn new(stage: &Stage<'_>, options: HubOptions) -> Result<Self> {
        let scene = stage.scene;
        scene.apply(MAY_LOOK).await?;
        let file = kube::config::Kubeconfig::read_from(stage.proxy.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await?;
        let options_of_api =
            ApiOptions { deadline: Duration::from_secs(2), ping: Duration::from_secs(1), ..ApiOptions::default() };
        let api = Api::connect(config, options_of_api).await?;
        let told: Arc<Mutex<BTreeMap<String, u64>>> = Arc::default();
        let hub = Hub::new(api, Arc::new(|_, _| {}), options);
        let scope = Scope::new(Here::local(), Kind::new("", "v1", "ConfigMap"), &scene.namespace);
        let tell = told.clone();
        let role = Role::Callback(Arc::new(move |change| {
            *tell.lock().unwrap().entry(change.id.name.to_string()).or_default() += 1;
        }));
        let interest = Interest { plugin: PluginId::new(&scene.namespace, "mirror"), role };
        let subscription = hub.subscribe(scope.clone(), Actor::Host, interest);
        Ok(Self { hub, scope, told, _subscription: subscription })
    }

    fn told(&self, name: &str) -> u64 {
        self.told.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    fn has(&self, name: &str) -> bool {
        self.hub.get(&self.scope, &self.scope.namespace, name).is_ok_and(|object| object.is_some())
    }

    /// Digest of everything that the store has, of which all names are known.
    fn hash(&self, names: &[String]) -> Result<String> {
        let mut objects = Vec::new();
        for name in names {
            if let Some(entry) = self.hub.get(&self.scope, &self.scope.namespace, name)? {
                objects.push(serde_json::from_slice(&entry.bytes)?);
            }
        }
        let state = self.hub.scopes().into_iter().find(|state| state.scope == self.scope).context("nobody looks")?;
        ensure!(state.objects == objects.len(), "the store has {} objects, of known names {}", state.objects, objects.len());
        Ok(digest(objects))
    }
}

fn digest(mut objects: Vec<Value>) -> String {
    for object in &mut objects {
        object["apiVersion"] = "v1".into();
        object["kind"] = "ConfigMap".into();
        object["metadata"].as_object_mut().map(|metadata| metadata.remove("managedFields"));
    }
    objects.sort_by_key(|object| object["metadata"]["name"].as_str().unwrap_or_default().to_owned());
    hex::encode(Sha256::digest(serde_json::to_vec(&objects).unwrap_or_default()))
}

fn object(scene: &Scene<'_>, name: &str) -> ObjectId {
    ObjectId::new(Kind::new("", "v1", "ConfigMap"), &scene.namespace, name)
}

/// Creates, changes and deletes objects of one lane's names, in an order that the seed gives.
async fn mutate(world: &World, namespace: &str, random: &mut Random, lane: u64, times: u64, there: &mut [bool]) -> Result<()> {
    for _ in 0..times {
        let slot = random.below(NAMES / LANES);
        let name = format!("m-{}", slot * LANES + lane);
        let here = &mut there[usize::try_from(slot)?];
        let data = json!({ "n": random.number().to_string() });
        match (*here, random.below(4)) {
            (false, _) => {
                world.cluster.create(namespace, &config(&name, data)).await?;
                *here = true;
            }
            (true, 0) => {
                world.cluster.delete(CONFIG, namespace, &name).await?;
                *here = false;
            }
            (true, _) => {
                world.cluster.patch(CONFIG, namespace, &name, "", &json!({ "data": data })).await?;
            }
        }
    }
    Ok(())
}

/// Every watch is cut at its 25th event, and by seed events come twice, late or swapped, lists are torn and versions expire.
/// When a last object has arrived at a pause, the store is what a fresh list says, to the byte.
///
/// Promises: C3
/// Breaks it: an event that is lost or applied twice at a cut.
#[test]
fn after_10_000_mutations_under_a_watch_that_is_cut_on_and_on_the_store_equals_a_fresh_list() {
    behind_proxy("mirror", &[], async |stage: &Stage<'_>| {
        let (scene, namespace) = (stage.scene, &*stage.scene.namespace);
        let world = scene.world;
        let options = HubOptions {
            backoff: (Duration::from_millis(20), Duration::from_millis(200)),
            idle: Duration::from_secs(5),
            page: 50,
            ..HubOptions::default()
        };
        let mirror = Mirror::new(stage, options).await?;
        stage.proxy.script(["watch configmaps: events #25 cut"])?;
        stage.proxy.chaos(Some(Chaos { seed: 4, requests: 60, events: 20 }));
        stage.proxy.cut();
        let mut lanes: Vec<_> = (0..LANES)
            .map(|lane| (lane, Random::named(4, &format!("lane {lane}")), vec![false; usize::try_from(NAMES / LANES).unwrap()]))
            .collect();
        let mut names: Vec<String> = (0..NAMES).map(|i| format!("m-{i}")).collect();
        names.push("kube-root-ca.crt".into());
        for round in 0..ROUNDS {
            let work = lanes.iter_mut().map(|(lane, random, there)| mutate(world, namespace, random, *lane, 1000 / LANES, there));
            futures::future::try_join_all(work).await?;
            let last = format!("pause-{round}");
            names.push(last.clone());
            world.cluster.create(namespace, &config(&last, json!({}))).await?;
            let expected = digest(world.cluster.list(CONFIG, namespace).await?);
            // Events come in order, or are put right by a list: but one that was held back may still be on its way.
            until("the last object has arrived", || async { mirror.has(&last) }).await?;
            let equal = || async { mirror.hash(&names).is_ok_and(|hash| hash == expected) };
            until(&format!("the store equals a fresh list after {} mutations", (round + 1) * 1000), equal).await?;
        }
        let cuts = stage.proxy.count("event cut");
        ensure!(cuts >= 100, "the watch was cut {cuts} times only");
        Ok(())
    });
}

/// One event never comes. Nobody can know, until the regular check.
///
/// Promises: C3
/// Breaks it: no regular check, or one that wakes nobody.
#[test]
fn an_event_that_was_never_sent_is_found_by_the_regular_check_and_told() {
    behind_proxy("silent", &[], async |stage: &Stage<'_>| {
        static WAKES: AtomicU64 = AtomicU64::new(0);
        let scene = stage.scene;
        let cluster = scene.cluster();
        stage.proxy.script(["watch configmaps #1: events #3 drop"])?;
        let mirror = Mirror::new(stage, HubOptions { relist: Duration::from_secs(2), ..HubOptions::default() }).await?;
        until("the first list is read", || async { mirror.has("kube-root-ca.crt") }).await?;
        cluster.create(&scene.namespace, &config("first", json!({}))).await?;
        until("the first event has come", || async { mirror.has("first") }).await?;
        cluster.create(&scene.namespace, &config("silent", json!({}))).await?;
        until("the second event was dropped", || async { stage.proxy.count("event drop") == 1 }).await?;
        ensure!(!mirror.has("silent") && mirror.told("silent") == 0, "{:?}", object(scene, "silent"));
        let more = || async {
            let n = WAKES.fetch_add(1, Ordering::Relaxed);
            let made = cluster.create(&scene.namespace, &config(&format!("later-{n}"), json!({}))).await;
            made.is_ok() && mirror.has("silent")
        };
        until("the silent object is found", more).await?;
        ensure!(mirror.told("silent") == 1, "it was told {} times", mirror.told("silent"));
        Ok(())
    });
}
