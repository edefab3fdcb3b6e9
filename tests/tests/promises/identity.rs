//! Identity: who did what, as the API server saw it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use reef_tests::{
    audit::{Mark, Request},
    control_plane::HOST_USER,
    host::Options,
    world::{HOST_NAMESPACE, Scene, scene},
};
use serde_json::{Value, json};

use crate::{
    hello::{self, HELLO},
    probe::{self, CONFIG},
};

/// What the host's own user may ask for: verbs, group, resource with subresource. Beside it, only which kinds there are.
const HOST_MAY: &[(&[&str], &str, &str)] = &[
    (&["list", "watch", "patch"], "reef.dev", "plugins"),
    (&["patch"], "reef.dev", "plugins/status"),
    (&["get", "create", "update", "watch"], "coordination.k8s.io", "leases"),
    (&["create"], "events.k8s.io", "events"),
    (&["create"], "", "serviceaccounts/token"),
    (&["create"], "authentication.k8s.io", "selfsubjectreviews"),
    // The one exception: finalizers that nobody else can take off, where an admin has given the right.
    (&["list", "patch"], "demo.reef.dev", "confighistories"),
    (&["list", "patch"], "demo.reef.dev", "backups"),
];

fn resource(request: &Request) -> String {
    let object = &request.object_ref;
    if object.subresource.is_empty() { object.resource.clone() } else { format!("{}/{}", object.resource, object.subresource) }
}

fn allowed(request: &Request) -> bool {
    let (object, resource) = (&request.object_ref, resource(request));
    if object.resource.is_empty() {
        let path = request.uri.split('?').next().unwrap_or_default();
        return request.verb == "get" && ["/api", "/apis", "/openapi/v3"].iter().any(|root| path.starts_with(root));
    }
    if object.resource == "leases" && object.namespace != HOST_NAMESPACE {
        return false;
    }
    HOST_MAY
        .iter()
        .any(|(verbs, group, named)| verbs.contains(&&*request.verb) && *group == object.api_group && *named == resource)
}

/// Requests in the scene's namespace for what is the tenant's: neither the Plugin nor the token is.
fn of_tenants(scene: &Scene<'_>, since: Mark) -> Result<Vec<Request>> {
    let mut requests = scene.world.audit.since(since)?;
    requests.retain(|request| {
        let object = &request.object_ref;
        // What it tells of a Plugin; whatever is told of a tenant's object is told by a plugin's account.
        let told = object.api_group == "events.k8s.io" && request.user.username == HOST_USER;
        let hosts_own = object.api_group == "reef.dev" || resource(request) == "serviceaccounts/token" || told;
        request.is_by_reef() && object.namespace == scene.namespace && !hosts_own
    });
    Ok(requests)
}

/// A life of `hello`: created, edited, its child deleted by hand and back, refused, deleted.
async fn live(scene: &Scene<'_>) -> Result<()> {
    for text in ["one", "two"] {
        hello::says(scene, text).await?;
    }
    scene.cluster().delete(CONFIG, &scene.namespace, "greeting").await?;
    probe::config_says(scene, "greeting", "text", "two").await?;
    let child = scene.cluster().get(CONFIG, &scene.namespace, "greeting").await?.context("the child is gone")?;
    let managers: Vec<&Value> =
        child["metadata"]["managedFields"].as_array().into_iter().flatten().map(|m| &m["manager"]).collect();
    ensure!(managers == ["reef:hello"], "field managers of the child: {managers:?}");
    scene.cluster().delete(HELLO, &scene.namespace, "greeting").await?;
    probe::config_gone(scene, "greeting").await
}

/// The host's kubeconfig has a client certificate, and a certificate beats a token: so none is shown on a tenant's connection.
///
/// Promises: I1
/// Breaks it: a tenant's request on the host's connection, or as the host, or without a name.
#[test]
fn every_request_for_a_tenants_object_is_made_as_the_plugins_service_account() {
    scene("tenants-requests", async |scene: &Scene<'_>| {
        let kubeconfig = std::fs::read_to_string(scene.options().kubeconfig)?;
        ensure!(kubeconfig.contains("client-certificate-data") && !kubeconfig.contains("token"), "{kubeconfig}");
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        scene.host().await?;
        hello::install_as(scene, "greeter").await?;
        live(scene).await?;
        scene.world.audit.mark(scene.cluster()).await?;
        let requests = of_tenants(scene, begin)?;
        let (account, agent) =
            (format!("system:serviceaccount:{}:hello", scene.namespace), format!("plugin/{}/greeter", scene.namespace));
        for request in &requests {
            ensure!(request.user.username == account, "not as {account}: {}", request.line());
            ensure!(request.user_agent.starts_with("reef/") && request.user_agent.ends_with(&agent), "{}", request.line());
            let names_manager = request.uri.replace("%3A", ":").contains("fieldManager=reef:hello");
            ensure!(names_manager || !request.is_write() || request.verb == "delete", "{} {}", request.uri, request.line());
        }
        for (verb, wanted) in [("watch", "hellos"), ("watch", "configmaps"), ("patch", "configmaps"), ("patch", "hellos/status")]
        {
            let is_there = requests.iter().any(|request| request.verb == verb && resource(request) == wanted);
            ensure!(is_there, "no {verb} of {wanted} in the audit log");
        }
        Ok(())
    });
}

/// Judges the whole audit log, whatever other tests did on the same control plane.
///
/// Promises: I2
/// Breaks it: a read or a write of the host's own where the plugin's account is meant.
#[test]
fn the_hosts_own_user_touches_nothing_but_its_own_kinds() {
    scene("hosts-requests", async |scene: &Scene<'_>| {
        scene.host().await?;
        hello::install(scene).await?;
        probe::install(scene).await?;
        live(scene).await?;
        scene.cluster().apply_object(&scene.namespace, &probe::config("source", json!({ "value": "read" }))).await?;
        probe::set(scene, "reader", json!({ "mode": "read", "read": "source" })).await?;
        probe::config_says(scene, "reader-copy", "value", "read").await?;
        scene.world.audit.mark(scene.cluster()).await?;
        let all = scene.world.audit.all()?;
        let hosts: Vec<&Request> = all.iter().filter(|request| request.user.username == HOST_USER).collect();
        let strays: Vec<String> = hosts
            .iter()
            // Tests of the cache alone: they list and watch as this user, to compare.
            .filter(|request| !["mirror-", "silent-"].iter().any(|of| request.object_ref.namespace.starts_with(of)))
            .filter(|request| !allowed(request))
            .map(|request| format!("{} {}", request.uri, request.line()))
            .collect();
        ensure!(strays.is_empty(), "requests of {HOST_USER} for what is not its own:\n{}", strays.join("\n"));
        for wanted in ["plugins", "plugins/status", "leases", "serviceaccounts/token"] {
            ensure!(
                hosts.iter().any(|request| resource(request) == wanted),
                "the host has not asked for {wanted}: is the log whole?"
            );
        }
        Ok(())
    });
}

/// Promises: I4
/// Breaks it: a right to make tokens that comes with the host's own; a sentence that does not help.
#[test]
fn an_account_that_nobody_lent_is_not_used_until_the_command_in_the_message_is_run() {
    scene("not-lent", async |scene: &Scene<'_>| {
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        scene.host_with(&Options { flags: vec!["--recheck-period".into(), "1s".into()], ..scene.options() }).await?;
        hello::install_unlent(scene).await?;
        hello::set(scene, "lend me").await?;
        let message = hello::plugin_says(scene, "hello", ("Authorized", "False", "NotLent")).await?;
        hello::has(
            &message,
            &[&format!("ServiceAccount {}/hello is not lent to the host", scene.namespace), "Lend it with `kubectl"],
        )?;
        hello::plugin_says(scene, "hello", ("Ready", "False", "Forbidden")).await?;
        let lent = scene.world.audit.mark(scene.cluster()).await?;
        let codes = tokens(scene, begin)?;
        ensure!(!codes.is_empty() && codes.iter().all(|code| *code == 403), "answers to token requests: {codes:?}");
        let used = of_tenants(scene, begin)?;
        ensure!(used.is_empty(), "requests although nothing is lent: {:?}", used.iter().map(Request::line).collect::<Vec<_>>());
        let commands = run_commands(scene, &message)?;
        ensure!(commands.len() == 2, "commands in the message: {commands:?}");
        hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await?;
        probe::config_says(scene, "greeting", "text", "lend me").await?;
        ensure!(tokens(scene, lent)?.contains(&201), "no token was made after the account was lent");
        Ok(())
    });
}

/// The answers to token requests in the scene's namespace, all of which the host's own user made.
fn tokens(scene: &Scene<'_>, since: Mark) -> Result<Vec<u16>> {
    let mut requests = scene.world.audit.since(since)?;
    requests.retain(|request| request.object_ref.namespace == scene.namespace && resource(request) == "serviceaccounts/token");
    for request in &requests {
        ensure!(request.user.username == HOST_USER, "{}", request.line());
    }
    Ok(requests.iter().map(|request| request.response_status.code).collect())
}

/// What a person does who reads the message: run what stands between backticks.
fn run_commands(scene: &Scene<'_>, message: &str) -> Result<Vec<String>> {
    let commands: Vec<String> = message.split('`').filter(|part| part.starts_with("kubectl ")).map(str::to_owned).collect();
    let kubectl = scene.world.tools.kubectl.path.parent().context("kubectl has no directory")?;
    for command in &commands {
        let path = format!("{}:{}", kubectl.display(), std::env::var("PATH").unwrap_or_default());
        let output = Command::new("sh")
            .args(["-c", command])
            .env("PATH", path)
            .env("HOME", scene.dir())
            .env("KUBECONFIG", scene.world.plane.admin_kubeconfig())
            .output()?;
        ensure!(output.status.success(), "`{command}`: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(commands)
}
