//! What a manifest holds: which one of its layers is the component. Pure.
//!
//! The layout of the CNCF is what `reef push` writes; on pull the older ones of other tools are read too. An artifact has
//! exactly one layer with code, or it is refused: which of two would run must not be a matter of order.

use serde::Deserialize;

use super::{
    MAX_COMPONENT,
    registry::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, INDEX, MANIFEST, Manifest},
};
use crate::names::{Digest, Memory};

/// Config of the CNCF's layout.
pub const CONFIG: &str = "application/vnd.wasm.config.v0+json";
/// Layer of the CNCF's layout.
pub const LAYER: &str = "application/wasm";
/// Layers with code: the CNCF's, Kubewarden's and Spin's, Istio's.
const LAYERS: [&str; 3] =
    [LAYER, "application/vnd.wasm.content.layer.v1+wasm", "application/vnd.module.wasm.content.layer.v1+wasm"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("its manifest is not what the OCI's specification says: {0}")]
    Malformed(String),
    #[error(
        "it has no layer of a Wasm component ({LAYER}), but {0}: was it pushed with `reef push`, or is it a container image?"
    )]
    NoComponent(String),
    #[error("it has {0} layers with Wasm, and exactly one is read: push each component by itself")]
    Several(usize),
    #[error("it is an index without an entry for wasm (os `wasip2`, or architecture `wasm`): name the artifact itself")]
    NoWasm,
    #[error("it is an index with {0} entries for wasm, and exactly one is read: name the artifact itself, by its digest")]
    SeveralWasm(usize),
    #[error("it is an index of an index, which is not followed: name the artifact itself")]
    Nested,
    #[error("its media type `{0}` is neither a manifest nor an index")]
    Unknown(String),
    #[error("its component is {0} bytes large; {MAX_COMPONENT} is the most that is loaded")]
    TooLarge(u64),
    #[error("its layer is no component: {0}")]
    NotAComponent(&'static str),
}

/// What is to be fetched next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Component {
        digest: Digest,
        size: Memory,
    },
    /// Of an index: this manifest, which must not be an index itself.
    Manifest(Digest),
}

/// Whether an index may be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    Top,
    OfIndex,
}

#[derive(Deserialize)]
struct Image {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

pub fn find(manifest: &Manifest, depth: Depth) -> Result<Found, LayoutError> {
    let malformed = |e: serde_json::Error| LayoutError::Malformed(e.to_string());
    match (&*manifest.media_type, depth) {
        (MANIFEST | DOCKER_MANIFEST, _) => component(&serde_json::from_slice(&manifest.bytes).map_err(malformed)?),
        (INDEX | DOCKER_INDEX, Depth::Top) => wasm(&serde_json::from_slice(&manifest.bytes).map_err(malformed)?),
        (INDEX | DOCKER_INDEX, Depth::OfIndex) => Err(LayoutError::Nested),
        (other, _) => Err(LayoutError::Unknown(other.chars().take(80).collect())),
    }
}

/// What it says of itself; one that says nothing is known by what it holds.
pub fn media_type(bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
        layers: Option<serde::de::IgnoredAny>,
        manifests: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice(bytes) {
        Ok(Typed { media_type: Some(media_type), .. }) => media_type,
        Ok(Typed { layers: Some(_), .. }) => MANIFEST.into(),
        Ok(Typed { manifests: Some(_), .. }) => INDEX.into(),
        _ => String::new(),
    }
}

fn component(image: &Image) -> Result<Found, LayoutError> {
    let mut code = image.layers.iter().filter(|layer| LAYERS.contains(&&*layer.media_type));
    match (code.next(), code.count()) {
        (None, _) => {
            let types: Vec<String> = image
                .layers
                .iter()
                .take(3)
                .map(|layer| format!("`{}`", layer.media_type.chars().take(80).collect::<String>()))
                .collect();
            Err(LayoutError::NoComponent(if types.is_empty() { "none at all".into() } else { types.join(", ") }))
        }
        (Some(_), more @ 1..) => Err(LayoutError::Several(more + 1)),
        (Some(layer), 0) if layer.size > MAX_COMPONENT.0 => Err(LayoutError::TooLarge(layer.size)),
        (Some(layer), 0) => Ok(Found::Component { digest: digest(layer)?, size: Memory(layer.size) }),
    }
}

fn wasm(index: &Index) -> Result<Found, LayoutError> {
    let is_wasm = |entry: &&Descriptor| {
        entry.platform.as_ref().is_some_and(|platform| {
            platform.architecture == "wasm" && matches!(&*platform.os, "wasip2" | "wasi" | "") || platform.os == "wasip2"
        })
    };
    let mut entries = index.manifests.iter().filter(is_wasm);
    match (entries.next(), entries.count()) {
        (None, _) => Err(LayoutError::NoWasm),
        (Some(_), more @ 1..) => Err(LayoutError::SeveralWasm(more + 1)),
        (Some(entry), 0) => Ok(Found::Manifest(digest(entry)?)),
    }
}

fn digest(descriptor: &Descriptor) -> Result<Digest, LayoutError> {
    descriptor.digest.parse().map_err(|e: crate::names::Malformed| LayoutError::Malformed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn layer(media_type: &str) -> Value {
        json!({ "mediaType": media_type, "size": 3, "digest": Digest::of(b"x").to_string() })
    }

    fn found(media_type: &str, body: &Value, depth: Depth) -> Result<Found, LayoutError> {
        let bytes = body.to_string().into_bytes();
        find(&Manifest { digest: Digest::of(&bytes), media_type: media_type.into(), bytes: bytes.into() }, depth)
    }

    #[test]
    fn each_layout_that_is_known_has_one_layer_with_code() {
        for media_type in LAYERS {
            let image = json!({ "layers": [layer("text/markdown"), layer(media_type)] });
            let component = Found::Component { digest: Digest::of(b"x"), size: Memory(3) };
            assert_eq!(found(MANIFEST, &image, Depth::Top), Ok(component), "{media_type}");
        }
        let two = json!({ "layers": [layer(LAYER), layer(LAYER)] });
        assert_eq!(found(MANIFEST, &two, Depth::Top), Err(LayoutError::Several(2)));
        let container = json!({ "layers": [layer("application/vnd.oci.image.layer.v1.tar+gzip")] });
        assert!(matches!(found(MANIFEST, &container, Depth::Top), Err(LayoutError::NoComponent(_))));
        assert_eq!(found("text/html", &json!({}), Depth::Top), Err(LayoutError::Unknown("text/html".into())));
    }

    #[test]
    fn an_index_is_followed_once_to_its_only_entry_for_wasm() {
        let entry = |os: &str, architecture: &str| {
            json!({ "mediaType": MANIFEST, "size": 3, "digest": Digest::of(os.as_bytes()).to_string(),
                    "platform": { "os": os, "architecture": architecture } })
        };
        let index = json!({ "manifests": [entry("linux", "amd64"), entry("wasip2", "wasm")] });
        assert_eq!(found(INDEX, &index, Depth::Top), Ok(Found::Manifest(Digest::of(b"wasip2"))));
        assert_eq!(found(INDEX, &index, Depth::OfIndex), Err(LayoutError::Nested));
        assert_eq!(found(INDEX, &json!({ "manifests": [entry("linux", "amd64")] }), Depth::Top), Err(LayoutError::NoWasm));
        let two = json!({ "manifests": [entry("wasip2", "wasm"), entry("wasi", "wasm")] });
        assert_eq!(found(INDEX, &two, Depth::Top), Err(LayoutError::SeveralWasm(2)));
    }

    #[test]
    fn a_component_that_says_that_it_is_huge_is_not_begun() {
        let mut huge = layer(LAYER);
        huge["size"] = json!(1_u64 << 40);
        assert_eq!(found(MANIFEST, &json!({ "layers": [huge] }), Depth::Top), Err(LayoutError::TooLarge(1 << 40)));
    }
}
