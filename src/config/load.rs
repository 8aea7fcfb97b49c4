//! Reads a configuration and reports everything that is wrong with it at once.
//!
//! The text is parsed with positions, checked against [`SCHEMA`], then the good part of it
//! is turned into the structs and the combinations of keys are checked. So every problem
//! has a line, and one bad key does not hide the next.

use super::Config;
use super::rules::{EACH_RULES, RULES};
use super::schema::{self, Kind, any_of};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A configuration longer than this was not written by a person.
const MAX_BYTES: u64 = 1 << 20;
/// Problems reported for one file; the rest is counted.
const MAX_PROBLEMS: usize = 50;

/// Everything wrong with one configuration, in the order of its lines.
/// Shown as one line each: `FILE:LINE: KEY: problem, allowed range`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// The file, or whatever else the text came from.
    pub name: String,
    pub problems: Vec<Problem>,
}

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1; absent where the file as a whole is meant, or it has no such line.
    pub line: Option<usize>,
    /// In characters from 1; for text that is not TOML.
    pub column: Option<usize>,
    /// Dotted path of the key; empty where none is meant.
    pub key: String,
    pub text: String,
}

impl ConfigErrors {
    fn whole(name: &str, text: String) -> Self {
        let problem = Problem { line: None, column: None, key: String::new(), text };
        Self { name: name.into(), problems: vec![problem] }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i == MAX_PROBLEMS {
                let rest = self.problems.len() - i;
                return write!(f, "\n{}: and {rest} more problems", self.name);
            }
            let newline = if i > 0 { "\n" } else { "" };
            write!(f, "{newline}{}:", self.name)?;
            for number in [problem.line, problem.column].into_iter().flatten() {
                write!(f, "{number}:")?;
            }
            if !problem.key.is_empty() {
                write!(f, " {}:", problem.key)?;
            }
            write!(f, " {}", problem.text)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads the configuration in a file.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|e| ConfigErrors::whole(&name, format!("cannot be read: {e}")))?;
    if bytes.len() as u64 > MAX_BYTES {
        let text = format!("too long, allowed {MAX_BYTES} bytes");
        return Err(ConfigErrors::whole(&name, text));
    }
    let text = std::str::from_utf8(&bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        let mut errors = ConfigErrors::whole(&name, "not UTF-8 text".into());
        errors.problems[0].line = Some(line);
        errors
    })?;
    parse(text, &name)
}

/// Reads a configuration from text; `name` stands for it in errors.
pub fn parse(text: &str, name: &str) -> Result<Config, ConfigErrors> {
    let (mut table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        let problems = syntax.iter().map(|e| not_toml(text, e)).collect();
        return Err(ConfigErrors { name: name.into(), problems });
    }
    let mut check = Check { found: Vec::new(), offsets: BTreeMap::new() };
    check.table(table.get_mut(), "", "");
    let good = Config::deserialize(toml::Deserializer::from(table));
    match &good {
        Ok(config) => check.rules(config),
        // The schema lets through only what the structs take; should the two ever differ,
        // say so rather than run on something else than the file says.
        Err(e) => check.add(e.span().map_or(0, |s| s.start), "", e.message().into()),
    }
    match good {
        Ok(config) if check.found.is_empty() => Ok(config),
        _ => Err(ConfigErrors { name: name.into(), problems: check.into_problems(text) }),
    }
}

/// Checks the combinations of keys in a configuration that did not come from one text,
/// such as one changed by command-line options; `name` stands for it in errors.
pub fn check_combinations(config: &Config, name: &str) -> Result<(), ConfigErrors> {
    let problems: Vec<_> = RULES
        .iter()
        .filter_map(|rule| {
            let text = (rule.broken)(config)?;
            Some(Problem { line: None, column: None, key: rule.keys[0].into(), text })
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(ConfigErrors { name: name.into(), problems }) }
}

/// One run over a parsed text.
///
/// A key has a `path`, the dotted one of the schema, and a place: the same with the number
/// of its table where that may stand several times, as in `zones[2].name`.
struct Check {
    /// Problems with the byte offset and path of each.
    found: Vec<(usize, String, String)>,
    /// Where each sound key and each table stands in the text, by its place.
    offsets: BTreeMap<String, usize>,
}

impl Check {
    fn add(&mut self, offset: usize, key: &str, text: String) {
        self.found.push((offset, key.into(), text));
    }

    /// Checks what stands in the table `path` and takes out all that is wrong.
    fn table(&mut self, table: &mut DeTable<'_>, path: &str, place: &str) {
        let entries = std::mem::take(table).into_iter();
        *table = entries
            .filter_map(|(name, mut value)| {
                self.entry(path, place, &name, &mut value).then_some((name, value))
            })
            .collect();
    }

    /// Checks the tables `[[path]]`, whose place in the text is `at` for one that is empty.
    fn tables(&mut self, list: &mut [Spanned<DeValue<'_>>], known: &schema::Table, at: usize) {
        let max_count = known.max_count.unwrap_or(0);
        if list.len() > max_count {
            let text = format!("{} tables, allowed at most {max_count}", list.len());
            self.add(at, known.path, text);
        }
        for (i, entry) in list.iter_mut().enumerate() {
            let at = entry.span().start;
            let DeValue::Table(inner) = entry.get_mut() else {
                let text = format!("found {}, allowed a table", a_type(entry.get_ref()));
                self.add(at, known.path, text);
                continue;
            };
            let stand: Vec<String> = inner.keys().map(|k| k.get_ref().to_string()).collect();
            for key in
                known.keys.iter().filter(|k| k.required && !stand.iter().any(|s| s == k.name))
            {
                let text = format!("missing, allowed {}", key.kind.allowed());
                self.add(at, &join(known.path, key.name), text);
            }
            self.table(inner, known.path, &format!("{}[{i}]", known.path));
        }
    }

    /// Checks one entry of a table: a key with its value, or a table within it. False: it
    /// is not sound.
    fn entry(
        &mut self,
        path: &str,
        place: &str,
        name: &Spanned<Cow<'_, str>>,
        value: &mut Spanned<DeValue<'_>>,
    ) -> bool {
        let (key, offset) = (join(path, name.get_ref()), name.span().start);
        let place = join(place, name.get_ref());
        let (before, at) = (self.found.len(), value.span().start);
        if let Some(known) = schema::find_key(&key) {
            self.value(&known.kind, value, &key);
        } else if let Some(known) = schema::find_table(&key) {
            match (known.max_count, value.get_mut()) {
                // What is wrong in there is taken out in there; the table itself stays.
                (None, DeValue::Table(inner)) => {
                    self.table(inner, &key, &place);
                    self.offsets.insert(place, offset);
                    return true;
                }
                (Some(_), DeValue::Array(list)) => self.tables(list, known, at),
                (count, other) => {
                    let allowed = count.map_or("a table".into(), |_| format!("tables [[{key}]]"));
                    let text = format!("found {}, allowed {allowed}", a_type(other));
                    self.add(at, &key, text);
                }
            }
        } else {
            self.add(offset, &key, unknown(path, name.get_ref()));
        }
        let sound = self.found.len() == before;
        if sound {
            self.offsets.insert(place, offset);
        }
        sound
    }

    fn value(&mut self, kind: &Kind, value: &Spanned<DeValue<'_>>, key: &str) {
        match (kind, value.get_ref()) {
            (Kind::List { of, min, max, distinct }, DeValue::Array(items)) => {
                if !(*min..=*max).contains(&items.len()) {
                    let text = format!("{} values, allowed {}", items.len(), kind.allowed());
                    self.add(value.span().start, key, text);
                }
                for (i, item) in items.iter().enumerate().take(*max) {
                    self.value(of, item, key);
                    if *distinct && items.iter().take(i).any(|other| same(other, item)) {
                        let text = format!("{} stands twice, allowed once", show(item.get_ref()));
                        self.add(item.span().start, key, text);
                    }
                }
            }
            (Kind::IntegerMap, DeValue::Table(entries)) => {
                for (name, item) in entries.iter() {
                    let entry = join(key, name.get_ref());
                    if !is_snake_case(name.get_ref()) {
                        let text = "not in snake case, allowed a-z, 0-9 and _".into();
                        self.add(name.span().start, &entry, text);
                    }
                    self.value(&Kind::Integer { min: i64::MIN, max: i64::MAX }, item, &entry);
                }
            }
            (_, single) => {
                if let Err(problem) = check_single(kind, single) {
                    let text = format!("{problem}, allowed {}", kind.allowed());
                    self.add(value.span().start, key, text);
                }
            }
        }
    }

    /// Checks the combinations all of whose keys are sound by themselves.
    fn rules(&mut self, config: &Config) {
        for rule in RULES {
            if rule.keys.iter().any(|k| self.found.iter().any(|(_, bad, _)| bad == k)) {
                continue;
            }
            if let Some(text) = (rule.broken)(config) {
                let at = rule.keys.iter().find_map(|k| self.offsets.get(*k)).copied();
                self.add(at.unwrap_or(0), rule.keys[0], text);
            }
        }
        // A list with anything wrong in it was taken out whole, and the lists name each other.
        let lists: Vec<_> = EACH_RULES.iter().map(|rule| rule.table).collect();
        let is_in_a_list = |path: &str| lists.iter().any(|list| path.starts_with(list));
        if self.found.iter().any(|(_, path, _)| is_in_a_list(path)) {
            return;
        }
        for rule in EACH_RULES {
            for i in 0..(rule.count)(config) {
                if let Some(text) = (rule.broken)(config, i) {
                    let place = format!("{}[{i}].{}", rule.table, rule.key);
                    let table = self.offsets.get(rule.table);
                    let at = self.offsets.get(&place).or(table).copied();
                    self.add(at.unwrap_or(0), &join(rule.table, rule.key), text);
                }
            }
        }
    }

    fn into_problems(mut self, source: &str) -> Vec<Problem> {
        self.found.sort_by_key(|(offset, ..)| *offset);
        let problem = |(offset, key, text)| {
            let (line, _) = position(source, offset);
            Problem { line: Some(line), column: None, key, text }
        };
        self.found.into_iter().map(problem).collect()
    }
}

/// A value that is neither a list nor a table of its own; an error is the problem alone.
fn check_single(kind: &Kind, value: &DeValue<'_>) -> Result<(), String> {
    let out_of_range = || Err(format!("{} is out of range", show(value)));
    let wrong_type = || Err(format!("found {}", a_type(value)));
    match (kind, value) {
        (Kind::Boolean, DeValue::Boolean(_)) => Ok(()),
        (Kind::Integer { min, max }, DeValue::Integer(_)) => match as_integer(value) {
            Some(i) if (*min..=*max).contains(&i) => Ok(()),
            _ => out_of_range(),
        },
        (Kind::IntegerOf(values), DeValue::Integer(_)) => match as_integer(value) {
            Some(i) if values.contains(&i) => Ok(()),
            _ => out_of_range(),
        },
        (Kind::Class, DeValue::Integer(_)) => match as_integer(value) {
            Some(0..) => Ok(()),
            _ => out_of_range(),
        },
        (Kind::Number { min, max }, DeValue::Integer(_) | DeValue::Float(_)) => {
            match as_number(value) {
                Some(x) if (*min..=*max).contains(&x) => Ok(()),
                _ => out_of_range(),
            }
        }
        (Kind::Text { max_bytes }, DeValue::String(s)) => check_text(s, *max_bytes),
        (Kind::Class, DeValue::String(s)) => check_text(s, 1024),
        (Kind::Name, DeValue::String(s)) => {
            let sound = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            if (1..=64).contains(&s.len()) && s.bytes().all(sound) {
                Ok(())
            } else {
                out_of_range()
            }
        }
        (Kind::Choice(values), DeValue::String(s)) if !values.contains(&&**s) => {
            Err(format!("unknown value {s:?}{}", did_you_mean(s, values, "\"")))
        }
        (Kind::Choice(_), DeValue::String(_)) => Ok(()),
        (Kind::FileMode, DeValue::String(s)) => {
            let octal =
                s.len() == 4 && s.starts_with('0') && s.bytes().all(|b| b"01234567".contains(&b));
            if octal { Ok(()) } else { out_of_range() }
        }
        (Kind::Listen, DeValue::String(s)) => {
            if super::HttpListen::parse(s).is_some() {
                Ok(())
            } else {
                out_of_range()
            }
        }
        _ => wrong_type(),
    }
}

fn check_text(s: &str, max_bytes: usize) -> Result<(), String> {
    match s.len() {
        0 => Err("empty".into()),
        n if n > max_bytes => Err(format!("{n} bytes long")),
        _ if s.contains('\0') => Err("has a NUL byte".into()),
        _ => Ok(()),
    }
}

fn as_integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn as_number(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Float(f) => f.as_str().parse().ok(),
        other => as_integer(other).map(|i| i as f64),
    }
}

/// Whether two values of a list are the same setting; `1` and `1.0` are, and what an f32 cannot
/// tell apart.
fn same(a: &Spanned<DeValue<'_>>, b: &Spanned<DeValue<'_>>) -> bool {
    match (a.get_ref(), b.get_ref()) {
        (DeValue::String(a), DeValue::String(b)) => a == b,
        (a @ DeValue::Integer(_), b @ DeValue::Integer(_)) => as_integer(a) == as_integer(b),
        (a, b) => match (as_number(a), as_number(b)) {
            (Some(a), Some(b)) => a as f32 == b as f32,
            _ => false,
        },
    }
}

/// A value as the user wrote it, more or less.
fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) => format!("{s:?}"),
        DeValue::Integer(i) => i.to_string(),
        DeValue::Float(f) => f.to_string(),
        other => a_type(other),
    }
}

fn a_type(value: &DeValue<'_>) -> String {
    match value.type_str() {
        name @ ("integer" | "array") => format!("an {name}"),
        name => format!("a {name}"),
    }
}

/// What to say about a name that does not belong in the table `path`.
fn unknown(path: &str, name: &str) -> String {
    let here = schema::names_in(path);
    let mut hint = did_you_mean(name, &here, "");
    if hint.is_empty() {
        let homes: Vec<_> = schema::SCHEMA
            .iter()
            .filter(|t| t.keys.iter().any(|k| k.name == name))
            .map(|t| format!("[{}]", t.path))
            .collect();
        if !homes.is_empty() {
            hint = format!(" (it belongs in {})", any_of(&homes));
        }
    }
    format!("unknown key{hint}, allowed {}", any_of(&here))
}

/// ` (did you mean X?)`, or nothing where no candidate is near.
fn did_you_mean(name: &str, candidates: &[&str], quote: &str) -> String {
    let limit = 1 + name.chars().count() / 4;
    candidates
        .iter()
        .map(|c| (edits(&name.to_lowercase(), &c.to_lowercase()), c))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= limit)
        .map_or(String::new(), |(_, c)| format!(" (did you mean {quote}{c}{quote}?)"))
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`
/// (optimal string alignment). Both are short: keys, and values that stand for keys.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let substitute = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitute.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

fn join(path: &str, name: &str) -> String {
    let bare = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if path.is_empty() { name } else { format!("{path}.{name}") }
}

fn is_snake_case(name: &str) -> bool {
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Line and column, both from 1, of a byte offset.
fn position(source: &str, offset: usize) -> (usize, usize) {
    let before = source.get(..offset).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    (1 + before.matches('\n').count(), 1 + before[line_start..].chars().count())
}

fn not_toml(source: &str, error: &toml::de::Error) -> Problem {
    let (line, column) = position(source, error.span().map_or(0, |s| s.start));
    let text = format!("not TOML: {}", error.message());
    Problem { line: Some(line), column: Some(column), key: String::new(), text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen_are_one_edit_each() {
        let cases = [
            ("", "", 0),
            ("scales", "scales", 0),
            ("scales", "scale", 1),
            ("scale", "scales", 1),
            ("scales", "scalez", 1),
            // Neighbours that changed places: at the start, within, at the end.
            ("scales", "csales", 1),
            ("scales", "sclaes", 1),
            ("scales", "scalse", 1),
            // Letters that changed places, but were no neighbours; and none is edited twice.
            ("abc", "cba", 2),
            ("ca", "abc", 3),
            ("abcd", "badc", 2),
            ("aab", "baa", 2),
            ("hflip", "", 5),
        ];
        for (a, b, expected) in cases {
            assert_eq!(edits(a, b), expected, "{a} to {b}");
            assert_eq!(edits(b, a), expected, "{b} to {a}");
        }
    }
}
