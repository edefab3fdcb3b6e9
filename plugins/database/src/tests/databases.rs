//! `Database`: the children, the walk of a change, room that only grows.

use plugin_sdk::{Fake, Planned, prelude::*};

use crate::database::{Database, Status, reconcile};

crd_test!("../../crds/database.yaml", "../../sample.yaml", spec: Database, status: Status);

const SET: &str = "apps/v1/StatefulSet";

fn object(version: &str, replicas: u32, storage: &str, status: &Value) -> String {
    json!({
        "apiVersion": "demo.reef.dev/v1", "kind": "Database", "metadata": { "name": "db", "namespace": "n" },
        "spec": { "version": version, "replicas": replicas, "storage": storage }, "status": status,
    })
    .to_string()
}

/// A Database with what a StatefulSet's controller makes of its plans.
struct World {
    cluster: Fake,
    set: Value,
    /// Of each replica.
    versions: Vec<String>,
    unready: Vec<usize>,
    current: String,
    status: Value,
    storage: &'static str,
}

impl World {
    fn new(version: &str, replicas: u32) -> Self {
        let mut world = Self {
            cluster: Context::fake(),
            set: Value::Null,
            versions: Vec::new(),
            unready: Vec::new(),
            current: version.into(),
            status: Value::Null,
            storage: "1Gi",
        };
        world.settle(version, replicas);
        world
    }

    fn run(&mut self, version: &str, replicas: u32) -> Planned {
        let plan = self.cluster.run(reconcile, &object(version, replicas, self.storage, &self.status)).unwrap();
        self.status = plan.status.clone().unwrap();
        let planned = plan.owned(SET, "db").clone();
        if self.set["spec"] != planned["spec"] {
            let generation = self.set["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
            let status = self.set["status"].take();
            self.set = planned;
            self.set["metadata"]["generation"] = generation.into();
            self.set["status"] = status;
        }
        self.tell();
        plan
    }

    /// Puts the StatefulSet as it is into the cluster.
    fn tell(&mut self) {
        self.cluster = std::mem::take(&mut self.cluster).with_object(self.set.clone());
    }

    fn wanted(&self) -> String {
        self.set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().rsplit(':').next().unwrap().to_owned()
    }

    fn partition(&self) -> usize {
        self.set["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64().unwrap() as usize
    }

    /// One step of the StatefulSet's controller: as many replicas as wanted, and those from the partition on of the version.
    fn control(&mut self) {
        let (wanted, partition) = (self.wanted(), self.partition());
        let replicas = self.set["spec"]["replicas"].as_u64().unwrap() as usize;
        self.versions.truncate(replicas);
        let new = |n: usize| if n < partition { self.current.clone() } else { wanted.clone() };
        self.versions.extend((self.versions.len()..replicas).map(new).collect::<Vec<_>>());
        for version in self.versions.iter_mut().skip(partition) {
            version.clone_from(&wanted);
        }
        let updated = self.versions.iter().filter(|version| **version == wanted).count();
        let ready = replicas - self.unready.len();
        if updated == replicas && ready == replicas {
            self.current.clone_from(&wanted);
        }
        self.set["status"] = json!({
            "observedGeneration": self.set["metadata"]["generation"], "replicas": replicas, "readyReplicas": ready,
            "updatedReplicas": updated, "currentRevision": self.current, "updateRevision": wanted,
        });
        self.tell();
    }

    /// Until nothing changes any more.
    fn settle(&mut self, version: &str, replicas: u32) -> Planned {
        let mut last = self.run(version, replicas);
        for _ in 0..20 {
            self.control();
            let plan = self.run(version, replicas);
            if plan == last {
                return plan;
            }
            last = plan;
        }
        panic!("it never settles: {last:?}")
    }
}

#[test]
fn a_database_has_three_children_and_is_complete_when_all_replicas_are_ready() {
    let plan = Context::fake().run(reconcile, &object("8", 3, "1Gi", &Value::Null)).unwrap();
    assert_eq!(plan.children(), ["v1/ConfigMap db", "v1/Service db", "apps/v1/StatefulSet db"]);
    let set = plan.owned(SET, "db");
    assert_eq!(set["spec"]["updateStrategy"]["rollingUpdate"]["partition"], 0);
    assert_eq!(set.pointer("/spec/template/spec/containers/0/image").unwrap(), "docker.io/valkey/valkey:8");
    assert_eq!((plan.condition("Ready"), plan.condition("Progressing")), (Some("False"), Some("True")));
    assert_eq!(plan.status.unwrap()["version"], Value::Null, "nothing runs yet");

    let plan = World::new("8", 3).settle("8", 3);
    assert_eq!((plan.condition("Ready"), plan.condition("Progressing")), (Some("True"), Some("False")));
    let status = json!({ "version": "8", "storage": "1Gi", "readyReplicas": 3, "updatedReplicas": 3 });
    assert_eq!(plan.status, Some(status));
    assert!(plan.events.is_empty());
}

#[test]
fn a_version_goes_from_the_last_replica_to_the_first_one_at_a_time() {
    let mut world = World::new("8", 3);
    let begins = world.run("9", 3);
    assert_eq!((world.partition(), &begins.events[0].reason), (3, &"Updating".to_owned()));
    assert_eq!(begins.message("Progressing"), "0 of 3 replicas are of version 9 and the present settings");
    for (partition, versions) in [(2, ["8", "8", "9"]), (1, ["8", "9", "9"]), (0, ["9", "9", "9"])] {
        world.control();
        let plan = world.run("9", 3);
        assert_eq!(world.partition(), partition);
        assert!(plan.events.is_empty() && plan.status.as_ref().unwrap()["version"] == "8");
        assert_eq!(world.run("9", 3).owned(SET, "db"), plan.owned(SET, "db"), "a second step before the first was seen");
        world.set["status"]["observedGeneration"] = world.set["metadata"]["generation"].clone();
        world.tell();
        world.run("9", 3);
        assert_eq!(world.partition(), partition, "a second step before the first was done");
        world.control();
        assert_eq!(world.versions, versions);
    }
    let plan = world.run("9", 3);
    assert_eq!((plan.condition("Progressing"), &plan.events[0].reason), (Some("False"), &"Updated".to_owned()));
    assert_eq!(plan.status.unwrap()["version"], "9");
    assert!(world.run("9", 3).events.is_empty());
}

#[test]
fn while_one_replica_is_not_ready_no_other_is_touched() {
    let mut world = World::new("8", 3);
    world.run("9", 3);
    world.control();
    world.run("9", 3);
    world.unready = vec![2];
    for _ in 0..3 {
        world.control();
        let plan = world.run("9", 3);
        assert_eq!((world.partition(), plan.condition("Ready")), (2, Some("False")));
        let says = "1 of 3 replicas are of version 9; the next one follows when all are ready";
        assert_eq!(plan.message("Progressing"), says);
    }
    world.unready.clear();
    world.settle("9", 3);
    assert_eq!(world.versions, ["9", "9", "9"]);
}

#[test]
fn a_change_waits_for_a_replica_that_is_not_ready_before_it_touches_the_first() {
    let mut world = World::new("8", 3);
    world.unready = vec![0];
    world.control();
    let plan = world.settle("9", 3);
    assert_eq!(
        (world.versions, world.set["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64()),
        (vec!["8".into(), "8".into(), "8".into()], Some(3))
    );
    assert_eq!(plan.conditions[1].reason, "WaitingForReplicas");
}

#[test]
fn a_version_that_does_not_start_is_left_by_another_and_no_further_replica_is_harmed() {
    let mut world = World::new("8", 3);
    world.run("broken", 3);
    world.control();
    world.run("broken", 3);
    world.unready = vec![2];
    world.control();
    world.settle("broken", 3);
    assert_eq!(world.versions, ["8", "8", "broken"]);
    world.run("8", 3);
    assert_eq!(world.partition(), 2, "just those that the broken version has come to");
    world.unready.clear();
    let plan = world.settle("8", 3);
    assert_eq!(
        (&world.versions[..], plan.condition("Progressing")),
        (&["8".to_owned(), "8".into(), "8".into()][..], Some("False"))
    );
}

#[test]
fn where_nobody_serves_nobody_is_spared() {
    let mut world = World { unready: vec![0, 1], ..World::new("broken", 2) };
    world.control();
    world.run("8", 2);
    assert_eq!(world.partition(), 0);
}

#[test]
fn replicas_come_and_go_also_on_the_way() {
    let mut world = World::new("8", 2);
    let plan = world.run("8", 4);
    assert_eq!((world.partition(), plan.condition("Progressing")), (0, Some("True")));
    assert_eq!(world.settle("8", 4).status.unwrap()["readyReplicas"], 4);
    world.run("9", 4);
    world.control();
    world.run("9", 4);
    world.control();
    assert_eq!(world.settle("9", 2).status.unwrap()["version"], "9");
    assert_eq!(world.versions, ["9", "9"]);
}

#[test]
fn what_is_said_of_the_spec_before_is_not_believed() {
    let mut world = World::new("8", 1);
    world.run("9", 1);
    assert_eq!(world.run("9", 1).owned(SET, "db").pointer("/spec/updateStrategy/rollingUpdate/partition"), Some(&json!(1)));
    world.control();
    world.run("9", 1);
    assert_eq!(world.partition(), 0);
    assert_eq!(world.run("9", 1).condition("Progressing"), Some("True"));
}

fn volume(n: u32, size: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": { "name": format!("data-db-{n}"), "namespace": "n", "labels": { "demo.reef.dev/database": "db" } },
        "spec": { "resources": { "requests": { "storage": size } } },
    })
}

#[test]
fn storage_grows_volume_by_volume_and_the_set_goes_on_saying_what_it_said_at_first() {
    let mut world = World { storage: "2Gi", ..World::new("8", 2) };
    world.cluster = world.cluster.with_object(volume(0, "1Gi")).with_object(volume(1, "2048Mi")).with_object(volume(2, "1Gi"));
    let plan = world.run("8", 2);
    let patches: Vec<_> = plan.writes.iter().filter(|write| write.verb == "patch").collect();
    assert_eq!(patches.len(), 1, "neither what has it already nor what no replica uses: {plan:?}");
    assert_eq!(patches[0].object["metadata"]["name"], "data-db-0");
    assert_eq!(patches[0].object["spec"], json!({ "resources": { "requests": { "storage": "2Gi" } } }));
    assert_eq!(plan.owned(SET, "db").pointer(crate::children::FIRST_SIZE).unwrap(), "1Gi");
    assert_eq!(plan.status.as_ref().unwrap()["storage"], "2Gi");
    world.cluster = world.cluster.with_applied(&plan);
    world.tell();
    assert!(world.run("8", 2).writes.iter().all(|write| write.verb == "own"), "said twice");
}

#[test]
fn storage_that_shrinks_is_terminal_with_a_sentence() {
    let world = World::new("8", 1);
    let shrunk = |cluster: &Fake, status: &Value| cluster.run(reconcile, &object("8", 1, "500Mi", status)).unwrap_err();
    let error = shrunk(&world.cluster, &Value::Null);
    assert!(error.is_terminal());
    assert_eq!(
        error.to_string(),
        "spec.storage is 500Mi, and the replicas have 1Gi: volumes can only grow, so write at least 1Gi"
    );
    assert_eq!((&*error.conditions()[0].name, &*error.conditions()[0].reason), ("Progressing", "StorageShrunk"));
    let cluster = Context::fake().with_object(volume(0, "3Gi"));
    assert!(shrunk(&cluster, &Value::Null).to_string().contains("the replicas have 3Gi"));
    assert!(shrunk(&Context::fake(), &world.status).to_string().contains("the replicas have 1Gi"));
}

#[test]
fn the_image_is_a_setting() {
    let cluster = Context::fake().with_settings(json!({ "image": "mirror/valkey" }));
    let plan = cluster.run(reconcile, &object("8", 1, "1Gi", &Value::Null)).unwrap();
    assert_eq!(plan.owned(SET, "db").pointer("/spec/template/spec/containers/0/image").unwrap(), "mirror/valkey:8");
}
