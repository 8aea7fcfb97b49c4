//! The program end to end: a service manager, clients and files on one side, signals and
//! configurations on the other, and the real pipeline between.

mod common;

use common::process::{Client, Daemon, wait_for};
use common::{parity, read_json, read_npy, repository};
use rustix::process::Signal;
use salientd::sink::wire::Header;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

/// The smallest configuration of the small model that runs quickly, `size` its input.
fn config(dir: &Path, size: usize, rest: &str) -> String {
    format!(
        "[model]\npath = {:?}\nsize = [{size}, {size}]\nthreads = 1\n\
         [sink.socket]\npath = {:?}\n{rest}",
        parity("model.onnx"),
        dir.join("s"),
    )
}

const PATTERN: &str = "[camera]\nsource = \"pattern\"\n\
                       [camera.pattern]\nwidth = 96\nheight = 64\nfps = 50.0\n";

fn salientd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_salientd")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// `args` have to fail with this code and these lines.
fn refused(args: &[&str], code: i32, said: &str) {
    let out = salientd(args);
    assert_eq!((text(&out.stderr), out.status.code()), (said, Some(code)), "{args:?}");
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn frames_come_in_and_heatmaps_go_out() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let files = format!(
        "[sink.files]\ndir = {out:?}\nwhen = \"every-frame\"\nmax_files = 50\n\
         write = [\"overlay-png\", \"overlay-jpeg\", \"heatmap-png\", \"npy\", \"jsonl\"]\n"
    );
    // Five files a frame, each synced to the disk: slow enough for any disk to keep up.
    let slow = PATTERN.replace("fps = 50", "fps = 10");
    let all = config(dir.path(), 64, &format!("{slow}{files}"));
    let daemon = Daemon::start(dir.path(), &all, &[]);
    assert_eq!(daemon.told(), "STATUS=making the model ready\n");
    assert_eq!(daemon.told(), "EXTEND_TIMEOUT_USEC=30000000\n");
    daemon.wait_told("READY=1");

    // Ready means that every sink listens.
    let mut client = Client::connect(&dir.path().join("s"));
    let Some(Header::Hello(hello)) = client.next().map(|m| m.header) else { panic!("no hello") };
    assert_eq!(hello.classes, ["0", "1", "2", "3", "4", "5"]);
    let mut sequences = Vec::new();
    while sequences.len() < 5 {
        let message = client.next().expect("the daemon goes on");
        let Header::Heatmap(heatmap) = message.header else { continue };
        // Center-crop of 96x64 to a square.
        assert_eq!((heatmap.picture, heatmap.shape), ([96, 64], [64, 64, 1]));
        let c = heatmap.covers;
        assert_eq!([c.x, c.y, c.width, c.height], [16, 0, 64, 64]);
        assert_eq!(heatmap.views.len(), 8);
        assert_eq!(heatmap.model_sha256, hello.model.sha256);
        assert!(message.values.iter().all(|x| (0.0..=1.0).contains(x)));
        sequences.push(heatmap.sequence);
    }
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    daemon.wait_told("STATUS=test pattern 96x64 @ 10; ");
    wait_for("files", || (names(&out).len() >= 20).then_some(()));

    daemon.signal(Signal::INT);
    let told = daemon.wait_told("STOPPING=1");
    assert_eq!(told, "STOPPING=1\n");
    let (status, log) = daemon.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    while client.next().is_some() {}
    assert!(!dir.path().join("s").exists(), "the socket's file is gone");
    // The limit holds, and nothing half-written is left.
    let left = names(&out);
    assert!(left.len() <= 50, "{left:?}");
    for name in &left {
        let known =
            ["_overlay.png", "_overlay.jpg", "_heatmap.png", "_maps.npy", "_heatmaps.jsonl"];
        // What a machine too busy to end in time was at keeps a name that says so.
        let cut_short = name.ends_with(".part") && log.contains("did not end in time");
        assert!(cut_short || known.iter().any(|end| name.ends_with(end)), "{name}: {log}");
        if name.ends_with(".npy") {
            assert_eq!(read_npy(&out.join(name)).shape, [64, 64, 1]);
        }
    }
}

/// Exit code 0 says that every stage ended in the time that the daemon gives them, which
/// is less than 2 s.
#[test]
fn sigterm_abandons_the_views_in_progress() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &config(dir.path(), 1280, PATTERN), &[]);
    daemon.wait_told("READY=1");
    // The first frame is on its way into eight views that take seconds.
    daemon.wait_log("camera: test pattern");
    let log = daemon.stopped();
    assert!(log.contains("stopped after 0 heatmaps"), "{log}");
}

#[test]
fn sighup_takes_up_a_good_configuration_and_refuses_a_bad_one() {
    let dir = tempfile::tempdir().unwrap();
    let with = |rest: &str| config(dir.path(), 64, &format!("{PATTERN}{rest}"));
    let daemon = Daemon::start(dir.path(), &with(""), &[]);
    daemon.wait_told("READY=1");
    let mut client = Client::connect(&dir.path().join("s"));
    let mut classes = || loop {
        if let Header::Heatmap(heatmap) = client.next().expect("the client stays").header {
            return heatmap.classes.len();
        }
    };
    assert_eq!(classes(), 1);

    daemon.rewrite_config(&with("[classes]\ntop = 2\n"));
    daemon.signal(Signal::HUP);
    let told = daemon.wait_told("RELOADING=1");
    assert!(told.contains("MONOTONIC_USEC="), "{told}");
    daemon.wait_told("READY=1");
    wait_for("a second class", || (classes() == 2).then_some(()));

    let path = dir.path().join("config.toml").display().to_string();
    for (bad, said) in [
        (
            "[classes]\ntop = 0\n",
            format!("{path}:14: classes.top: 0 is out of range, allowed an integer from 1 to 1000"),
        ),
        (
            "[classes]\nselect = \"list\"\nlist = [\"unicorn\"]\n",
            "classes.list: the model has no class \"unicorn\"".into(),
        ),
    ] {
        daemon.rewrite_config(&with(bad));
        daemon.signal(Signal::HUP);
        daemon.wait_told("RELOADING=1");
        daemon.wait_told("READY=1");
        daemon.wait_log(&said);
        for _ in 0..3 {
            assert_eq!(classes(), 2, "{bad}");
        }
    }
    let log = daemon.stopped();
    assert_eq!(log.matches("the old configuration stays").count(), 2, "{log}");
}

/// A model file of this test's own, which it may replace.
fn own_model(dir: &Path, labels: &str) -> String {
    std::fs::copy(parity("model.onnx"), dir.join("m.onnx")).unwrap();
    std::fs::write(dir.join("labels"), labels).unwrap();
    let model = format!("path = {:?}\nlabels = {:?}", dir.join("m.onnx"), dir.join("labels"));
    config(dir, 64, PATTERN)
        .replace(&format!("path = {:?}\nsize", parity("model.onnx")), &format!("{model}\nsize"))
}

#[test]
fn sighup_takes_up_replaced_labels_and_keeps_what_works() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &own_model(dir.path(), "a\nb\nc\nd\ne\nf"), &[]);
    daemon.wait_told("READY=1");
    let classes = || match Client::connect(&dir.path().join("s")).next().unwrap().header {
        Header::Hello(hello) => hello.classes.concat(),
        other => panic!("{other:?}"),
    };
    assert_eq!(classes(), "abcdef");
    // The same configuration each time.
    for (labels, expected) in
        [("u\nv\nw\nx\ny\nz", "uvwxyz"), ("one\ntwo", "uvwxyz"), ("a\nb\nc\nd\ne\ng", "abcdeg")]
    {
        std::fs::write(dir.path().join("labels"), labels).unwrap();
        daemon.signal(Signal::HUP);
        daemon.wait_told("RELOADING=1");
        daemon.wait_told("READY=1");
        assert_eq!(classes(), expected);
    }
    let log = daemon.stopped();
    assert!(log.contains("2 labels, and the model has 6 classes"), "{log}");
    assert_eq!(log.matches("the old configuration stays").count(), 1, "{log}");
}

/// The bigger views take seconds to make ready; the watchdog does not wait for them, nor do
/// those who look at the maps.
#[test]
fn a_reload_makes_its_model_ready_while_the_old_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let watched = [("WATCHDOG_USEC", "200000")];
    let with = |scales: &str| {
        config(dir.path(), 320, &format!("{PATTERN}[tta]\nhflip = false\nscales = {scales}\n"))
    };
    let daemon = Daemon::start(dir.path(), &with("[0.25]"), &watched);
    daemon.wait_told("READY=1");
    let mut client = Client::connect(&dir.path().join("s"));
    let mut views = || loop {
        if let Header::Heatmap(heatmap) = client.next().expect("the client stays").header {
            return heatmap.views.len();
        }
    };
    daemon.rewrite_config(&with("[0.25, 4.0]"));
    daemon.signal(Signal::HUP);
    daemon.wait_told("RELOADING=1");
    let mut pings = 0;
    loop {
        let told = daemon.told();
        if told.starts_with("READY=1") {
            break;
        }
        pings += u32::from(told.starts_with("WATCHDOG=1"));
        views();
    }
    assert!(pings >= 2, "{pings} pings during the reload");
    wait_for("the second view", || (views() == 2).then_some(()));
    daemon.stopped();
}

/// It takes seconds to be ready; exit code 0 and no word of it say that nobody waited.
#[test]
fn sigterm_does_not_wait_for_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &config(dir.path(), 1280, PATTERN), &[]);
    daemon.wait_told("EXTEND_TIMEOUT_USEC=");
    let log = daemon.stopped();
    assert!(log.contains("stopped before the model was ready"), "{log}");
    assert!(!log.contains("views in"), "{log}");
}

/// Nor is a SIGHUP forgotten that comes meanwhile.
#[test]
fn sighup_while_the_first_model_is_made_ready_is_obeyed_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let with = |scales: &str| {
        config(dir.path(), 320, &format!("{PATTERN}[tta]\nhflip = false\nscales = {scales}\n"))
    };
    let daemon = Daemon::start(dir.path(), &with("[0.25, 4.0]"), &[]);
    daemon.wait_told("EXTEND_TIMEOUT_USEC=");
    daemon.rewrite_config(&with("[0.25]"));
    daemon.signal(Signal::HUP);
    daemon.wait_told("READY=1");
    daemon.wait_told("RELOADING=1");
    daemon.wait_told("READY=1");
    let mut client = Client::connect(&dir.path().join("s"));
    wait_for("a map of one view", || match client.next().unwrap().header {
        Header::Heatmap(heatmap) => (heatmap.views.len() == 1).then_some(()),
        _ => None,
    });
    daemon.stopped();
}

#[test]
fn a_reload_takes_up_another_token_in_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "the-first-secret\n").unwrap();
    let page = format!(
        "[sink.http]\nlisten = \"unix:{}\"\ntoken_file = {token:?}\n",
        dir.path().join("page").display()
    );
    let all = config(dir.path(), 64, &format!("{PATTERN}{page}"));
    let daemon = Daemon::start(dir.path(), &all, &[]);
    daemon.wait_told("READY=1");
    let status = |token: &str| {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(dir.path().join("page")).unwrap();
        write!(stream, "GET /state HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).map(str::to_string)
    };
    assert_eq!(status("the-first-secret").as_deref(), Some("200"));
    std::fs::write(&token, "another-secret\n").unwrap();
    daemon.signal(Signal::HUP);
    daemon.wait_told("RELOADING=1");
    daemon.wait_told("READY=1");
    assert_eq!(status("the-first-secret").as_deref(), Some("401"));
    assert_eq!(status("another-secret").as_deref(), Some("200"));
    daemon.stopped();
}

#[test]
fn an_absent_camera_is_told_everywhere_and_is_no_hang() {
    let dir = tempfile::tempdir().unwrap();
    let camera = "[camera]\nsource = \"v4l2\"\n[camera.v4l2]\ndevice = \"/dev/no-such-camera\"\n";
    let watched = [("WATCHDOG_USEC", "200000")];
    let daemon = Daemon::start(dir.path(), &config(dir.path(), 64, camera), &watched);
    daemon.wait_told("READY=1");
    for _ in 0..5 {
        daemon.wait_told("WATCHDOG=1");
    }
    daemon.wait_log("camera away: /dev/no-such-camera: ");
    let status = daemon.wait_told("STATUS=camera away: /dev/no-such-camera: ");
    assert!(status.ends_with("; 0 heatmaps\n"), "{status}");
    let mut client = Client::connect(&dir.path().join("s"));
    let reason = wait_for("the camera's state", || match client.next().unwrap().header {
        Header::Hello(hello) => Some(hello.camera).filter(|c| c.reason != "starting"),
        Header::Camera(camera) => Some(camera),
        _ => None,
    });
    assert!(!reason.running && reason.reason.starts_with("/dev/no-such-camera: "), "{reason:?}");
    daemon.wait_told("WATCHDOG=1");
    let log = daemon.stopped();
    assert_eq!(log.matches("camera away").count(), 1, "told once:\n{log}");
}

#[test]
fn files_end_the_daemon_once_every_one_has_its_maps() {
    let dir = tempfile::tempdir().unwrap();
    let (pictures, out) = (dir.path().join("pictures"), dir.path().join("out"));
    std::fs::create_dir(&pictures).unwrap();
    for i in 0..12 {
        std::fs::copy(parity(&format!("{}.png", i % 2)), pictures.join(format!("{i:02}.png")))
            .unwrap();
    }
    std::fs::write(pictures.join("05b.png"), b"no picture").unwrap();
    let rest = format!(
        "[camera]\nsource = \"files\"\n[camera.files]\npaths = [{pictures:?}]\nloop = false\n\
         fps = 1000.0\n[sink.files]\ndir = {out:?}\nwhen = \"every-frame\"\n\
         write = [\"npy\", \"overlay-png\", \"jsonl\"]\n"
    );
    let daemon = Daemon::start(dir.path(), &config(dir.path(), 64, &rest), &[]);
    let (status, log) = daemon.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("05b.png: not an image"), "{log}");
    assert!(log.contains("end of input") && log.contains("stopped after 12 heatmaps"), "{log}");
    let left = names(&out);
    let count = |end: &str| left.iter().filter(|name| name.ends_with(end)).count();
    assert_eq!((count(".npy"), count(".png"), count(".jsonl")), (12, 12, 1), "{left:?}\n{log}");
    let lines = left.iter().find(|name| name.ends_with(".jsonl")).unwrap();
    let lines = std::fs::read_to_string(out.join(lines)).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sequences: Vec<u64> = lines.iter().map(|l| l["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (0..12).collect::<Vec<_>>());
    for file in lines.iter().flat_map(|l| l["files"].as_array().unwrap()) {
        assert!(left.iter().any(|name| file == name), "{file}");
    }
}

#[test]
fn a_socket_in_use_is_left_alone_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let file = dir.path().join("second.toml");
    let quiet = format!("{}\n[log]\nlevel = \"error\"\n", config(dir.path(), 64, PATTERN));
    std::fs::write(&file, quiet).unwrap();
    // Dropping a listener leaves its file, as a crash does.
    drop(UnixListener::bind(&socket).unwrap());
    let daemon = Daemon::start(dir.path(), &config(dir.path(), 64, PATTERN), &[]);
    daemon.wait_told("READY=1");
    let said = format!(
        "sink.socket: {}: another process (pid {}) is listening; stop it or set sink.socket.path\n",
        socket.display(),
        daemon.pid()
    );
    refused(&["run", "--config", file.to_str().unwrap()], 1, &said);
    assert!(matches!(Client::connect(&socket).next().unwrap().header, Header::Hello(_)));
    daemon.stopped();
}

#[test]
fn a_daemon_that_cannot_start_says_why_in_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let path = file.to_str().unwrap();
    let absent = dir.path().join("absent.onnx");
    let run = |config: &str, code: i32, said: &str| {
        std::fs::write(&file, config).unwrap();
        refused(&["run", "--config", path], code, said);
    };
    run(
        &format!("[model]\npath = {absent:?}\n"),
        1,
        &format!("{}: cannot be read: No such file or directory (os error 2)\n", absent.display()),
    );
    run(
        "[tta]\nhflip = 0\n[model]\nthreads = 257\n",
        2,
        &format!(
            "{path}:2: tta.hflip: found an integer, allowed true or false\n\
             {path}:4: model.threads: 257 is out of range, allowed an integer from 0 to 256\n"
        ),
    );
    // This model does not say its size.
    run(
        &format!(
            "[camera]\nsource = \"pattern\"\n[model]\npath = {:?}\n[sink.socket]\npath = {:?}\n",
            parity("model.onnx"),
            dir.path().join("s")
        ),
        1,
        "the model does not say its input size: set model.size, for example [299, 299]\n",
    );
}

/// Runs `explain` with the small model on these pictures.
fn explain(dir: &Path, images: &[&str], options: &[&str]) -> Output {
    let model = parity("model.onnx");
    let out = dir.join("out");
    let mut args = vec!["explain", "--model", model.to_str().unwrap()];
    args.extend(["--out", out.to_str().unwrap(), "--threads", "1"]);
    args.extend(options);
    args.extend(images);
    salientd(&args)
}

#[test]
fn explain_writes_arrays_scores_overlays_and_a_sheet() {
    let dir = tempfile::tempdir().unwrap();
    let images = [parity("0.png"), parity("1.png")].map(|p| p.to_str().unwrap().to_string());
    let images = [&*images[0], &*images[1]];
    let options =
        ["--size", "native", "--classes", "2,5,0", "--merge", "keras", "--filter", "none"];
    let out = explain(dir.path(), &images, &options);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let to = dir.path().join("out");
    let sheet = to.join("sheet.png");
    assert_eq!(text(&out.stdout), format!("2 images explained; see {}\n", sheet.display()));
    let written = ["0.json", "0.npy", "0.png", "1.json", "1.npy", "1.png", "sheet.png"];
    assert_eq!(names(&to), written);
    for (stem, shape) in [("0", [64, 64, 3]), ("1", [48, 72, 3])] {
        let maps = read_npy(&to.join(format!("{stem}.npy")));
        assert_eq!(maps.shape, shape);
        // The same maps as the reference: from the picture's file to the array's.
        let expected = common::npy(&format!("{stem}_doc_raw.npy"));
        let off = common::off(&maps.values, &expected.values);
        assert!(off < 1e-4, "{stem}: off by {off}");
        let described = read_json(&to.join(format!("{stem}.json")));
        let keys: Vec<&String> = described.as_object().unwrap().keys().collect();
        let all =
            ["classes", "covers", "image", "logits", "map", "model_sha256", "spent_ms", "views"];
        assert_eq!(keys, all);
        let indices: Vec<_> = described["classes"].as_array().unwrap().iter().collect();
        assert_eq!(
            indices.iter().map(|c| c["index"].as_u64()).collect::<Vec<_>>(),
            [2, 5, 0].map(Some)
        );
        assert_eq!(described["logits"].as_array().unwrap().len(), 6);
        let views = described["views"].as_array().unwrap();
        assert_eq!(views.len(), 8);
        assert!(views.iter().all(|v| v["spent_ms"].as_f64() > Some(0.0)));
        let overlay = salientd::camera::image::load_image(to.join(format!("{stem}.png"))).unwrap();
        assert_eq!([overlay.height, overlay.width], shape[..2]);
    }
    let sheet = salientd::camera::image::load_image(sheet).unwrap();
    assert!(sheet.width > 72 && sheet.height > 64);
}

#[test]
fn explain_refuses_what_it_cannot_read_or_keep_apart() {
    let dir = tempfile::tempdir().unwrap();
    let zero = parity("0.png").to_str().unwrap().to_string();
    let make = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    };
    let check = |images: &[&str], said: String| {
        let out = explain(dir.path(), images, &["--size", "64x64"]);
        assert_eq!((text(&out.stderr), out.status.code()), (&*said, Some(1)), "{images:?}");
    };
    let garbage = make("garbage.png", b"no picture at all");
    check(&[&garbage], format!("{garbage}: not an image: neither PNG nor JPEG\n"));
    let empty = make("empty.png", b"");
    check(&[&empty], format!("{empty}: not an image: the file is empty\n"));
    let absent = dir.path().join("absent.png").display().to_string();
    check(
        &[&absent],
        format!("{absent}: cannot be read: No such file or directory (os error 2)\n"),
    );
    let twin = make("twin/0.png", &std::fs::read(&zero).unwrap());
    check(
        &[&zero, &twin],
        format!(
            "{zero} and {twin}: both would be written to 0.png; explain them one after the other \
             into different folders\n"
        ),
    );
    let left = dir.path().join("out");
    assert!(!left.exists() || names(&left).is_empty(), "nothing is left behind");
}

#[test]
fn bench_and_inspect_speak_json() {
    let model = parity("model.onnx");
    let model = model.to_str().unwrap();
    let out = salientd(&[
        "bench",
        "--json",
        "--runs",
        "2",
        "--size",
        "64x64",
        "--threads",
        "1",
        "--model",
        model,
    ]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    for stage in ["decode", "preprocess", "view", "frame", "draw", "render"] {
        let at = |key: &str| report["stages"][stage][key].as_f64().unwrap_or(f64::NAN);
        let [min, p50, p95] = ["min_ms", "p50_ms", "p95_ms"].map(at);
        assert!(0.0 < min && min <= p50 && p50 <= p95, "{stage}: {report}");
    }
    assert!(report["load_ms"].as_f64() > Some(0.0) && report["rss_mib"].as_f64() > Some(1.0));
    assert_eq!(report["views"], 8);

    let out = salientd(&["model", "inspect", "--json", model]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((report["classes"].as_u64(), report["int8"].as_bool()), (Some(6), Some(false)));
    assert_eq!((&report["dynamic"], &report["native_size"]), (&true.into(), &().into()));
    assert_eq!(report["channels"], 64);
    let text_out = salientd(&["model", "inspect", model]);
    assert!(text(&text_out.stdout).contains("any size; works from "), "{}", text(&text_out.stdout));
}

/// Whatever the built-in model is, it has labels, a native size and int8 operators.
#[test]
fn the_built_in_model_explains_itself() {
    let file = repository("models/default-int8.onnx");
    let out = salientd(&["model", "inspect", "--json", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let labels = report["labels"].as_array().unwrap();
    assert_eq!(Some(labels.len() as u64), report["classes"].as_u64());
    assert!(report["native_size"].is_array(), "{report}");
    assert_eq!(report["int8"], true);
}

#[test]
fn watch_prints_what_the_socket_says() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path(), &config(dir.path(), 64, PATTERN), &[]);
    daemon.wait_told("READY=1");
    let socket = dir.path().join("s");
    let mut watch = Command::new(env!("CARGO_BIN_EXE_salientd"))
        .args(["watch", "--json", "--socket", socket.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut kinds = Vec::new();
    for line in lines {
        let message: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        kinds.push(message["kind"].as_str().unwrap().to_string());
        if kinds.iter().filter(|kind| *kind == "heatmap").count() == 3 {
            break;
        }
    }
    assert_eq!(kinds[0], "hello");
    // Its reader has gone: it ends by itself with the next message.
    let status = wait_for("watch's end", || watch.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    daemon.stopped();
}

/// The answer to a request of the page's address, or nothing while nobody answers.
fn http(address: &str, path: &str) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(common::process::PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.into()))
}

#[test]
fn the_page_is_served_through_a_socket_handed_down_and_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = address.to_string();
    let path = dir.path().join("config.toml");
    let http_table = "[sink.http]\nlisten = \"systemd\"\n";
    let text = config(dir.path(), 64, &format!("{PATTERN}{http_table}"));
    std::fs::write(&path, &text).unwrap();
    // Of the package systemd. It becomes the daemon when somebody connects.
    let mut child = Command::new("systemd-socket-activate")
        .args(["--listen", &address, "--fdname=http", env!("CARGO_BIN_EXE_salientd"), "run"])
        .args(["--config".as_ref(), path.as_os_str()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("systemd-socket-activate");
    wait_for("answer", || http(&address, "/healthz").filter(|(status, _)| *status == 200));
    let (_, shown) = http(&address, "/config").unwrap();
    assert!(shown.contains("listen = \"systemd\"") && shown.contains("fps = 50.0"), "{shown}");
    assert!(shown.contains("\nmax_fps = 15.0"));
    let (_, metrics) = http(&address, "/metrics").unwrap();
    assert!(metrics.contains("\nsalientd_socket_clients 0\n"), "{metrics}");

    // Another configuration of the sink itself: the socket is found again.
    std::fs::write(&path, text + "max_fps = 3.0\n").unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::HUP).unwrap();
    wait_for("new configuration", || {
        http(&address, "/config").filter(|(_, shown)| shown.contains("\nmax_fps = 3.0"))
    });
    wait_for("answer", || http(&address, "/healthz").filter(|(status, _)| *status == 200));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}
