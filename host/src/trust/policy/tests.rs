//! The policy file: what it says by default, whose rule wins, and the sentence for each mistake.

use std::sync::Arc;

use super::*;
use crate::{
    names::Digest,
    trust::{Image, tests::recorded::Recording},
};

const KEY: &str = include_str!("../fixtures/openssl/p256.pub");
const HEAD: &str = "apiVersion: reef.dev/v1alpha1\nkind: TrustPolicy\n";

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Text::parse(&format!("{HEAD}{text}"))?.into_policy(|file| match file {
        "there.pub" => Ok(KEY.into()),
        _ => Err("there is no such file".into()),
    })
}

fn subject(namespace: &str, origin: Origin, pin: Pin) -> Subject {
    Subject { namespace: Arc::from(namespace), origin, pin, component: Digest::of(b"component") }
}

fn image(registry: &str, repository: &str) -> Origin {
    let component = Digest::of(b"component");
    let manifest = format!(r#"{{"layers":[{{"digest":"{component}"}}]}}"#);
    Origin::Image(Image::new(registry, repository, &[manifest], component).unwrap())
}

#[test]
fn what_a_rule_does_not_say_is_refused_or_required() {
    let policy =
        parse("keys: [{ name: a, file: there.pub }]\nrules: [{ namespaces: [team-a], repositories: [r.example/a], keys: [a] }]")
            .unwrap();
    let rule = policy.rule("team-a").unwrap();
    assert_eq!(rule.keys.len(), 1);
    let allows = |origin, pin| rule.allows(&subject("team-a", origin, pin)).map_err(|error| error.label());
    assert_eq!(allows(image("r.example", "a"), Pin::Loose), Ok(()));
    assert_eq!(allows(image("r.example", "b"), Pin::Pinned), Err("RegistryNotAllowed"));
    assert_eq!(allows(Origin::File("a.wasm".into()), Pin::Pinned), Err("SourceNotAllowed"));
    assert_eq!(allows(Origin::ConfigMap("a".into()), Pin::Pinned), Err("SourceNotAllowed"));
    assert_eq!(policy.rule("team-b").unwrap_err().label(), "NoMatchingRule");
    let nothing = parse("rules: []").unwrap();
    assert_eq!(nothing.rule("team-a").unwrap_err().label(), "NoMatchingRule");
}

#[test]
fn a_pin_is_asked_for_by_the_rule_or_by_what_it_says_of_the_source() {
    let policy = parse(
        "rules:\n- { namespaces: [strict], repositories: [r.example/**], files: allowed, signature: optional, digest: required }\n\
         - { namespaces: [files], files: pinned, configMaps: allowed }\n",
    )
    .unwrap();
    for (namespace, origin, pinned_only) in [
        ("strict", image("r.example", "a"), true),
        ("strict", Origin::File("a.wasm".into()), true),
        ("files", Origin::File("a.wasm".into()), true),
        ("files", Origin::ConfigMap("a".into()), false),
    ] {
        let rule = policy.rule(namespace).unwrap();
        let loose = rule.allows(&subject(namespace, origin.clone(), Pin::Loose)).map_err(|error| error.label());
        assert_eq!(loose, if pinned_only { Err("DigestRequired") } else { Ok(()) }, "{namespace} {origin}");
        assert_eq!(rule.allows(&subject(namespace, origin, Pin::Pinned)), Ok(()));
    }
}

#[test]
fn the_most_exact_pattern_wins_and_of_equals_the_first_rule() {
    let policy = parse(
        "rules:\n- { namespaces: ['*'], files: refused }\n- { namespaces: ['team-*', 'a-very-long-pattern-*'], files: pinned }\n\
         - { namespaces: ['*-a', 'team-a'], files: allowed }\n- { namespaces: ['*-team'], files: allowed }\n- { namespaces: ['t*eam-'] }\n",
    )
    .unwrap();
    for (namespace, files) in [
        ("team-a", Unsigned::Allowed),
        ("team-b", Unsigned::Pinned),
        ("team-b-a", Unsigned::Pinned),
        ("x-a", Unsigned::Allowed),
        ("x", Unsigned::Refused),
        ("team-team", Unsigned::Pinned),
    ] {
        assert_eq!(policy.rule(namespace).unwrap().files, files, "{namespace}");
    }
}

#[test]
fn each_mistake_is_told_with_its_place_and_the_fix() {
    let inline = "keys: [{ name: a, file: there.pub }]\n";
    for (text, part) in [
        ("", "missing field `rules`"),
        ("rules: [{ namespaces: ['*'], registries: [] }]", "unknown field `registries`"),
        ("rules: [{ namespaces: ['*'], files: yes please }]", "expected one of `refused`, `pinned`, `allowed`"),
        ("rules: [{ namespaces: ['*'], repositories: [r.example] }]", "all of a registry is `registry.example/**`"),
        ("rules: [{ namespaces: ['Team'] }]", "namespace `Team` is not valid"),
        ("rules: [{ namespaces: [] }]", "rules[0].namespaces is empty"),
        ("rules: [{ namespaces: [a] }, { namespaces: [b, a] }]", "rules[1].namespaces: rules[0] speaks of `a` already"),
        ("rules: [{ namespaces: [a], repositories: [r.example/a] }]", "rules[0].keys is empty, but a signature is required"),
        ("rules: [{ namespaces: [a], keys: [b] }]", "rules[0].keys: there is no key `b`"),
        ("rules: [{ namespaces: [a], keys: [a], signature: optional }]", "rules[0].keys is of no use with `signature: optional`"),
        ("keys: [{ name: b }]\nrules: []", "keys[b]: give it either `pem`"),
        ("keys: [{ name: b, file: x }]\nrules: []", "keys[b]: there is no such file"),
        ("keys: [{ name: b, pem: x }]\nrules: []", "keys[b]: it is no public key"),
        ("keys: [{ name: b, file: there.pub }, { name: b, file: there.pub }]\nrules: []", "the name `b` is given twice"),
        ("rules: [", "at line "),
    ] {
        let text = if text.contains("keys: [{ name") { text.to_owned() } else { format!("{inline}{text}") };
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{text}\n{error}");
    }
    let other = Text::parse("apiVersion: v1\nkind: Pod\nrules: []").unwrap_err().to_string();
    assert!(other.contains("`v1 Pod`") && other.contains("kind: TrustPolicy"), "{other}");
}

#[test]
fn the_example_in_the_documentation_is_a_policy_and_says_what_the_page_says() {
    let page = include_str!("../../../../docs/trust.md");
    let example = page.split("```yaml title=policy.yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let recording = Recording::read();
    let policy = Text::parse(example).unwrap().into_policy(|_| Ok(recording.pem("release").to_owned())).unwrap();
    let allows = |namespace: &str, origin: Origin, pin| {
        policy.rule(namespace).and_then(|rule| rule.allows(&subject(namespace, origin, pin))).map_err(|error| error.label())
    };
    assert_eq!(allows("team-a", image("registry.example", "team-a/hello"), Pin::Loose), Ok(()));
    assert_eq!(allows("team-a", image("registry.example", "team-b/hello"), Pin::Loose), Err("RegistryNotAllowed"));
    assert_eq!(allows("team-a-prod", image("registry.example", "released/hello"), Pin::Loose), Err("DigestRequired"));
    assert_eq!(allows("team-a-prod", image("registry.example", "released/hello"), Pin::Pinned), Ok(()));
    assert_eq!(allows("sandbox", Origin::File("a.wasm".into()), Pin::Pinned), Ok(()));
    assert_eq!(allows("kube-system", Origin::File("a.wasm".into()), Pin::Pinned), Err("SourceNotAllowed"));
}
