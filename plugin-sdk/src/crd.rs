//! `crd_test!`: whether the Rust types, the CRD and the sample of a plugin agree, without a cluster.
//!
//! Types are asked by [`probe`], which has them decode what the schema admits; the sample is judged by [`sample`]. Patterns
//! and CEL rules are left to the API server.

mod probe;
mod sample;

use std::fmt;

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::error::{Error, Result};
use probe::Pass;

/// Writes a test that holds the types of a kind against its CRD and its sample; the paths are relative to the source file.
///
/// ```
/// # use plugin_sdk::prelude::*;
/// #[derive(Deserialize)]
/// struct Hello { text: String }
///
/// crd_test!("../crd.yaml", "../sample.yaml", spec: Hello);
/// # fn main() {}
/// ```
///
/// The test fails, with a sentence for each defect, when
///
/// - a field of the type is not in the CRD, or one of the CRD is not in the type: what users write there would do nothing;
/// - the CRD admits what the type does not decode: a field that may be left out, a number out of range, a word that an enum
///   does not have;
/// - the sample is not of this kind, breaks the schema, has fields that the API server would drop, or does not decode.
///
/// `status: Status` holds the type of the status against the CRD as well; there, fields that only others write may be missing
/// in the type, and all may be missing in an object. Several kinds are tests in modules of their own.
#[macro_export]
macro_rules! crd_test {
    ($crd:literal, $sample:literal, spec: $spec:ty $(, status: $status:ty)? $(,)?) => {
        #[test]
        fn the_types_fit_the_crd_and_the_sample() -> ::core::result::Result<(), $crate::__private::Disagreement> {
            let crd = $crate::__private::Crd::new(
                ::core::include_str!($crd),
                ::core::include_str!($sample),
                $crate::__private::defaulted::<$spec>,
            )?;
            let found = [crd.sample(), crd.spec::<$spec>() $(, crd.status::<$status>())?];
            $crate::__private::agree(&found)
        }
    };
}

/// One kind of a CRD, in the version of the sample.
#[derive(Debug)]
pub struct Crd {
    schema: Value,
    sample: Value,
    decode: fn(Value) -> Option<String>,
}

/// What is wrong with the decoding of a spec; nothing, if it decodes.
pub fn defaulted<Spec: DeserializeOwned>(spec: Value) -> Option<String> {
    serde_json::from_value::<Spec>(spec).err().map(|error| error.to_string())
}

/// What `cargo test` prints of a test that has failed: sentences, a line each.
pub struct Disagreement(String);

impl fmt::Debug for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Disagreement {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

/// All defects as one error.
pub fn agree(found: &[Vec<String>]) -> Result<(), Disagreement> {
    let mut defects: Vec<&str> = found.iter().flatten().map(String::as_str).collect();
    defects.dedup();
    if defects.is_empty() { Ok(()) } else { Err(Disagreement(format!("\n- {}", defects.join("\n- ")))) }
}

impl Crd {
    /// `decode` is [`defaulted`] for the type of the spec.
    pub fn new(crd: &str, sample: &str, decode: fn(Value) -> Option<String>) -> Result<Self> {
        let documents = |yaml: &str| -> Result<Vec<Value>> {
            serde_norway::Deserializer::from_str(yaml).map(|document| Ok(Value::deserialize(document)?)).collect()
        };
        let crd = documents(crd)?.into_iter().find(|document| text(document, "/kind") == "CustomResourceDefinition");
        let crd = crd.ok_or_else(|| Error::terminal("the file of the CRD holds no CustomResourceDefinition"))?;
        let (group, kind) = (text(&crd, "/spec/group"), text(&crd, "/spec/names/kind"));
        let sample = documents(sample)?.into_iter().find(|document| text(document, "/kind") == kind);
        let sample = sample.ok_or_else(|| Error::terminal(format!("the file of the sample holds no {kind}")))?;
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let api_version = text(&sample, "/apiVersion");
        let version = versions.iter().find(|version| format!("{group}/{}", text(version, "/name")) == api_version);
        let version =
            version.ok_or_else(|| Error::terminal(format!("the sample is of {api_version}, which is not in the CRD")))?;
        let schema = version.pointer("/schema/openAPIV3Schema").cloned().unwrap_or_default();
        Ok(Self { schema, sample, decode })
    }

    /// Whether the API server would take the sample, and the plugin decode it.
    pub fn sample(&self) -> Vec<String> {
        let mut defects = Vec::new();
        let mut judged = self.sample.clone();
        if let Some(object) = judged.as_object_mut() {
            // The API server's own, in every schema.
            object.retain(|key, _| !matches!(key.as_str(), "apiVersion" | "kind" | "metadata"));
        }
        sample::judge(&self.schema, &judged, "", &mut defects);
        let filled = sample::defaulted(&self.schema, &judged);
        let spec = filled.get("spec").cloned().unwrap_or_default();
        defects.extend((self.decode)(spec).map(|error| format!("spec of the sample does not decode: {error}")));
        defects.into_iter().map(|defect| format!("sample: {defect}")).collect()
    }

    /// Whether the type decodes every spec that the schema admits.
    pub fn spec<Spec: DeserializeOwned>(&self) -> Vec<String> {
        self.fits::<Spec>("spec", &[Pass::Full, Pass::High, Pass::Least])
    }

    /// Whether the type decodes every status that the schema admits and that has all fields.
    pub fn status<Status: DeserializeOwned>(&self) -> Vec<String> {
        self.fits::<Status>("status", &[Pass::Partial, Pass::High])
    }

    fn fits<T: DeserializeOwned>(&self, part: &str, passes: &[Pass]) -> Vec<String> {
        let Some(schema) = self.schema.get("properties").and_then(|properties| properties.get(part)) else {
            return vec![format!("the CRD has no {part}: add it to the schema, or take it out of `crd_test!`")];
        };
        let sample = self.sample.get(part);
        let mut defects: Vec<String> = Vec::new();
        for pass in passes {
            for defect in probe::ask::<T>(schema, sample, part, *pass) {
                if !defects.contains(&defect) {
                    defects.push(defect);
                }
            }
            if !defects.is_empty() {
                break;
            }
        }
        defects
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
