//! The program as its user meets it: output, errors and exit codes.

use std::process::{Command, Output, Stdio};

fn salientd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_salientd")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn configuration_commands_and_their_exit_codes() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_string()
    };
    let good = file("good.toml", "[tta]\nhflip = false\n");
    let bad = file("bad.toml", "[tta]\nhflip = 0\nscales = []\n");
    let problems = format!(
        "{bad}:2: tta.hflip: found an integer, allowed true or false\n\
         {bad}:3: tta.scales: 0 values, allowed 1 to 16 values, each a number from 0.25 to 4\n"
    );

    let out = salientd(&["check-config", &good]);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(0), format!("{good}: ok\n")));
    for args in [["check-config", &bad].as_slice(), &["show-config", "--config", &bad]] {
        let out = salientd(args);
        assert_eq!((out.status.code(), text(&out.stderr)), (Some(2), problems.clone()), "{args:?}");
        assert_eq!(text(&out.stdout), "", "{args:?}");
    }

    let out = salientd(&["show-config", "--config", &good]);
    assert_eq!(out.status.code(), Some(0));
    let shown = text(&out.stdout);
    assert!(shown.contains("\nhflip = false\n"), "{shown}");
    assert_eq!(salientd(&["show-config"]).status.code(), Some(0));
    assert_eq!(salientd(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn bad_values_on_the_command_line_are_refused() {
    for option in [
        ["--scales", "1,5"],
        ["--merge", "median"],
        ["--method", "gradcam+"],
        ["--filter", "sharpen"],
        ["--classes", "top0"],
        ["--size", "8x8"],
        ["--threads", "257"],
        ["--hflip", "maybe"],
    ] {
        let out = salientd(&["explain", "--out", "d", "a.png", option[0], option[1]]);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{option:?}: {said}");
        assert!(said.contains(option[0]), "{option:?}: {said}");
    }
}

#[test]
fn doctor_speaks_json() {
    let out = salientd(&["doctor", "--json"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["processor"]["architecture"], std::env::consts::ARCH);
    assert!(report["memory"]["total_mib"].as_u64() > Some(0));
}

#[test]
fn completions_and_manual() {
    for shell in ["bash", "zsh", "fish"] {
        let out = salientd(&["completions", shell]);
        assert_eq!(out.status.code(), Some(0));
        assert!(text(&out.stdout).contains("check-config"), "{shell}");
    }
    let page = text(&salientd(&["man"]).stdout);
    assert!(page.contains(".TH salientd 1"), "{page}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    // Nobody reads: the first write fails.
    let mut child = Command::new(env!("CARGO_BIN_EXE_salientd"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr)), (Some(0), String::new()));
}
