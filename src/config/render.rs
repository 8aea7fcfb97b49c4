//! The configuration written out for people: the effective one, the sample file and the
//! manual's tables, all from [`SCHEMA`] and the structs' defaults.

use super::schema::{Key, SCHEMA, Table};
use super::{Config, FileSinkConfig, HttpConfig, SinksConfig, SocketConfig};
use toml::{Table as Values, Value};

/// Columns of the files written here.
const WIDTH: usize = 88;

/// The whole configuration as commented TOML that reads back to the same settings. What is
/// not set, or off, is commented out.
pub fn effective(config: &Config) -> String {
    let (set, defaults) = (values(config), values(&everything_on()));
    let mut out = String::new();
    for table in SCHEMA {
        let here = lookup(&set, table.path);
        open_table(&mut out, table, table.optional && here.is_none());
        for key in table.keys {
            comment(&mut out, &describe(key));
            match (here.and_then(|t| t.get(key.name)), key.example) {
                (Some(value), _) => assign(&mut out, "", key.name, &write_value(value)),
                (None, Some(example)) => assign(&mut out, "#", key.name, example),
                (None, None) => {
                    let value = lookup(&defaults, table.path).and_then(|t| t.get(key.name));
                    assign(&mut out, "#", key.name, &value.map(write_value).unwrap_or_default());
                }
            }
        }
    }
    out
}

/// The sample file: every key with its default, commented out, and the socket on. Without
/// the `#` right before each key it would say the same.
pub fn sample() -> String {
    let defaults = values(&everything_on());
    let mut out = String::new();
    comment(
        &mut out,
        "Configuration of salientd. Every key is optional: what is commented out here, without a \
         space after the #, is the default. Check a change with: salientd check-config FILE. \
         The running daemon takes it up on: systemctl reload salientd.",
    );
    for table in SCHEMA {
        open_table(&mut out, table, table.optional && table.path != "sink.socket");
        for key in table.keys {
            match (lookup(&defaults, table.path).and_then(|t| t.get(key.name)), key.example) {
                (Some(value), _) => {
                    comment(&mut out, &describe(key));
                    assign(&mut out, "#", key.name, &write_value(value));
                }
                (None, example) => {
                    let example = example.unwrap_or_default();
                    let text = describe(key);
                    comment(&mut out, &format!("{text} Not set; e.g. {} = {example}", key.name));
                }
            }
        }
    }
    out
}

/// The reference of docs/config.md: a heading and a Markdown table for each table.
pub fn markdown() -> String {
    let defaults = values(&everything_on());
    let mut out = String::new();
    for table in SCHEMA {
        out += &format!("\n### `[{}]`\n\n{}\n", table.path, table.doc);
        if table.keys.is_empty() {
            continue;
        }
        out += "\n| Key | Default | Allowed | Meaning |\n|---|---|---|---|\n";
        for key in table.keys {
            let value = lookup(&defaults, table.path).and_then(|t| t.get(key.name));
            let default = value.map_or("not set".into(), |v| format!("`{}`", write_value(v)));
            let allowed = key.kind.allowed();
            out += &format!("| `{}` | {default} | {allowed} | {} |\n", key.name, key.doc);
        }
    }
    out
}

/// The defaults, with the sinks that are off by default on.
fn everything_on() -> Config {
    Config {
        sink: SinksConfig {
            socket: Some(SocketConfig::default()),
            files: Some(FileSinkConfig::default()),
            http: Some(HttpConfig::default()),
        },
        ..Config::default()
    }
}

fn values(config: &Config) -> Values {
    // The structs hold nothing that TOML cannot: strings, numbers, lists, string-keyed maps.
    Values::try_from(config).expect("the configuration structs are plain data")
}

fn lookup<'v>(values: &'v Values, path: &str) -> Option<&'v Values> {
    path.split('.').try_fold(values, |table, name| table.get(name)?.as_table())
}

fn open_table(out: &mut String, table: &Table, off: bool) {
    *out += "\n";
    comment(out, table.doc);
    let hash = if off { "#" } else { "" };
    *out += &format!("{hash}[{}]\n", table.path);
}

fn assign(out: &mut String, hash: &str, name: &str, value: &str) {
    *out += &format!("{hash}{name} = {value}\n");
}

fn describe(key: &Key) -> String {
    format!("{} Allowed: {}.", key.doc, key.kind.allowed())
}

/// A `#` comment, broken into lines of at most [`WIDTH`] columns.
fn comment(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > WIDTH {
            *out += "\n";
            column = 0;
        }
        if column == 0 {
            *out += "#";
            column = 1;
        }
        *out += &format!(" {word}");
        column += 1 + length;
    }
    *out += "\n";
}

/// A value on one line. Floats that came from an `f32` are written with its digits: 0.6,
/// not 0.6000000238418579.
fn write_value(value: &Value) -> String {
    match value {
        Value::Float(x) if f64::from(*x as f32) == *x => format!("{:?}", *x as f32),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(write_value).collect::<Vec<_>>().join(", "))
        }
        Value::Table(entries) if entries.is_empty() => "{}".into(),
        Value::Table(entries) => {
            let entries = entries.iter().map(|(k, v)| format!("{k} = {}", write_value(v)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}
