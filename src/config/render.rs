//! The configuration written out for people: the effective one, the sample file and the
//! manual's tables, all from [`SCHEMA`] and the structs' defaults.

use super::schema::{Key, SCHEMA, Table};
use super::{
    ClipConfig, Config, FileSinkConfig, HttpConfig, MeanConfig, MqttConfig, RuleConfig,
    SinksConfig, SocketConfig, V4l2SinkConfig, ZoneConfig,
};
use toml::{Table as Values, Value};

/// Columns of the files written here.
const WIDTH: usize = 88;

/// The whole configuration as commented TOML that reads back to the same settings. What is
/// not set, or off, is commented out.
pub fn effective(config: &Config) -> String {
    let (set, defaults) = (values(config), values(&everything_on()));
    let mut out = String::new();
    for table in SCHEMA {
        let mut here: Vec<_> = lookup_all(&set, table.path).into_iter().map(Some).collect();
        if here.is_empty() {
            here.push(None);
        }
        for here in here {
            write_table(&mut out, table, here, &defaults);
        }
    }
    out
}

/// A table with the values set, or commented out where there are none.
fn write_table(out: &mut String, table: &Table, here: Option<&Values>, defaults: &Values) {
    open_table(out, table, table.optional && here.is_none());
    for key in table.keys {
        comment(out, &describe(key));
        match (here.and_then(|t| t.get(key.name)), key.example) {
            (Some(value), _) => assign(out, "", key.name, &write_value(value)),
            (None, Some(example)) => assign(out, "#", key.name, example),
            (None, None) => {
                let value = lookup(defaults, table.path).and_then(|t| t.get(key.name));
                assign(out, "#", key.name, &value.map(write_value).unwrap_or_default());
            }
        }
    }
}

/// The sample file: every key with its default, commented out, and the socket on. Without
/// the `#` right before each key it would say the same.
pub fn sample() -> String {
    let defaults = values(&everything_on());
    let mut out = String::new();
    comment(
        &mut out,
        "Configuration of salientd. A # with no space after it turns a line off. Under a header \
         such as [camera] such lines show the defaults: remove the # to change one. A header such \
         as #[sink.files] is itself turned off: remove its # too, else the lines below it belong \
         to the table above. The values below #[[zones]] and #[[rules]] are examples. Check a \
         change with: salientd check-config FILE. The running service takes it up on: systemctl \
         reload salientd. The package puts the pages docs/... into /usr/share/doc/salientd/docs.",
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
        out += &format!("\n### `{}`\n\n{}\n", header(table), table.doc);
        if table.keys.is_empty() {
            continue;
        }
        out += "\n| Key | Default | Allowed | Meaning |\n|---|---|---|---|\n";
        for key in table.keys {
            let value = lookup(&defaults, table.path).and_then(|t| t.get(key.name));
            let default = match value {
                _ if key.required => "required".into(),
                Some(value) => format!("`{}`", write_value(value)),
                None => "not set".into(),
            };
            let allowed = key.kind.allowed();
            out += &format!("| `{}` | {default} | {allowed} | {} |\n", key.name, key.doc);
        }
    }
    out
}

/// The defaults, with what is off by default on, and one of each list.
fn everything_on() -> Config {
    Config {
        zones: vec![ZoneConfig::default()],
        rules: vec![RuleConfig::default()],
        mean: Some(MeanConfig::default()),
        sink: SinksConfig {
            socket: Some(SocketConfig::default()),
            files: Some(FileSinkConfig {
                clip: Some(ClipConfig::default()),
                ..FileSinkConfig::default()
            }),
            mqtt: Some(MqttConfig::default()),
            v4l2: Some(V4l2SinkConfig::default()),
            http: Some(HttpConfig::default()),
        },
        ..Config::default()
    }
}

fn values(config: &Config) -> Values {
    // The structs hold nothing that TOML cannot: strings, numbers, lists, string-keyed maps.
    Values::try_from(config).expect("the configuration structs are plain data")
}

/// The table at `path`, the first where there are several.
fn lookup<'v>(values: &'v Values, path: &str) -> Option<&'v Values> {
    lookup_all(values, path).into_iter().next()
}

fn lookup_all<'v>(values: &'v Values, path: &str) -> Vec<&'v Values> {
    let mut here = vec![values];
    for name in path.split('.') {
        let below = here.into_iter().filter_map(|table| table.get(name));
        here = below
            .flat_map(|value| match value {
                Value::Array(list) => list.iter().filter_map(Value::as_table).collect(),
                other => other.as_table().into_iter().collect::<Vec<_>>(),
            })
            .collect();
    }
    here
}

/// As it stands in a file.
fn header(table: &Table) -> String {
    match table.max_count {
        None => format!("[{}]", table.path),
        Some(_) => format!("[[{}]]", table.path),
    }
}

fn open_table(out: &mut String, table: &Table, off: bool) {
    *out += "\n";
    comment(out, table.doc);
    let hash = if off { "#" } else { "" };
    *out += &format!("{hash}{}\n", header(table));
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
