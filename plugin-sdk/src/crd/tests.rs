//! Each kind of disagreement is found and named; what agrees passes.

use std::collections::BTreeMap;

use super::*;

const CRD: &str = "
kind: CustomResourceDefinition
spec:
  group: example.dev
  names: { kind: Shop }
  versions:
    - name: v1
      schema:
        openAPIV3Schema:
          type: object
          required: [spec]
          properties:
            spec:
              type: object
              required: [name, tills]
              properties:
                name: { type: string, minLength: 1 }
                tills: { type: integer, format: int32, minimum: 0, maximum: 9 }
                open: { type: boolean, default: true }
                size: { type: string, enum: [Small, Large] }
                port: { x-kubernetes-int-or-string: true }
                shelves: { type: array, items: { type: object, required: [id], properties: { id: { type: string } } } }
                labels: { type: object, additionalProperties: { type: string } }
                extra: { type: object, x-kubernetes-preserve-unknown-fields: true }
            status:
              type: object
              properties:
                sold: { type: integer, minimum: 0 }
                conditions: { type: array, items: { type: object } }
";
const SAMPLE: &str = "{ apiVersion: example.dev/v1, kind: Shop, metadata: { name: a }, spec: { name: Corner, tills: 1 } }";

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only decoded")]
struct Shop {
    name: String,
    tills: u8,
    open: bool,
    size: Option<Size>,
    port: Option<Value>,
    #[serde(default)]
    shelves: Vec<Shelf>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    extra: Option<Value>,
}

#[derive(Deserialize)]
enum Size {
    Small,
    Large,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only decoded")]
struct Shelf {
    id: String,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "it is only decoded")]
struct Status {
    sold: u64,
}

fn crd(crd: &str, sample: &str) -> Crd {
    Crd::new(crd, sample, defaulted::<Shop>).unwrap()
}

/// What is said when the CRD is changed like this.
fn with(from: &str, to: &str) -> String {
    assert!(CRD.contains(from), "{from}");
    let crd = crd(&CRD.replace(from, to), SAMPLE);
    [crd.spec::<Shop>(), crd.status::<Status>()].concat().join("\n")
}

#[test]
fn what_agrees_passes() {
    let crd = crd(CRD, SAMPLE);
    agree(&[crd.sample(), crd.spec::<Shop>(), crd.status::<Status>()]).unwrap();
}

#[test]
fn a_field_that_only_one_side_has_is_named() {
    let only_rust = with("open: {", "opened: {");
    assert!(only_rust.contains("spec: `Shop` has the field `open`, and the CRD has not"), "{only_rust}");
    assert!(only_rust.contains("spec: the CRD has the field `opened`, and `Shop` has not"), "{only_rust}");
    let nested = with("{ id: { type: string } }", "{ id: { type: string }, color: { type: string } }");
    assert_eq!(
        nested,
        "spec.shelves[*]: the CRD has the field `color`, and `Shelf` has not: what users write there does nothing"
    );
    assert!(with("sold: {", "bought: {").contains("status: `Status` has the field `sold`"));
}

#[test]
fn what_the_crd_admits_and_the_type_does_not_decode_is_named() {
    let optional = with("required: [name, tills]", "required: [name]");
    assert!(
        optional.starts_with("spec: the type needs the field `tills`, and the CRD does not: make it an `Option`"),
        "{optional}"
    );
    let negative = with("minimum: 0, maximum: 9", "maximum: 9");
    assert!(negative.starts_with("spec.tills: the CRD admits") && negative.contains("-2147483648"), "{negative}");
    assert!(with("minimum: 0, maximum: 9", "minimum: 0").contains("2147483647"));
    assert!(with("open: { type: boolean", "open: { type: string").contains("spec.open: "));
    assert!(with("[Small, Large]", "[Small, Large, Huge]").contains("the CRD allows `Huge`, and `Size` does not have it"));
    assert!(with("[Small, Large]", "[Small]").contains("`Size` has `Large`, and the CRD does not allow it"));
    assert!(with(", enum: [Small, Large]", "").contains("`Size` knows Small, Large, and the CRD allows any text"));
    assert!(
        with("additionalProperties: { type: string }", "additionalProperties: { type: integer }").contains("spec.labels[*]: ")
    );
}

#[test]
fn a_sample_that_the_api_server_would_not_take_as_it_is_is_named() {
    let said = |from: &str, to: &str| {
        let sample = SAMPLE.replace(from, to);
        assert_ne!(sample, SAMPLE);
        crd(CRD, &sample).sample().join("\n")
    };
    assert!(said("tills: 1", "tills: 10").contains("sample: spec.tills is above the maximum of 9"));
    assert!(said("name: Corner", "name: ''").contains("spec.name is below the minLength of 1"));
    assert!(said(", tills: 1", "").contains("spec.tills is missing, and the CRD requires it"));
    assert!(said("tills: 1", "tills: 1, till: 2").contains("spec.till is not in the CRD: the API server would drop it"));
    assert!(said("tills: 1", "tills: one").contains("spec.tills is \"one\", and the CRD wants the type integer"));
    assert!(said("tills: 1", "tills: 1, size: Big").contains("spec.size is \"Big\", and the CRD allows"));
    assert!(said("tills: 1", "tills: 1, shelves: [{}]").contains("spec.shelves[0].id is missing"));
    assert!(Crd::new(CRD, &SAMPLE.replace("/v1", "/v2"), defaulted::<Shop>).is_err());
    assert!(Crd::new(CRD, &SAMPLE.replace("kind: Shop", "kind: Till"), defaulted::<Shop>).is_err());
}
