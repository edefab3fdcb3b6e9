//! The chart: an API server takes what it renders, and that grants what the host needs and nothing else.

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use reef_tests::{
    cluster::Cluster,
    control_plane::Setup,
    host::Options,
    paths,
    tools::{self, HELM, KUBECTL},
    world::{HOST_NAMESPACE, Scene, scene, scene_apart},
};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{
    hello,
    probe::{PLUGIN, until},
};

const IMAGE: &str = "image.repository=registry.example/reef/reef";
/// Values that have each template render all that it can.
const EVERYTHING: &str = "deploy/chart/ci/everything-values.yaml";

/// What roles and bindings of the chart say, one line for each rule and subject. Whoever adds one explains it in docs/rbac.md.
const GRANTED: &[&str] = &[
    "ClusterRole reef-host: create events.k8s.io/events",
    "ClusterRole reef-host: list,watch,patch reef.dev/plugins",
    "ClusterRole reef-host: patch reef.dev/plugins/status",
    "ClusterRole reef-plugins-edit: get,list,watch,create,update,patch,delete,deletecollection reef.dev/plugins",
    "ClusterRole reef-plugins-view: get reef.dev/plugins/status",
    "ClusterRole reef-plugins-view: get,list,watch reef.dev/plugins",
    "ClusterRoleBinding reef-host: ClusterRole reef-host to ServiceAccount reef-system/reef",
    "Role reef-host: create coordination.k8s.io/leases",
    "Role reef-host: get,update,watch coordination.k8s.io/leases named reef-reef",
    "Role reef-test: list reef.dev/plugins",
    "RoleBinding reef-host: Role reef-host to ServiceAccount reef-system/reef",
    "RoleBinding reef-test: Role reef-test to ServiceAccount reef-system/reef-test",
];

/// Helm, without the configuration of whoever runs the tests.
fn helm(args: &[&str]) -> Result<Output> {
    let tool = tools::locate_one(HELM, &|line| eprintln!("{line}"))?;
    let home = tempfile::tempdir()?;
    let mut command = Command::new(&tool.path);
    for variable in ["HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path());
    }
    command.args(args).current_dir(paths::checkout()).env_remove("KUBECONFIG");
    command.output().with_context(|| format!("cannot run {}", tool.path.display()))
}

/// `helm template`, in this namespace.
fn template(namespace: &str, more: &[&str]) -> Result<Output> {
    let begin = ["template", "reef", "deploy/chart", "--namespace", namespace, "--kube-version", "1.33.0"];
    helm(&[&begin[..], more].concat())
}

/// What it renders.
fn rendered(namespace: &str, more: &[&str]) -> Result<Vec<Value>> {
    let output = template(namespace, more)?;
    ensure!(output.status.success(), "helm template {more:?}: {}", String::from_utf8_lossy(&output.stderr));
    documents(&String::from_utf8(output.stdout)?)
}

fn documents(yaml: &str) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for document in serde_norway::Deserializer::from_str(yaml) {
        let object = Value::deserialize(document)?;
        if !object.is_null() {
            all.push(object);
        }
    }
    Ok(all)
}

fn deploy(file: &str) -> Result<String> {
    let path = paths::checkout().join("deploy").join(file);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(text).collect()
}

/// The lines of `GRANTED`.
fn granted(objects: &[Value]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for object in objects {
        let who = format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
        for rule in object["rules"].as_array().into_iter().flatten() {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    let names = texts(&rule["resourceNames"]).join(",");
                    let named = if names.is_empty() { names } else { format!(" named {names}") };
                    lines.insert(format!("{who}: {} {group}/{resource}{named}", texts(&rule["verbs"]).join(",")));
                }
            }
        }
        let role = format!("{} {}", text(&object["roleRef"]["kind"]), text(&object["roleRef"]["name"]));
        for subject in object["subjects"].as_array().into_iter().flatten() {
            let (kind, namespace, name) = (&subject["kind"], &subject["namespace"], &subject["name"]);
            lines.insert(format!("{who}: {role} to {} {}/{}", text(kind), text(namespace), text(name)));
        }
    }
    lines
}

/// A right that nobody has thought about is found here, and a file that the tests use and that is not what the chart gives.
#[test]
fn the_chart_grants_what_the_list_says_and_nothing_else() {
    let check = || -> Result<()> {
        let listed: BTreeSet<String> = GRANTED.iter().map(|line| (*line).to_owned()).collect();
        let chart = granted(&rendered(HOST_NAMESPACE, &["--set", IMAGE])?);
        ensure!(chart == listed, "the chart grants {chart:#?}\nand the list says {listed:#?}");
        let hosts: BTreeSet<String> = listed.into_iter().filter(|line| line.contains(" reef-host: ")).collect();
        for file in ["host-rbac.yaml", "install.yaml"] {
            let found = granted(&documents(&deploy(file)?)?);
            ensure!(hosts.is_subset(&found), "deploy/{file} grants {found:#?}\nand the chart {hosts:#?}");
            ensure!(file == "install.yaml" || found == hosts, "deploy/{file} grants more: {found:#?}");
        }
        Ok(())
    };
    check().unwrap_or_else(|error| panic!("{error:#}"));
}

#[test]
fn wrong_values_are_refused_with_a_sentence_that_names_them() {
    let rule = |group: &str, resource: &str, verb: &str| {
        let at = "rbac.extraRules[0]";
        format!("{at}.apiGroups={{{group}}},{at}.resources={{{resource}}},{at}.verbs={{{verb}}}")
    };
    let cases = [
        ("replicas=many".to_owned(), "/replicas"),
        ("clasName=blue".to_owned(), "clasName"),
        ("className=Blue_1".to_owned(), "'Blue_1' does not match"),
        ("image.digest=latest".to_owned(), "/image/digest"),
        ("image.repository=".to_owned(), "image.repository is not set"),
        ("serviceAccount.create=false".to_owned(), "serviceAccount.name is not set"),
        ("config.lease-duration=soon".to_owned(), "'soon' does not match"),
        ("config.class-name=blue".to_owned(), "class-name"),
        ("extraArgs={--lease-name=x}".to_owned(), "extraArgs: --lease-name is set by the chart"),
        ("trustPolicy.file.kind=TrustPolicy,trustPolicy.existingConfigMap=x".to_owned(), "are both set"),
        (rule("*", "backups", "patch"), "'*' does not match"),
        (rule("demo.reef.dev", "*", "patch"), "'*' does not match"),
        (rule("demo.reef.dev", "backups", "escalate"), "value must be one of 'get', 'list', 'watch', 'patch'"),
        (rule("", "secrets", "list"), "no rule may name secrets"),
    ];
    for (wrong, sentence) in cases {
        let output = template(HOST_NAMESPACE, &["--set", IMAGE, "--set", &wrong]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(sentence), "{wrong}: {said}");
    }
}

/// What `reef host` can be told, the chart can: by a value of its own, or by one of `config`.
#[test]
fn every_option_of_the_host_has_a_value() {
    let check = || -> Result<()> {
        let help = Command::new(paths::binary("reef")?).args(["host", "--help"]).output()?;
        let help = String::from_utf8(help.stdout)?;
        let options = help.lines().filter_map(|line| line.trim_start().trim_start_matches("-h, ").strip_prefix("--"));
        let names = options.filter_map(|option| option.split([' ', '=']).next()).map(str::to_owned);
        let mut options: BTreeSet<String> = names.collect();
        // The pod's account, and what follows from the class.
        for other in ["help", "kubeconfig", "context", "lease-name"] {
            ensure!(options.remove(other), "`reef host --help` has no --{other}: {help}");
        }
        let schema: Value = serde_json::from_str(&deploy("chart/values.schema.json")?)?;
        let config = schema["properties"]["config"]["properties"].as_object().context("the schema has no config")?;
        let mut values: BTreeSet<String> = config.keys().cloned().collect();
        let objects = rendered(HOST_NAMESPACE, &["-f", EVERYTHING])?;
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").context("no Deployment")?;
        let args = texts(&deployment["spec"]["template"]["spec"]["containers"][0]["args"]);
        let given = args.iter().filter_map(|arg| arg.strip_prefix("--")).filter_map(|arg| arg.split('=').next());
        values.extend(given.map(str::to_owned));
        ensure!(values == options, "`reef host` has {options:#?}\nand the chart {values:#?}");
        Ok(())
    };
    check().unwrap_or_else(|error| panic!("{error:#}"));
}

/// `kubectl apply --server-side --dry-run=server`.
fn dry_run(scene: &Scene<'_>, objects: &[Value]) -> Result<()> {
    let mut kubectl = Command::new(&scene.world.tools.kubectl.path)
        .args(["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"])
        .arg("--kubeconfig")
        .arg(scene.world.plane.admin_kubeconfig())
        .env("HOME", scene.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    kubectl.stdin.take().context("kubectl has no stdin")?.write_all(list.to_string().as_bytes())?;
    let output = kubectl.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && !said.contains("Warning"), "kubectl apply: {said}");
    Ok(())
}

/// The pods of these objects, by themselves: only so does the API server judge them.
fn pods(namespace: &str, objects: &[Value]) -> Vec<Value> {
    let mut specs: Vec<Value> = objects.iter().filter(|o| o["kind"] == "Pod").map(|o| o["spec"].clone()).collect();
    let deployments = objects.iter().filter(|object| object["kind"] == "Deployment");
    specs.extend(deployments.map(|object| object["spec"]["template"]["spec"].clone()));
    let mut pods = Vec::new();
    for (n, mut spec) in specs.into_iter().enumerate() {
        // A dry run has not made theirs.
        spec["serviceAccountName"] = "default".into();
        let metadata = json!({ "name": format!("pod-{n}"), "namespace": namespace });
        pods.push(json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec }));
    }
    pods
}

/// In a namespace of Pod Security `restricted`, with default values and with every part of the chart at once; and with the values
/// of the examples for Argo CD and Flux. So no field is one that no API has, the policy compiles, and no pod asks for more than it
/// may have.
#[test]
fn a_real_api_server_takes_what_the_chart_renders() {
    scene("chart-renders", async |scene: &Scene<'_>| {
        let restricted = json!({ "metadata": { "labels": { "pod-security.kubernetes.io/enforce": "restricted" } } });
        scene.cluster().patch("v1/Namespace", "", &scene.namespace, "", &restricted).await?;
        for values in [["--set", IMAGE], ["-f", EVERYTHING]] {
            let mut objects = rendered(&scene.namespace, &values)?;
            objects.extend(pods(&scene.namespace, &objects));
            // The Prometheus operator is not here; and a pod whose account there is not yet was taken apart.
            objects.retain(|object| object["kind"] != "ServiceMonitor" && object["metadata"]["name"] != "reef-test");
            objects.retain(|object| object["metadata"]["name"] != "reef-blue-test");
            dry_run(scene, &objects).with_context(|| format!("{values:?}"))?;
        }
        let argo: Vec<Value> = documents(&deploy("examples/argo-cd/application.yaml")?)?;
        let flux: Vec<Value> = documents(&deploy("examples/flux/release.yaml")?)?;
        let argo = argo.iter().map(|object| &object["spec"]["source"]["helm"]["valuesObject"]);
        let flux = flux.iter().map(|object| &object["spec"]["values"]);
        let values: Vec<&Value> = argo.chain(flux).filter(|values| !values.is_null()).collect();
        ensure!(values.len() == 2, "values in the examples: {values:?}");
        for values in values {
            let file = scene.dir().join("values.json");
            std::fs::write(&file, values.to_string())?;
            dry_run(scene, &pods(&scene.namespace, &rendered(&scene.namespace, &["-f", &file.display().to_string()])?))?;
        }
        Ok(())
    });
}

/// Applies those of the chart's objects that give and refuse rights, under names of their own and for the scene's class.
async fn install_rights(scene: &Scene<'_>) -> Result<()> {
    let class = format!("className={}", scene.namespace);
    let values = ["--no-hooks", "--set", IMAGE, "--set", "fullnameOverride=charted", "--set", &class];
    let kinds = ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
    for object in rendered(HOST_NAMESPACE, &values)? {
        let kind = text(&object["kind"]);
        if kinds.contains(&kind) || kind.starts_with("ValidatingAdmissionPolicy") {
            scene.cluster().apply_object(HOST_NAMESPACE, &object).await?;
        }
    }
    Ok(())
}

/// Binds a role of the scene's namespace, or one of all, to an account.
async fn bind(scene: &Scene<'_>, role: (&str, &str), account: (&str, &str)) -> Result<()> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": { "name": format!("{}-{}", role.1, account.1) },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1 },
        "subjects": [{ "kind": "ServiceAccount", "namespace": account.0, "name": account.1 }],
    });
    scene.cluster().apply_object(&scene.namespace, &binding).await.map(drop)
}

/// The host runs as the chart's account, with the chart's roles and nothing else but the loan of one account: it needs no right that
/// only the tests have given it.
#[test]
fn a_host_with_the_charts_rights_is_refused_nothing() {
    scene_apart("charted", Setup::default(), async |scene: &Scene<'_>| {
        install_rights(scene).await?;
        let begin = scene.world.audit.mark(scene.cluster()).await?;
        let kubeconfig = scene.kubeconfig_of(HOST_NAMESPACE, "charted").await?;
        scene.host_with(&Options { kubeconfig, ..scene.options() }).await?;
        hello::install(scene).await?;
        bind(scene, ("Role", "reef-lend-hello"), (HOST_NAMESPACE, "charted")).await?;
        hello::plugin_says(scene, "hello", ("Ready", "True", "Ready")).await?;
        hello::says(scene, "as the chart allows").await?;
        let told = || async {
            let events = scene.cluster().list("events.k8s.io/v1/Event", &scene.namespace).await.unwrap_or_default();
            events.iter().any(|event| event["regarding"]["kind"] == "Plugin")
        };
        until("the host tells an event of the Plugin", told).await?;
        scene.world.audit.mark(scene.cluster()).await?;
        let mut requests = scene.world.audit.since(begin)?;
        requests.retain(|request| request.user.username == format!("system:serviceaccount:{HOST_NAMESPACE}:charted"));
        for wanted in ["leases", "plugins", "events"] {
            let is_there = requests.iter().any(|request| request.object_ref.resource == wanted);
            ensure!(is_there, "nothing was asked of {wanted}: is the log whole?");
        }
        // Until the account is lent, its token is what must be refused.
        requests.retain(|request| request.response_status.code == 403 && request.object_ref.subresource != "token");
        let refused: Vec<String> = requests.iter().map(|request| request.line()).collect();
        ensure!(refused.is_empty(), "refused:\n{}", refused.join("\n"));
        Ok(())
    });
}

/// A Plugin that no host serves.
fn plugin(name: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["className"] = "nobodys".into();
    spec["source"] = json!({ "file": "hello.wasm" });
    json!({ "apiVersion": "reef.dev/v1alpha1", "kind": "Plugin", "metadata": { "name": name }, "spec": spec })
}

/// Somebody has to be refused, for want of the right to act as this account.
fn refused(result: Result<Value>, account: &str) -> Result<()> {
    let said = match result {
        Ok(object) => format!("nothing: it is there: {object}"),
        Err(error) => format!("{error:#}"),
    };
    hello::has(&said, &[&format!("would act as ServiceAccount {account}"), "`impersonate`"])
}

/// An author who may edit Plugins, and who is then allowed to act as one account after the other.
///
/// Promises: I6
/// Breaks it: a policy that is not bound, that forgets the default name or edits, or that refuses whoever may.
#[test]
fn a_plugin_is_written_only_by_those_who_may_act_as_its_account() {
    scene_apart("plugin-accounts", Setup::default(), async |scene: &Scene<'_>| {
        install_rights(scene).await?;
        let (namespace, admin) = (&*scene.namespace, scene.cluster());
        for name in ["author", "hello"] {
            let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": name } });
            admin.apply_object(namespace, &account).await?;
        }
        bind(scene, ("ClusterRole", "charted-plugins-edit"), (namespace, "author")).await?;
        let author = Cluster::connect(&scene.kubeconfig_of(namespace, "author").await?).await?;
        let hello = format!("{namespace}/hello");
        // Rights and policy are known to the API server a moment after they were written.
        until("the policy is in force", || async {
            let tried = author.create(namespace, &plugin("early", &json!({}))).await;
            let _ = admin.delete(PLUGIN, namespace, "early").await;
            refused(tried, &format!("{namespace}/early")).is_ok()
        })
        .await?;

        let named = plugin("named", &json!({ "serviceAccountName": "hello" }));
        refused(author.create(namespace, &named).await, &hello)?;
        refused(author.create(namespace, &plugin("hello", &json!({}))).await, &hello)?;

        // What an admin has made, the author may label but not change.
        admin.create(namespace, &named).await?;
        let label = json!({ "metadata": { "labels": { "team": "a" } } });
        author.patch(PLUGIN, namespace, "named", "", &label).await?;
        let other_code = json!({ "spec": { "source": { "file": "other.wasm" } } });
        refused(author.patch(PLUGIN, namespace, "named", "", &other_code).await, &hello)?;

        let rule = |verb: &str, resource: &str, name: &str| {
            json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": format!("{verb}-{name}") },
                "rules": [{ "apiGroups": [""], "resources": [resource], "resourceNames": [name], "verbs": [verb] }],
            })
        };
        admin.apply_object(namespace, &rule("impersonate", "serviceaccounts", "hello")).await?;
        bind(scene, ("Role", "impersonate-hello"), (namespace, "author")).await?;
        until("who may impersonate the account may change the Plugin", || async {
            author.patch(PLUGIN, namespace, "named", "", &other_code).await.is_ok()
        })
        .await?;
        refused(author.create(namespace, &plugin("robot", &json!({}))).await, &format!("{namespace}/robot"))?;

        admin.apply_object(namespace, &rule("create", "serviceaccounts/token", "robot")).await?;
        bind(scene, ("Role", "create-robot"), (namespace, "author")).await?;
        until("who may make a token of the account may create the Plugin", || async {
            author.create(namespace, &plugin("robot", &json!({}))).await.is_ok()
        })
        .await
    });
}

/// An overlay of the base, as the example has it.
#[test]
fn the_kustomize_example_builds() {
    let check = || -> Result<()> {
        let kubectl = tools::locate_one(KUBECTL, &|line| eprintln!("{line}"))?.path;
        let output = Command::new(kubectl).arg("kustomize").arg(paths::checkout().join("deploy/examples/kustomize")).output()?;
        ensure!(output.status.success(), "kubectl kustomize: {}", String::from_utf8_lossy(&output.stderr));
        let built = documents(&String::from_utf8(output.stdout)?)?;
        let kinds = |objects: &[Value]| objects.iter().map(|object| text(&object["kind"]).to_owned()).collect::<BTreeSet<_>>();
        let whole = documents(&deploy("install.yaml")?)?;
        ensure!(kinds(&built) == kinds(&whole), "{:?}\n{:?}", kinds(&built), kinds(&whole));
        Ok(())
    };
    check().unwrap_or_else(|error| panic!("{error:#}"));
}
