//! What `plugin!` checks while it is compiled: kinds, names, duplicates; and bytes for custom sections.
//!
//! All `const`, so that a mistake is a compile error. The rules are those of `wit/manifest.schema.json`.

/// `group/version/Kind`, or `version/Kind` in the core group.
pub const fn is_kind(text: &str) -> bool {
    let (first, rest) = cut(text.as_bytes());
    match rest {
        None => false,
        Some(rest) => match cut(rest) {
            (kind, None) => is_version(first) && is_kind_name(kind),
            (version, Some(kind)) => is_lower(first) && is_version(version) && is_kind_name(kind),
        },
    }
}

/// The same kind whatever the version.
pub const fn same_group_kind(a: &str, b: &str) -> bool {
    let ((group_a, kind_a), (group_b, kind_b)) = (group_kind(a.as_bytes()), group_kind(b.as_bytes()));
    same(group_a, group_b) && same(kind_a, kind_b)
}

/// Whether the list has this kind, whatever the version, just once.
pub const fn appears_once(kind: &str, mut list: &[&str]) -> bool {
    let mut n = 0;
    while let [first, rest @ ..] = list {
        if same_group_kind(kind, first) {
            n += 1;
        }
        list = rest;
    }
    n == 1
}

/// How often a word stands in a list.
pub const fn count(word: &str, mut list: &[&str]) -> usize {
    let mut n = 0;
    while let [first, rest @ ..] = list {
        if same(word.as_bytes(), first.as_bytes()) {
            n += 1;
        }
        list = rest;
    }
    n
}

/// At most 63 of a-z, 0-9 and `-`, none at the ends.
pub const fn is_dns_label(text: &str) -> bool {
    let mut rest = text.as_bytes();
    if rest.len() > 63 || matches!(rest, [] | [b'-', ..] | [.., b'-']) {
        return false;
    }
    while let [byte, tail @ ..] = rest {
        if !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-') {
            return false;
        }
        rest = tail;
    }
    true
}

/// CamelCase, as the type of a condition is.
pub const fn is_condition(text: &str) -> bool {
    is_kind_name(text.as_bytes())
}

/// The text as an array: a custom section must not hold a pointer.
pub const fn copied<const N: usize>(text: &[u8]) -> [u8; N] {
    document_at(text, b"")
}

/// What `document` puts around a file: sections of one name are joined by the linker, so each file is made a YAML document
/// of its own.
pub const EXTRA: usize = 5;

/// A file as a YAML document of `EXTRA` more bytes.
pub const fn document<const N: usize>(file: &[u8]) -> [u8; N] {
    let mut document = document_at(file, b"---\n");
    if let Some(last) = document.last_mut() {
        *last = b'\n';
    }
    document
}

const fn document_at<const N: usize>(mut text: &[u8], mut before: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    let mut rest: &mut [u8] = &mut array;
    while let [slot, slots @ ..] = rest {
        if let [byte, bytes @ ..] = before {
            *slot = *byte;
            before = bytes;
        } else if let [byte, bytes @ ..] = text {
            *slot = *byte;
            text = bytes;
        }
        rest = slots;
    }
    array
}

const fn group_kind(text: &[u8]) -> (&[u8], &[u8]) {
    match cut(text) {
        (first, Some(rest)) => match cut(rest) {
            (kind, None) => (b"", kind),
            (_, Some(kind)) => (first, kind),
        },
        (kind, None) => (b"", kind),
    }
}

/// Before and behind the first `/`.
const fn cut(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (mut rest, mut before) = (text, 0);
    while let [byte, tail @ ..] = rest {
        if *byte == b'/' {
            return match text.split_at_checked(before) {
                Some((first, _)) => (first, Some(tail)),
                None => (text, None),
            };
        }
        (rest, before) = (tail, before + 1);
    }
    (text, None)
}

const fn same(mut a: &[u8], mut b: &[u8]) -> bool {
    while let ([x, rest_a @ ..], [y, rest_b @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.is_empty() && b.is_empty()
}

const fn is_version(text: &[u8]) -> bool {
    matches!(text, [b'v', _, ..]) && is_lower(text)
}

const fn is_lower(text: &[u8]) -> bool {
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        if !(byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'.' || *byte == b'-') {
            return false;
        }
        rest = tail;
    }
    !text.is_empty()
}

const fn is_kind_name(text: &[u8]) -> bool {
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        if !byte.is_ascii_alphanumeric() {
            return false;
        }
        rest = tail;
    }
    matches!(text, [first, ..] if first.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_from_what_is_none() {
        for kind in ["v1/ConfigMap", "apps/v1/Deployment", "demo.reef.dev/v1alpha1/Hello"] {
            assert!(is_kind(kind), "{kind}");
        }
        for text in ["ConfigMap", "v1/configmap", "/v1/ConfigMap", "apps/1/Deployment", "a/b/c/d", "v/Pod", "v1/", ""] {
            assert!(!is_kind(text), "{text}");
        }
    }

    #[test]
    fn a_kind_is_the_same_in_every_version_and_another_in_every_group() {
        assert!(same_group_kind("apps/v1/Deployment", "apps/v1beta1/Deployment"));
        assert!(!same_group_kind("apps/v1/Deployment", "v1/Deployment"));
        assert!(appears_once("v1/Pod", &["v1/Pods", "a/v1/Pod", "v1/Pod"]) && !appears_once("v1/Pod", &["v2/Pod", "v1/Pod"]));
    }

    #[test]
    fn files_become_documents_that_can_be_joined() {
        assert_eq!(document::<{ 3 + EXTRA }>(b"a: "), *b"---\na: \n");
        assert_eq!(copied::<2>(b"{}"), *b"{}");
    }

    #[test]
    fn names_are_dns_labels() {
        assert!(is_dns_label("hello") && is_dns_label("a-1"));
        assert!(!is_dns_label("my_plugin") && !is_dns_label("-a") && !is_dns_label("") && !is_dns_label(&"a".repeat(64)));
    }
}
