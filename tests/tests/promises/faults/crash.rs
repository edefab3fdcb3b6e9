//! `kill -9` at every write: before it, after it was carried out and before its answer, and after that.

use anyhow::{Result, ensure};
use reef_tests::{state::State, world::Scene};
use serde_json::json;

use super::{Stage, behind_proxy, greeted, hello, no_orphans, reconciled, uid};
use crate::{
    hello::{self as hellos, HELLO},
    probe::{self, CONFIG, PROBE},
};

/// More writes than any of the flows makes.
const MOST: u64 = 8;

/// Something that happens to one object, from one steady state to the next.
trait Flow {
    const NAME: &'static str;
    /// Of the object that is reconciled.
    const KIND: &'static str;
    /// What must be there before.
    async fn prepare(scene: &Scene<'_>, name: &str) -> Result<()>;
    async fn act(scene: &Scene<'_>, name: &str) -> Result<()>;
    /// The next steady state is reached.
    async fn settled(scene: &Scene<'_>, name: &str) -> Result<()>;
}

/// Runs a flow once in peace, and then for each of its writes and each position with a host that is killed there and started
/// again, each time with an object of its own; every end must equal the first. Returns how many writes there are.
async fn everywhere<F: Flow>(stage: &Stage<'_>) -> Result<u64> {
    let scene = stage.scene;
    let state = async |name: &str| -> Result<State> {
        Ok(State::of(scene.cluster(), &scene.namespace, &[F::KIND, CONFIG]).await?.renamed(name, "NAME"))
    };
    let clean = format!("{}-clean", F::NAME);
    F::prepare(scene, &clean).await?;
    F::act(scene, &clean).await?;
    F::settled(scene, &clean).await?;
    let expected = state(&clean).await?;
    for n in 1..=MOST {
        for position in ["before", "during", "after"] {
            let name = format!("{}-{n}-{position}", F::NAME);
            F::prepare(scene, &name).await?;
            let kills = stage.proxy.kills();
            stage.proxy.script([format!("write * #{n}: kill {position}")])?;
            F::act(scene, &name).await?;
            let killed = tokio::select! {
                killed = stage.proxy.killed(kills + 1) => { killed?; true }
                settled = F::settled(scene, &name) => {
                    settled?;
                    // It may have been the last one, at which the host dies in this moment.
                    stage.proxy.writes() >= n
                }
            };
            if !killed {
                stage.proxy.script([""; 0])?;
                ensure!(n > 1, "{} makes no write", F::NAME);
                return Ok(n - 1);
            }
            stage.proxy.killed(kills + 1).await?;
            stage.again().await?;
            F::settled(scene, &name).await?;
            let found = state(&name).await?;
            ensure!(found == expected, "killed {position} write {n} of {}:\n{}", F::NAME, found.differences(&expected));
        }
    }
    anyhow::bail!("{} makes more than {MOST} writes", F::NAME)
}

struct Create;

impl Flow for Create {
    const NAME: &'static str = "create";
    const KIND: &'static str = HELLO;

    async fn prepare(_: &Scene<'_>, _: &str) -> Result<()> {
        Ok(())
    }

    async fn act(scene: &Scene<'_>, name: &str) -> Result<()> {
        hello(scene, name, "one").await.map(drop)
    }

    async fn settled(scene: &Scene<'_>, name: &str) -> Result<()> {
        greeted(scene, name, "one").await
    }
}

/// The first edit, which also turns what a create leaves in `managedFields` into what an apply leaves there.
struct Edit;

impl Flow for Edit {
    const NAME: &'static str = "edit";
    const KIND: &'static str = HELLO;

    async fn prepare(scene: &Scene<'_>, name: &str) -> Result<()> {
        hello(scene, name, "one").await?;
        greeted(scene, name, "one").await
    }

    async fn act(scene: &Scene<'_>, name: &str) -> Result<()> {
        hello(scene, name, "two").await.map(drop)
    }

    async fn settled(scene: &Scene<'_>, name: &str) -> Result<()> {
        greeted(scene, name, "two").await
    }
}

struct EditAgain;

impl Flow for EditAgain {
    const NAME: &'static str = "edit-again";
    const KIND: &'static str = HELLO;

    async fn prepare(scene: &Scene<'_>, name: &str) -> Result<()> {
        Edit::prepare(scene, name).await?;
        hello(scene, name, "two").await?;
        greeted(scene, name, "two").await
    }

    async fn act(scene: &Scene<'_>, name: &str) -> Result<()> {
        hello(scene, name, "three").await.map(drop)
    }

    async fn settled(scene: &Scene<'_>, name: &str) -> Result<()> {
        greeted(scene, name, "three").await
    }
}

/// Somebody deletes the child.
struct Lose;

impl Flow for Lose {
    const NAME: &'static str = "lose";
    const KIND: &'static str = HELLO;

    async fn prepare(scene: &Scene<'_>, name: &str) -> Result<()> {
        Edit::prepare(scene, name).await
    }

    async fn act(scene: &Scene<'_>, name: &str) -> Result<()> {
        scene.cluster().delete(CONFIG, &scene.namespace, name).await
    }

    async fn settled(scene: &Scene<'_>, name: &str) -> Result<()> {
        greeted(scene, name, "one").await
    }
}

/// Every write of the plugin hello: 2 when an object is created, 3 at its first edit, 2 at the next, 1 when its child is
/// deleted.
///
/// Promises: K1
/// Breaks it: a name of a child that differs from run to run, or a child that is taken for a stranger's because its create was
/// never answered.
#[test]
fn a_host_killed_at_any_write_of_hello_ends_where_an_undisturbed_one_does() {
    behind_proxy("k1-hello", &[], async |stage: &Stage<'_>| {
        hellos::install(stage.scene).await?;
        stage.start().await?;
        let writes = [
            everywhere::<Create>(stage).await?,
            everywhere::<Edit>(stage).await?,
            everywhere::<EditAgain>(stage).await?,
            everywhere::<Lose>(stage).await?,
        ];
        ensure!(writes == [2, 3, 2, 1], "the flows have {writes:?} writes");
        no_orphans(stage.scene, HELLO).await?;
        let objects = stage.scene.cluster().list(HELLO, &stage.scene.namespace).await?.len();
        stage.a_round_writes_nothing("hello", objects as u64).await
    });
}

/// Of two children, one is not wanted any more.
struct Prune;

impl Flow for Prune {
    const NAME: &'static str = "prune";
    const KIND: &'static str = PROBE;

    async fn prepare(scene: &Scene<'_>, name: &str) -> Result<()> {
        let children = [format!("{name}-stays"), format!("{name}-goes")];
        probe::set(scene, name, json!({ "children": children, "text": "one" })).await?;
        probe::reconciled(scene, name).await.map(drop)
    }

    async fn act(scene: &Scene<'_>, name: &str) -> Result<()> {
        probe::set(scene, name, json!({ "children": [format!("{name}-stays")], "text": "one" })).await.map(drop)
    }

    async fn settled(scene: &Scene<'_>, name: &str) -> Result<()> {
        probe::config_gone(scene, &format!("{name}-goes")).await?;
        probe::reconciled(scene, name).await.map(drop)
    }
}

/// One child is new, one is changed, one goes: what a plan can have.
struct Everything;

impl Flow for Everything {
    const NAME: &'static str = "everything";
    const KIND: &'static str = PROBE;

    async fn prepare(scene: &Scene<'_>, name: &str) -> Result<()> {
        Prune::prepare(scene, name).await
    }

    async fn act(scene: &Scene<'_>, name: &str) -> Result<()> {
        let children = [format!("{name}-new"), format!("{name}-stays")];
        probe::set(scene, name, json!({ "children": children, "text": "two" })).await.map(drop)
    }

    async fn settled(scene: &Scene<'_>, name: &str) -> Result<()> {
        probe::config_says(scene, &format!("{name}-new"), "text", "two").await?;
        probe::config_says(scene, &format!("{name}-stays"), "text", "two").await?;
        Prune::settled(scene, name).await
    }
}

/// Promises: K1
/// Breaks it: a prune that is forgotten with the process that was about to make it.
#[test]
fn a_host_killed_at_any_write_of_a_plan_that_prunes_ends_where_an_undisturbed_one_does() {
    behind_proxy("k1-prune", &[], async |stage: &Stage<'_>| {
        probe::install(stage.scene).await?;
        stage.start().await?;
        let writes = [everywhere::<Prune>(stage).await?, everywhere::<Everything>(stage).await?];
        ensure!(writes == [2, 5], "the flows have {writes:?} writes");
        no_orphans(stage.scene, PROBE).await?;
        let objects = stage.scene.cluster().list(PROBE, &stage.scene.namespace).await?.len();
        stage.a_round_writes_nothing("probe", objects as u64).await
    });
}

/// Held by a finalizer from before its first child on.
struct Hold;

impl Flow for Hold {
    const NAME: &'static str = "hold";
    const KIND: &'static str = PROBE;

    async fn prepare(_: &Scene<'_>, _: &str) -> Result<()> {
        Ok(())
    }

    async fn act(scene: &Scene<'_>, name: &str) -> Result<()> {
        probe::set(scene, name, json!({})).await.map(drop)
    }

    async fn settled(scene: &Scene<'_>, name: &str) -> Result<()> {
        reconciled(scene, PROBE, name, "Cleaned").await?;
        uid(scene, CONFIG, &format!("{name}-cleaner")).await.map(drop)
    }
}

struct LetGo;

impl Flow for LetGo {
    const NAME: &'static str = "let-go";
    const KIND: &'static str = PROBE;

    async fn prepare(scene: &Scene<'_>, name: &str) -> Result<()> {
        Hold::act(scene, name).await?;
        Hold::settled(scene, name).await
    }

    async fn act(scene: &Scene<'_>, name: &str) -> Result<()> {
        scene.cluster().delete(PROBE, &scene.namespace, name).await
    }

    async fn settled(scene: &Scene<'_>, name: &str) -> Result<()> {
        scene.cluster().wait(PROBE, &scene.namespace, name, "is gone", |object| object.is_none()).await?;
        probe::config_gone(scene, &format!("{name}-cleaner")).await
    }
}

/// Promises: K1
/// Breaks it: a finalizer that nobody takes off after the cleanup's end was lost.
#[test]
fn a_host_killed_at_any_write_of_a_cleanup_leaves_no_finalizer_stuck() {
    behind_proxy("k1-cleanup", &[], async |stage: &Stage<'_>| {
        probe::install_as(stage.scene, "cleaner").await?;
        stage.start().await?;
        let writes = [everywhere::<Hold>(stage).await?, everywhere::<LetGo>(stage).await?];
        ensure!(writes == [3, 1], "the flows have {writes:?} writes");
        no_orphans(stage.scene, PROBE).await?;
        let objects = stage.scene.cluster().list(PROBE, &stage.scene.namespace).await?.len();
        stage.a_round_writes_nothing("cleaner", objects as u64).await
    });
}
