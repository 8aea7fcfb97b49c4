//! What docs/ ships for Prometheus and Grafana, checked with Debian's promtool.

use std::path::{Path, PathBuf};
use std::process::Command;

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)
}

fn promtool(arguments: &[&str], dir: &Path) {
    let out = Command::new("promtool")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("promtool: sudo apt-get install prometheus");
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
}

#[test]
fn alerts_fire_when_they_should() {
    let dir = docs("prometheus");
    promtool(&["check", "rules", "alerts.yml"], &dir);
    promtool(&["test", "rules", "alerts_test.yml", "alerts_days_test.yml"], &dir);
}

/// The queries of the dashboard, with Grafana's variables filled in.
fn queries() -> Vec<String> {
    let text = std::fs::read_to_string(docs("grafana/salientd.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| target["expr"].as_str().unwrap())
        .map(|query| query.replace("$__rate_interval", "5m").replace("$instance", ".*"))
        .collect()
}

#[test]
fn the_dashboard_asks_what_prometheus_understands() {
    let queries = queries();
    assert!(queries.len() >= 14, "only {} queries found", queries.len());
    let dir = tempfile::tempdir().unwrap();
    // Recording rules are parsed as queries are.
    let rules: String = queries
        .iter()
        .enumerate()
        .map(|(i, query)| format!("      - {{ record: query_{i}, expr: {query:?} }}\n"))
        .collect();
    let file = format!("groups:\n  - name: dashboard\n    rules:\n{rules}");
    std::fs::write(dir.path().join("queries.yml"), file).unwrap();
    promtool(&["check", "rules", "queries.yml"], dir.path());
}

#[test]
fn panels_do_not_overlap() {
    let text = std::fs::read_to_string(docs("grafana/salientd.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let places: Vec<[u64; 4]> = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|panel| ["x", "y", "w", "h"].map(|k| panel["gridPos"][k].as_u64().unwrap()))
        .collect();
    for (i, a) in places.iter().enumerate() {
        assert!(a[0] + a[2] <= 24, "{a:?}");
        for b in &places[..i] {
            let apart = |k: usize| a[k] + a[k + 2] <= b[k] || b[k] + b[k + 2] <= a[k];
            assert!(apart(0) || apart(1), "{a:?} over {b:?}");
        }
    }
}
