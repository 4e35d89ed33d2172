//! The JSON Schema of the configuration file, for editors and for our own check of its structure.

use super::raw;
use serde_json::Value;

/// JSON Schema, draft 2020-12.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(raw::File).to_value();
    drop_null(&mut schema);
    schema
}

/// TOML has no null: a key that may be left out is not one that may be null.
fn drop_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        Value::Object(object) => {
            if let Some(types) = object.get("type").and_then(Value::as_array) {
                let mut left: Vec<Value> = types.iter().filter(|name| *name != "null").cloned().collect();
                if left.len() == 1 {
                    object.insert("type".into(), left.remove(0));
                }
            }
            if let Some(variants) = object.get("anyOf").and_then(Value::as_array) {
                let mut left: Vec<Value> =
                    variants.iter().filter(|variant| variant["type"] != "null").cloned().collect();
                if let (1, Some(Value::Object(only))) = (left.len(), left.pop()) {
                    object.remove("anyOf");
                    only.into_iter().for_each(|(key, value)| {
                        object.entry(key).or_insert(value);
                    });
                }
            }
            if let Some(names) = object.get_mut("enum").and_then(Value::as_array_mut) {
                names.retain(|name| !name.is_null());
            }
            if object.get("default").is_some_and(Value::is_null) {
                object.remove("default");
            }
            object.values_mut().for_each(drop_null);
        }
        _ => {}
    }
}
