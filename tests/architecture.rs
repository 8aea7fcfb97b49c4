//! The arrows between rooms: which module may know which. Reads the sources as text, so a
//! wrong arrow is named with its line before anybody wonders why a build got slow.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room of src/ and the rooms it may use; see ARCHITECTURE.md. What is not here is
/// forbidden: a sink knows no camera, `int8` nothing of ours.
const ARROWS: &[(&str, &[&str])] = &[
    ("frame", &[]),
    // Resampling of pixels and maps, and wall-clock times as text: shared by several rooms.
    ("bilinear", &[]),
    ("rescale", &["frame"]),
    ("wall", &[]),
    ("config", &[]),
    ("health", &[]),
    ("int8", &[]),
    // What systemd's sandbox refuses, for the errors of cameras and sinks; and texts without
    // passwords.
    ("sandbox", &[]),
    ("redact", &[]),
    ("slot", &[]),
    ("classes", &["config"]),
    ("camera", &["frame", "config", "sandbox", "redact"]),
    ("preprocess", &["bilinear", "rescale", "frame", "config"]),
    ("model", &["frame", "config", "int8", "preprocess"]),
    ("tta", &["bilinear", "config", "model", "heatmap", "preprocess"]),
    ("heatmap", &["bilinear", "rescale", "wall", "frame", "config", "model"]),
    ("rules", &["config", "classes", "heatmap"]),
    (
        "sink",
        &["wall", "rescale", "frame", "config", "heatmap", "rules", "health", "sandbox", "redact"],
    ),
    ("explain", &["frame", "config", "classes", "preprocess", "int8", "model", "tta", "heatmap"]),
    (
        "pipeline",
        &[
            "frame",
            "config",
            "camera",
            "preprocess",
            "model",
            "tta",
            "heatmap",
            "explain",
            "classes",
            "rules",
            "sink",
            "slot",
            "health",
        ],
    ),
    (
        "eval",
        &[
            "bilinear",
            "frame",
            "config",
            "camera",
            "classes",
            "preprocess",
            "model",
            "tta",
            "heatmap",
            "explain",
            "pipeline",
        ],
    ),
    (
        "cli",
        &[
            "bilinear",
            "wall",
            "frame",
            "config",
            "camera",
            "preprocess",
            "model",
            "int8",
            "tta",
            "heatmap",
            "sink",
            "health",
            "explain",
            "eval",
            "pipeline",
            "classes",
            "rules",
        ],
    ),
];

/// Crates and parts of std that only these rooms touch.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("tract_onnx::", &["model"]),
    ("v4l::", &["camera", "sink"]),
    ("clap::", &["cli"]),
    // No I/O and no clock here: these rooms are functions of their arguments.
    (
        "std::fs",
        &[
            "config", "camera", "model", "sink", "sandbox", "explain", "eval", "pipeline",
            "health", "cli",
        ],
    ),
    ("std::net", &["config", "sink", "pipeline", "cli"]),
    ("Instant::now", &["camera", "slot", "sink", "explain", "eval", "pipeline", "cli"]),
    ("SystemTime::now", &["camera", "sink", "explain", "pipeline", "cli"]),
];

#[test]
fn rooms_use_only_what_they_may() {
    let mut wrong = Vec::new();
    for (file, room, source) in sources() {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room {room} is not in ARROWS", file.display()));
            continue;
        };
        let code = code_of(&source);
        for (line, used) in rooms_used(&code) {
            if used != room && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}:{line}: {room} may not use {used}", file.display()));
            }
        }
        for (what, rooms) in OUTSIDE {
            for (i, text) in code.lines().enumerate() {
                if text.contains(what) && !rooms.contains(&room.as_str()) {
                    wrong.push(format!("{}:{}: {room} may not use {what}", file.display(), i + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn arrows_point_down_only() {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    while done.len() < ARROWS.len() {
        let next = ARROWS.iter().find(|(room, uses)| {
            !done.contains(room) && uses.iter().all(|used| done.contains(used))
        });
        let (room, _) = next.expect("the rooms that are left use each other in a circle");
        done.insert(room);
    }
}

#[test]
fn the_reader_sees_what_counts() {
    let source = "\
use crate::frame::Frame; // crate::camera in a comment
use crate::{config, sink::{Sink, self}, heatmap::Heatmap};
/// [`crate::camera`] in the docs
fn f() { crate::tta::merge(); }
#[cfg(test)]
mod tests { use crate::pipeline; fn g() { std::fs::read(); } }
";
    let seen: Vec<_> = rooms_used(&code_of(source)).into_iter().collect();
    let expected = [(1, "frame"), (2, "config"), (2, "heatmap"), (2, "sink"), (4, "tta")];
    assert_eq!(seen, expected.map(|(line, room)| (line, room.to_string())));
}

/// Every source file with its room: the first part of its path below src/.
fn sources() -> Vec<(PathBuf, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // Tests may use what they like.
            if path.file_stem().is_some_and(|name| name == "tests") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(&src).unwrap().with_extension("");
            let room = below.iter().next().unwrap().to_str().unwrap().to_string();
            // The library's list of rooms and the program's one call belong to no room.
            if room != "lib" && room != "main" && path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, room, text));
            }
        }
    }
    assert!(found.len() > 20, "only {} sources found", found.len());
    found
}

/// The source without comments and without its tests, which may use what they like. Lines
/// keep their numbers. By the house's style tests come last in a file.
fn code_of(source: &str) -> String {
    let code = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let strip = |line: &str| line.split("//").next().unwrap_or_default().to_string();
    code.lines().map(strip).collect::<Vec<_>>().join("\n")
}

/// The rooms that a source names after `crate::`, singly or in a group, with their lines.
fn rooms_used(code: &str) -> BTreeSet<(usize, String)> {
    let mut used = BTreeSet::new();
    for (at, matched) in code.match_indices("crate::") {
        let line = 1 + code[..at].matches('\n').count();
        let rest = &code[at + matched.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            used.extend(first_names(group).into_iter().map(|name| (line, name)));
        } else {
            used.insert((line, identifier(rest)));
        }
    }
    used
}

/// The first name of each path in a use group, given what follows its opening brace.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut fresh) = (0, Vec::new(), true);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            c if fresh && depth == 0 && (c.is_alphabetic() || c == '_') => {
                names.push(identifier(&group[i..]));
                fresh = false;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}
