//! YAML that people wrote, and YAML that people are to read.

use serde::Deserialize as _;
use serde_json::Value;

use crate::rbac::Document;

/// The documents of this text, empty ones aside.
pub fn documents(text: &str) -> Result<Vec<Value>, serde_norway::Error> {
    let documents = serde_norway::Deserializer::from_str(text).map(Value::deserialize);
    documents.filter(|document| !matches!(document, Ok(Value::Null))).collect()
}

/// The objects, ready to be applied, each below its comment.
pub fn commented(documents: &[Document]) -> Result<String, serde_norway::Error> {
    let mut texts = Vec::with_capacity(documents.len());
    for Document { comment, object } in documents {
        let comment: String = comment.iter().map(|line| format!("# {line}\n")).collect();
        texts.push(format!("{comment}{}", serde_norway::to_string(object)?));
    }
    Ok(texts.join("---\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let document = |comment: &[&str], object: Value| Document {
            comment: comment.iter().map(|line| (*line).to_owned()).collect(),
            object,
        };
        let text = commented(&[document(&["Who it is."], json!({"a": "1"})), document(&[], json!({"b": [2]}))]).unwrap();
        assert_eq!(text, "# Who it is.\na: '1'\n---\nb:\n- 2\n");
        assert_eq!(documents(&text).unwrap(), [json!({"a": "1"}), json!({"b": [2]})]);
        assert_eq!(documents("---\n---\n# nothing\n").unwrap(), Vec::<Value>::new());
        assert!(documents("a: [").is_err());
    }
}
