//! One plugin against a cluster, from a shell: `run`.

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context, Result, bail, ensure};
use reef_tests::{
    audit::Request,
    cluster::hang_bound,
    paths,
    supervisor::{Exit, Process, Server},
    world::{Scene, scene},
};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{failed, reef};
use crate::{
    hello,
    probe::{self, CONFIG, PLUGIN, PROBE},
    rights,
};

/// A `reef` that goes on until it is interrupted.
pub struct Running {
    process: Process,
    log: PathBuf,
}

impl Running {
    pub fn start(scene: &Scene<'_>, args: &[&str]) -> Result<Self> {
        let number = fs::read_dir(scene.dir())?.count();
        let log = scene.dir().join(format!("command-{number}.log"));
        fs::write(&log, "")?;
        let args = [args, &["-n", &scene.namespace]].concat().into_iter().map(str::to_owned).collect();
        let server = Server { program: paths::binary("reef")?, args, env: Vec::new(), log: log.clone() };
        Ok(Self { process: scene.world.plane.supervisor().spawn(server)?, log })
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub async fn says(&self, text: &str) -> Result<()> {
        let end = Instant::now() + hang_bound();
        while !self.log().contains(text) {
            if let Some(exit) = self.process.exit() {
                bail!("it has ended ({exit:?}) before it said `{text}`:\n{}", self.log());
            }
            ensure!(Instant::now() < end, "it has not said `{text}`:\n{}", self.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub async fn interrupt(&self) -> Result<Exit> {
        self.process.signal(Signal::INT)?;
        let process = self.process.clone();
        let exit = tokio::task::spawn_blocking(move || process.wait_exit(hang_bound())).await?;
        let exit = exit.with_context(|| format!("it does not end:\n{}", self.log()))?;
        ensure!(!self.log().contains("panicked"), "{}", self.log());
        Ok(exit)
    }
}

/// `reef run` of a component in the scene's directory, as the admin.
fn run(scene: &Scene<'_>, file: &str, more: &[&str]) -> Result<Running> {
    let (file, kubeconfig) = (scene.plugin_dir().join(file), scene.world.plane.admin_kubeconfig());
    let line = ["run", &file.display().to_string(), "--kubeconfig", &kubeconfig.display().to_string()];
    Running::start(scene, &[&line, more].concat())
}

/// The account of `hello` and its rights.
async fn account(scene: &Scene<'_>) -> Result<()> {
    for object in rights::computed(scene, "hello")? {
        scene.cluster().apply_object(&scene.namespace, &object).await?;
    }
    Ok(())
}

/// Without a host and without a Plugin: it applies the CRD, reconciles as its ServiceAccount, tells each write, takes another
/// component that is put in its place, keeps the last good one where that is none, and ends when it is interrupted.
///
/// Promises: O1
/// Breaks it: writes as somebody else, a component that is not taken up, or one that cannot be loaded and yet replaces one that can.
#[test]
fn a_plugin_runs_from_a_shell_and_takes_up_what_is_put_in_its_place() {
    scene("from-a-shell", async |scene: &Scene<'_>| {
        account(scene).await?;
        scene.place("plugin.wasm", &hello::component("hello")?)?;
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        let running = run(scene, "plugin.wasm", &["--install-crds"])?;
        running.says("ready: hello").await?;
        hello::says(scene, "one").await?;
        running.says(&format!("demo.reef.dev/v1/Hello {}/greeting done", scene.namespace)).await?;
        running.says(&format!("created v1/ConfigMap {}/greeting", scene.namespace)).await?;
        running.says(&format!("changed demo.reef.dev/v1/Hello {}/greeting (status)", scene.namespace)).await?;
        scene.place("plugin.wasm", &hello::component("hello-v2")?)?;
        probe::config_says(scene, "greeting", "text", "ONE").await?;
        scene.place("plugin.wasm", b"no component")?;
        running.says("not ready: sha256:").await?;
        hello::set(scene, "still").await?;
        probe::config_says(scene, "greeting", "text", "STILL").await?;
        ensure!(running.interrupt().await?.code == Some(0), "{}", running.log());

        scene.world.audit.mark(scene.cluster()).await?;
        let writes = scene.world.audit.writes(begin, &scene.namespace)?;
        let user = format!("system:serviceaccount:{}:hello", scene.namespace);
        ensure!(!writes.is_empty() && writes.iter().all(|write| write.user.username == user), "{writes:?}");
        ensure!(scene.cluster().list(PLUGIN, &scene.namespace).await?.is_empty(), "a Plugin was made");
        Ok(())
    });
}

/// Beside a Plugin that serves: what the next version would do is shown as a diff, and not a single request writes anything. To
/// run it in earnest is refused.
///
/// Promises: O2
/// Breaks it: a write that goes past the one door, or a shadow that says nothing.
#[test]
fn in_shadow_each_plan_is_shown_as_a_diff_and_nothing_is_written() {
    scene("in-shadow", async |scene: &Scene<'_>| {
        scene.host().await?;
        hello::install(scene).await?;
        hello::says(scene, "one").await?;
        scene.place("next.wasm", &hello::component("hello-v2")?)?;
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        let as_hello = ["--service-account", "hello", "--field-manager", "hello"];
        let running = run(scene, "next.wasm", &[&as_hello[..], &["--shadow"]].concat())?;
        running.says(&format!("would change v1/ConfigMap {}/greeting", scene.namespace)).await?;
        running.says("-  text: one").await?;
        running.says("+  text: ONE").await?;
        running.says("(status)").await?;
        ensure!(running.interrupt().await?.code == Some(0), "{}", running.log());
        scene.world.audit.mark(scene.cluster()).await?;
        let written: Vec<String> = scene
            .world
            .audit
            .since(begin)?
            .iter()
            .filter(|request| {
                request.is_write()
                    && request.object_ref.namespace == scene.namespace
                    && request.user_agent.starts_with("reef-run")
            })
            .map(|request| request.line())
            .collect();
        ensure!(written.is_empty(), "{written:?}");
        let agent = format!("plugin/{}/", scene.namespace);
        let reads = scene.world.audit.since(begin)?.iter().filter(|request| request.user_agent.contains(&agent)).count();
        ensure!(reads > 0, "no request of it is in the audit log");
        probe::config_says(scene, "greeting", "text", "one").await?;

        let file = scene.plugin_dir().join("hello.wasm").display().to_string();
        let refused = reef(scene, &["run", &file, "-n", &scene.namespace])?;
        failed(&refused, &["serves demo.reef.dev/v1/Hello as field manager `hello` already", "--shadow", "suspend"])
    });
}

/// A Plugin in shadow mode: the host makes plans and compares them, writes nothing, and says so; taken out of it, it writes.
///
/// Promises: O2
/// Breaks it: a write in shadow mode, or a Plugin that stays in it.
#[test]
fn a_plugin_in_shadow_mode_writes_nothing_until_it_is_taken_out_of_it() {
    scene("shadow-mode", async |scene: &Scene<'_>| {
        let host = scene.host().await?;
        hello::install(scene).await?;
        let mode = async |mode: &str| {
            scene.cluster().patch(PLUGIN, &scene.namespace, "hello", "", &json!({ "spec": { "mode": mode } })).await
        };
        mode("Shadow").await?;
        let message = hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await?;
        hello::has(&message, &["shadow", "nothing is written"])?;
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        hello::set(scene, "unheard").await?;
        host.wait_for_log("tells what it would write", |line| {
            line["message"] == "not written in shadow mode" && line.to_string().contains("unheard")
        })
        .await?;
        scene.world.audit.mark(scene.cluster()).await?;
        let tenants = format!("system:serviceaccount:{}:", scene.namespace);
        let mut writes = scene.world.audit.writes(begin, &scene.namespace)?;
        writes.retain(|write| write.user.username.starts_with(&tenants));
        ensure!(writes.is_empty(), "{writes:?}");
        mode("Apply").await?;
        probe::config_says(scene, "greeting", "text", "unheard").await.map(drop)
    });
}

/// With one's own credentials no account is needed. What it holds for its cleanup is let go when it ends, so that nothing hangs.
///
/// Promises: K3
/// Breaks it: a token that is asked for although nobody wants one, or a finalizer that is left.
#[test]
fn who_runs_a_plugin_as_himself_needs_no_account_and_leaves_nothing_held() {
    scene("as-me", async |scene: &Scene<'_>| {
        probe::stage(scene, "cleaner").await?;
        scene.place("cleaner.wasm", &hello::component("cleaner")?)?;
        probe::set(scene, "a", json!({})).await?;
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        let running = run(scene, "cleaner.wasm", &["--as-me"])?;
        let is_held =
            |object: Option<&Value>| object.is_some_and(|object| object["metadata"]["finalizers"][0] == "reef.dev/cleaner");
        scene.cluster().wait(PROBE, &scene.namespace, "a", "is held", is_held).await?;
        probe::set(scene, "b", json!({})).await?;
        scene.cluster().wait(PROBE, &scene.namespace, "b", "is held", is_held).await?;
        scene.cluster().delete(PROBE, &scene.namespace, "b").await?;
        scene.cluster().wait(PROBE, &scene.namespace, "b", "is cleaned up", |object| object.is_none()).await?;
        running.says(&format!("created v1/ConfigMap {}/a-cleaner", scene.namespace)).await?;
        ensure!(running.interrupt().await?.code == Some(0), "{}", running.log());
        let probe = scene.cluster().get(PROBE, &scene.namespace, "a").await?.context("the object is gone")?;
        ensure!(probe["metadata"]["finalizers"].is_null(), "{}", probe["metadata"]);
        ensure!(scene.cluster().get(CONFIG, &scene.namespace, "a-cleaner").await?.is_some(), "its child is gone");
        scene.world.audit.mark(scene.cluster()).await?;
        let mut requests = scene.world.audit.since(begin)?;
        let mine =
            |request: &Request| request.object_ref.namespace == scene.namespace && request.user_agent.starts_with("reef-run");
        requests.retain(mine);
        let by_accounts = requests.iter().filter(|request| request.user.username.starts_with("system:serviceaccount:")).count();
        let tokens = requests.iter().filter(|request| request.object_ref.subresource == "token").count();
        ensure!(!requests.is_empty() && by_accounts == 0 && tokens == 0, "{by_accounts} as accounts, {tokens} for tokens");
        Ok(())
    });
}
