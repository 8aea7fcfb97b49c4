//! Every TOML block in the README, in SECURITY.md and in docs/ is a configuration that works,
//! every link leads somewhere, and every dependency has a line that says why.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The ```` ```toml ```` blocks of a Markdown text, each with the line it begins at.
fn toml_blocks(markdown: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (i, line) in markdown.lines().enumerate() {
        let fence = line.trim_start();
        match &mut open {
            None if fence.strip_prefix("```toml").is_some_and(|rest| rest.trim().is_empty()) => {
                open = Some((i + 2, String::new()));
            }
            Some(_) if fence.starts_with("```") => blocks.extend(open.take()),
            Some((_, text)) => *text += &format!("{line}\n"),
            None => {}
        }
    }
    assert!(open.is_none(), "a toml block does not end");
    blocks
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("SECURITY.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    pages.retain(|page| page.exists());
    pages
}

#[test]
fn every_toml_block_is_a_sound_configuration() {
    let mut wrong = String::new();
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (line, block) in toml_blocks(&text) {
            count += 1;
            let name = format!("{}, block at line {line}", page.display());
            if let Err(errors) = salientd::config::parse(&block, &name) {
                wrong += &format!("{errors}\n");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count >= 5, "only {count} blocks found: is the search broken?");
}

/// The lines of a Markdown text without its code blocks.
fn prose(markdown: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    markdown.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_fence && !is_code
    })
}

/// What stands in `](…)`.
fn links(markdown: &str) -> Vec<&str> {
    let after = prose(markdown).flat_map(|line| line.split("](").skip(1));
    after.filter_map(|rest| rest.split(')').next()).collect()
}

/// The anchors that GitHub gives the headings.
fn anchors(markdown: &str) -> BTreeSet<String> {
    let headings = prose(markdown).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let letters = heading.trim_start_matches('#').trim().chars().filter_map(|c| match c {
            ' ' => Some('-'),
            '-' | '_' => Some(c),
            _ => c.is_alphanumeric().then_some(c),
        });
        letters.collect::<String>().to_lowercase()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = String::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text).into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target =
                if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let leads = target.exists()
                && (anchor.is_empty()
                    || anchors(&fs::read_to_string(&target).unwrap()).contains(anchor));
            if !leads {
                wrong += &format!("{}: {link}\n", page.display());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn links_and_anchors_are_found() {
    let page = "# A b, `c_d`!\n[x](y.md#z) and [w](v)\n```sh\n# no\n[no](no)\n```\n";
    assert_eq!(links(page), ["y.md#z", "v"]);
    assert_eq!(anchors(page), BTreeSet::from(["a-b-c_d".to_string()]));
}

/// The crates that Cargo.toml names, and those of the README's table.
#[test]
fn every_dependency_has_its_reason_in_the_readme() {
    let read = |name| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let tables = ["dependencies", "dev-dependencies"].map(|name| &manifest[name]);
    let named: BTreeSet<&str> =
        tables.iter().flat_map(|t| t.as_table().unwrap().keys()).map(String::as_str).collect();
    let readme = read("README.md");
    let (_, table) = readme.split_once("| crate | why |\n|---|---|\n").expect("the table");
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    let first = rows.filter_map(|row| row.split('|').nth(1));
    let told: BTreeSet<&str> = first.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert_eq!(told, named);
}

#[test]
fn blocks_are_found() {
    let page = "a\n```toml\nx = 1\n```\n```text\nno\n```\n  ```toml\ny = 2\n  ```\n";
    let expected = [(3, "x = 1\n".to_string()), (9, "y = 2\n".to_string())];
    assert_eq!(toml_blocks(page), expected);
}
